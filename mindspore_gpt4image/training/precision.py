"""Mixed precision: which part of a network computes in 16 bits, and the loss scale that float16 needs."""

from typing import Optional

from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.amp import auto_mixed_precision

_DTYPES = {"O2": mstype.float16, "bf16": mstype.bfloat16}


class LossScale(nn.Cell):
    """What the loss is multiplied by, lest float16 gradients underflow.

    A step that is not finite halves it, down to 1; `window` good ones in a row double it. (MindSpore's
    `DynamicLossScaler` needs an operator that its GPU kernels lack.)

    Args:
        first: the scale to begin with.
        window: None: the scale is fixed.

    Attributes:
        value: float32 scalar.
        good_steps: int32 scalar, since the last change.

    Inputs:
        finite: bool scalar, whether the present step's gradient was finite.
    """

    def __init__(self, first: float, window: Optional[int] = None):
        super().__init__(auto_prefix=False)
        self.value = Parameter(Tensor(first, mstype.float32), name="loss_scale", requires_grad=False)
        self.good_steps = Parameter(Tensor(0, mstype.int32), name="good_steps", requires_grad=False)
        self.window = window

    def construct(self, finite: Tensor) -> Tensor:
        if self.window is None:
            return self.value
        good = ops.where(finite, self.good_steps + 1, ops.zeros_like(self.good_steps))
        is_due = good == self.window
        smaller = ops.maximum(self.value / 2, ops.ones_like(self.value))
        larger = ops.where(is_due, self.value * 2, self.value)
        ops.assign(self.value, ops.where(finite, larger, smaller))
        ops.assign(self.good_steps, ops.where(is_due, ops.zeros_like(good), good))
        return self.value


def use_mixed_precision(network: nn.Cell, amp: str) -> None:
    """Let `network` compute in 16 bits, all but normalisation layers; its weights stay float32.

    Args:
        amp: "O0" (float32), "O2" (float16) or "bf16".
    """
    if amp != "O0":
        # It changes the cells in place; what it returns would only cast the outputs, which the loss does.
        auto_mixed_precision(network, "O2", _DTYPES[amp])


def create_loss_scale(amp: str, loss_scale: Optional[float]) -> Optional[LossScale]:
    """The scale of the loss, or None where nothing can underflow.

    Args:
        loss_scale: a fixed scale; None: dynamic under "O2".
    """
    if loss_scale is not None:
        return LossScale(loss_scale)
    return LossScale(2**16, window=2000) if amp == "O2" else None
