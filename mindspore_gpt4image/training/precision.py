"""Mixed precision: which part of a network computes in 16 bits, and the loss scale that float16 needs."""

from __future__ import annotations

from typing import Optional

from mindspore import dtype as mstype
from mindspore import nn
from mindspore.amp import DynamicLossScaler, auto_mixed_precision

_DTYPES = {"O2": mstype.float16, "bf16": mstype.bfloat16}
# Of a dynamic scale: where it begins, and after how many good steps it doubles. A bad step halves it.
_FIRST_SCALE, _WINDOW = 2**16, 2000
# Longer than any training, so that a fixed scale never grows.
_NEVER = 2**31 - 1


def use_mixed_precision(network: nn.Cell, amp: str) -> None:
    """Let `network` compute in 16 bits, all but normalisation layers; its weights stay float32.

    Args:
        amp: "O0" (float32), "O2" (float16) or "bf16".
    """
    if amp != "O0":
        # It changes the cells in place; what it returns would only cast the outputs, which the loss does.
        auto_mixed_precision(network, "O2", _DTYPES[amp])


def create_loss_scaler(amp: str, loss_scale: Optional[float]) -> Optional[DynamicLossScaler]:
    """The scaler of the loss, or None where nothing can underflow.

    Args:
        loss_scale: a fixed scale; None: dynamic under "O2".
    """
    if loss_scale is not None:
        return DynamicLossScaler(loss_scale, 1, _NEVER)
    return DynamicLossScaler(_FIRST_SCALE, 2, _WINDOW) if amp == "O2" else None
