"""One training step as one graph: pixels in, updated weights out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

from mindspore_gpt4image import distributed
from mindspore_gpt4image.models import weights
from mindspore_gpt4image.training.mixing import Erase, Mix
from mindspore_gpt4image.training.precision import LossScale

_map = ops.HyperMap()


def all_finite(gradients: Sequence[Tensor]) -> Tensor:
    """Whether no entry is inf, NaN or above 1e19 (whose square is inf in float32): a bool scalar.

    An inf or NaN survives the sum of squares. `mindspore.amp.all_finite` is exact, and takes four times as long on CPU,
    110 ms for ResNet-50.
    """
    half_square = ops.L2Loss()
    return ops.isfinite(ops.stack([half_square(gradient) for gradient in gradients]).sum())


def _multiply(factor: Tensor, x: Tensor) -> Tensor:
    return x * factor.astype(x.dtype)


def _add_to(total: Parameter, x: Tensor) -> Tensor:
    return ops.assign_add(total, x)


def _clear(total: Parameter) -> Tensor:
    return ops.assign(total, ops.zeros_like(total))


class ForwardLoss(nn.Cell):
    """Pixels and targets to (scaled loss, cross-entropy, alignment, number of right answers); see `TrainStep`.

    Pixels are normalised, then erased, then mixed; right answers are counted by the labels that are not mixed.
    """

    def __init__(self, network: nn.Cell, preprocess: nn.Cell, loss: nn.Cell):
        super().__init__(auto_prefix=False)
        self.network = network
        self.preprocess = preprocess
        self.loss = loss
        self.erase = Erase()
        self.mix = Mix()
        self.num_classes = network.classifier.out_channels

    def prepare(self, random_state, images, labels, text_emb, text_id, mix, boxes):
        """What the network reads, the targets of its logits, and the targets of its image embeddings."""
        images = self.preprocess(images)
        if boxes is not None:
            images = self.erase(images, boxes, random_state)
        if mix is None:
            return images, labels, None
        return self.mix(images, labels, text_emb, text_id, mix, self.num_classes)

    def construct(self, scale, random_state, images, labels, text_emb, text_id, mix, boxes):
        images, targets, text_target = self.prepare(random_state, images, labels, text_emb, text_id, mix, boxes)
        logits, image_emb = self.network(images)
        total, ce, align = self.loss(logits, targets, image_emb, text_emb, text_id, text_target)
        correct = (logits.argmax(axis=1).astype(mstype.int32) == labels).astype(mstype.float32).sum()
        return total * scale, ce, align, correct


class TrainStep(nn.Cell):
    """Forward, gradient, mean over micro-batches and ranks, finiteness check, clipping, update and moving average.

    A gradient that is not finite changes nothing but the count of such steps in a row and the loss scale: weights,
    moments, moving averages and BatchNorm statistics stay as they were. The gradient is what to watch, since CPU's ReLU
    turns NaN into 0 and the loss may look sane.

    Args:
        network: (logits, image_emb) of normalised images.
        preprocess: uint8 NHWC pixels to normalised NCHW.
        loss: `GPT4ImageLoss`.
        optimizer: holds the weights to train; its learning rate is set at every step.
        clip_norm: largest global norm of the gradient, or None.
        accumulate: how many micro-batches make a step; each is a call, the last one with `last` set.
        loss_scale: keeps float16 gradients from underflowing; None: they are not scaled.
        ema_decay: d of the moving average e = d · e + (1 - d) · w of all weights and statistics; None: none is kept.

    Inputs:
        lr: float32 scalar.
        random_state: int32 [2], seed (of this rank) and number of the micro-batch: what drop path and erasing hash.
        stop: float32 scalar, above 0 where this rank was asked to stop.
        last: bool scalar, whether this micro-batch is its step's last one.
        images: uint8 [B, H, W, 3].
        labels: int32 [B].
        text_emb, text_id: float32 [B, k] and int32 [B]; None for a baseline.
        mix: float32 [6] from `Mixing.draw`, or None.
        boxes: int32 [B, 4] from `draw_boxes`, or None.

    Outputs:
        float32 [5], the same on every rank: cross-entropy, alignment and right answers (means over the ranks), 1 if the
        step was taken or 0 if its gradient was not finite (or its last micro-batch is yet to come), and above 0 if any
        rank was asked to stop.
    """

    def __init__(
        self,
        network: nn.Cell,
        preprocess: nn.Cell,
        loss: nn.Cell,
        optimizer: nn.Optimizer,
        *,
        clip_norm: Optional[float] = None,
        accumulate: int = 1,
        loss_scale: Optional[LossScale] = None,
        ema_decay: Optional[float] = None,
    ):
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
        self.accumulate = accumulate
        if accumulate > 1:
            self.accumulated = optimizer.parameters.clone("accumulated", init="zeros")
        self.loss_scale = loss_scale
        parameters = list(weights(network).values())
        self.averaged = ParameterTuple(parameters if ema_decay else [])
        self.ema = _copies(self.averaged, "ema")
        self.ema_decay = ema_decay
        # The forward pass moves the BatchNorm statistics before anybody knows whether the step is good.
        self.statistics = ParameterTuple([p for p in parameters if not p.requires_grad])
        self.kept = _copies(self.statistics, "kept")
        self.averaged_statistics = [average for average, p in zip(self.ema, self.averaged) if not p.requires_grad]

    def state(self) -> dict[str, Parameter]:
        """What a later step depends on besides the network's parameters: moments, averages and counters, by name."""
        weights = {parameter.name for parameter in self.optimizer.parameters}
        state = {p.name: p for p in self.optimizer.get_parameters() if p.name not in weights}
        state.update({p.name: p for p in self.ema})
        if self.loss_scale is not None:
            state.update({p.name: p for p in (self.loss_scale.value, self.loss_scale.good_steps)})
        return state

    def keep_statistics(self) -> None:
        """Take the network's present BatchNorm statistics as the good ones; due after loading them."""
        # Here and below by assigning: after `set_data` a compiled graph would go on with the old array.
        for kept, statistic in zip(self.kept, self.statistics):
            ops.assign(kept, statistic.value().copy())

    def swap_averages(self) -> None:
        """Exchange the weights and their moving averages; to be undone before the next step."""
        for weight, average in zip(self.averaged, self.ema):
            value = weight.value().copy()
            ops.assign(weight, average.value().copy())
            ops.assign(average, value)

    def construct(
        self, lr, random_state, stop, last, images, labels, text_emb=None, text_id=None, mix=None, boxes=None
    ):
        if self.random_state is not None:
            ops.assign(self.random_state, random_state)
        scale = ops.ones((), mstype.float32) if self.loss_scale is None else self.loss_scale.value.value()
        (_, ce, align, correct), gradients = self.gradient(
            scale, random_state, images, labels, text_emb, text_id, mix, boxes
        )
        if self.accumulate == 1:
            taken = self.update(gradients, scale, lr)
        else:
            _map(_add_to, self.accumulated, gradients)
            taken = ops.zeros((), mstype.float32)
            if last:
                taken = self.update(self.accumulated, scale * self.accumulate, lr)
                _map(_clear, self.accumulated)
        result = ops.stack([ce, align, correct, taken, stop])
        return self.sum(result) / self.ranks if self.ranks > 1 else result

    def update(self, gradients, scale, lr):
        """Divide the gradients by `scale` and take the step if they are finite; returns 1.0, or 0.0 if it was not."""
        if self.ranks > 1:
            gradients = self.reduce(gradients)
        if self.accumulate > 1 or self.loss_scale is not None:
            gradients = _map(ops.partial(_multiply, 1 / scale), gradients)
        finite = all_finite(gradients)
        # Clipping comes after the check: it would turn an inf into NaN.
        if self.clip_norm is not None:
            gradients = ops.clip_by_global_norm(gradients, self.clip_norm)
        ops.assign(self.optimizer.learning_rate, lr)
        if finite:
            self.optimizer(gradients)
            for i in range(len(self.ema)):
                ops.assign(self.ema[i], self.ema_decay * self.ema[i] + (1 - self.ema_decay) * self.averaged[i])
            for i in range(len(self.statistics)):
                ops.assign(self.kept[i], self.statistics[i])
        else:
            for i in range(len(self.statistics)):
                ops.assign(self.statistics[i], self.kept[i])
        if self.loss_scale is not None:
            self.loss_scale(finite)
        return finite.astype(mstype.float32)


def _copies(parameters: Sequence[Parameter], prefix: str) -> ParameterTuple:
    return ParameterTuple([Parameter(p.value().copy(), f"{prefix}.{p.name}", requires_grad=False) for p in parameters])
