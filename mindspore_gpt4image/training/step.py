"""One training step as one graph: pixels in, updated weights out."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

from mindspore_gpt4image import distributed
from mindspore_gpt4image.models import weights


def all_finite(gradients: Sequence[Tensor]) -> Tensor:
    """Whether no entry is inf, NaN or above 1e19 (whose square is inf in float32): a bool scalar.

    An inf or NaN survives the sum of squares. `mindspore.amp.all_finite` is exact, and takes four times as long on CPU,
    110 ms for ResNet-50.
    """
    half_square = ops.L2Loss()
    return ops.isfinite(ops.stack([half_square(gradient) for gradient in gradients]).sum())


class ForwardLoss(nn.Cell):
    """Pixels and targets to (total, cross-entropy, alignment, number of right answers); see `TrainStep`."""

    def __init__(self, network: nn.Cell, preprocess: nn.Cell, loss: nn.Cell):
        super().__init__(auto_prefix=False)
        self.network = network
        self.preprocess = preprocess
        self.loss = loss

    def construct(self, images, labels, text_emb, text_id):
        logits, image_emb = self.network(self.preprocess(images))
        total, ce, align = self.loss(logits, labels, image_emb, text_emb, text_id)
        correct = (logits.argmax(axis=1).astype(mstype.int32) == labels).astype(mstype.float32).sum()
        return total, ce, align, correct


class TrainStep(nn.Cell):
    """Forward, gradient, mean over ranks, finiteness check, clipping and update.

    A gradient that is not finite changes nothing but the count of such steps in a row: weights, moments and BatchNorm
    statistics stay as they were. The gradient is what to watch, since CPU's ReLU turns NaN into 0 and the loss may
    look sane.

    Args:
        network: (logits, image_emb) of normalised images.
        preprocess: uint8 NHWC pixels to normalised NCHW.
        loss: `GPT4ImageLoss`.
        optimizer: holds the weights to train; its learning rate is set at every step.
        clip_norm: largest global norm of the gradient, or None.

    Inputs:
        lr: float32 scalar.
        random_state: int32 [2], seed (of this rank) and number of the step: what drop path draws from.
        images: uint8 [B, H, W, 3].
        labels: int32 [B].
        stop: float32 scalar, above 0 where this rank was asked to stop.
        text_emb, text_id: float32 [B, k] and int32 [B]; None for a baseline.

    Outputs:
        float32 [5], the same on every rank: cross-entropy, alignment and right answers (means over the ranks), 1 if the
        step was taken or 0 if its gradient was not finite, and above 0 if any rank was asked to stop.
    """

    def __init__(self, network: nn.Cell, preprocess: nn.Cell, loss: nn.Cell, optimizer: nn.Optimizer, clip_norm=None):
        super().__init__(auto_prefix=False)
        self.network = network
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.forward_loss = ForwardLoss(network, preprocess, loss)
        self.gradient = ops.value_and_grad(self.forward_loss, None, optimizer.parameters, has_aux=True)
        ranks = distributed.world_size()
        self.ranks = ranks
        if ranks > 1:
            self.reduce = nn.DistributedGradReducer(optimizer.parameters, mean=True, degree=ranks)
            self.sum = ops.AllReduce(ops.ReduceOp.SUM)
        self.random_state = network.drop_path.state if network.drop_path is not None else None
        # The forward pass moves the BatchNorm statistics before anybody knows whether the step is good.
        statistics = [p for p in weights(network).values() if not p.requires_grad]
        self.statistics = ParameterTuple(statistics)
        self.kept = ParameterTuple(
            [Parameter(p.value().copy(), f"kept.{p.name}", requires_grad=False) for p in statistics]
        )

    def state(self) -> dict[str, Parameter]:
        """What a later step depends on besides the network's parameters: moments and counters, by name."""
        weights = {parameter.name for parameter in self.optimizer.parameters}
        return {p.name: p for p in self.optimizer.get_parameters() if p.name not in weights}

    def keep_statistics(self) -> None:
        """Take the network's present BatchNorm statistics as the good ones; due after loading them."""
        for kept, statistic in zip(self.kept, self.statistics):
            kept.set_data(statistic.value().copy())

    def construct(self, lr, random_state, stop, images, labels, text_emb=None, text_id=None):
        if self.random_state is not None:
            ops.assign(self.random_state, random_state)
        (_, ce, align, correct), gradients = self.gradient(images, labels, text_emb, text_id)
        if self.ranks > 1:
            gradients = self.reduce(gradients)
        finite = all_finite(gradients)
        # Clipping comes after the check: it would turn an inf into NaN.
        if self.clip_norm is not None:
            gradients = ops.clip_by_global_norm(gradients, self.clip_norm)
        ops.assign(self.optimizer.learning_rate, lr)
        if finite:
            self.optimizer(gradients)
            for i in range(len(self.statistics)):
                ops.assign(self.kept[i], self.statistics[i])
        else:
            for i in range(len(self.statistics)):
                ops.assign(self.statistics[i], self.kept[i])
        result = ops.stack([ce, align, correct, finite.astype(mstype.float32), stop])
        return self.sum(result) / self.ranks if self.ranks > 1 else result
