"""Does lambda matter at all? How the pulls of labels and of texts compare at the feature that both read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import dtype as mstype
from mindspore import nn, ops

from mindspore_gpt4image import distributed
from mindspore_gpt4image.losses import GPT4ImageLoss, cross_entropy, excluded_pairs, normalize
from mindspore_gpt4image.training.step import TrainStep


class _CrossEntropyOfFeature(nn.Cell):
    def __init__(self, network: nn.Cell, loss: GPT4ImageLoss):
        super().__init__(auto_prefix=False)
        self.classifier, self.loss = network.classifier, loss

    def construct(self, feature, targets):
        # By B, or a float16 gradient of the mean would underflow.
        ce = cross_entropy(self.classifier(feature), targets, self.loss.label_smoothing)
        return ce * feature.shape[0]


class _AlignmentOfFeature(nn.Cell):
    def __init__(self, network: nn.Cell, loss: GPT4ImageLoss):
        super().__init__(auto_prefix=False)
        self.projection, self.loss = network.projection, loss

    def construct(self, feature, text_emb, text_id, text_target):
        align = self.loss.align(self.projection(feature), text_emb, text_id, text_target)
        return self.loss.weight * align * feature.shape[0]


class Diagnostics(nn.Cell):
    """Look at a training batch, as the step that comes next sees it, and change nothing.

    Args:
        step: the training step of an aligned run.

    Inputs: those of `TrainStep` from `random_state` on, but for `stop` and `last`.

    Outputs:
        float32 [5], sums over all rows of all ranks: images whose own text is the nearest of the global batch's (texts
        equal to the own one do not compete), images with a text, and at the shared feature f the squared norms of
        d L_ce / d f and of d (lambda · L_align) / d f and their inner product; see
        `totals`.
    """

    def __init__(self, step: TrainStep):
        super().__init__(auto_prefix=False)
        self.step = step
        self.network = step.network
        self.forward_loss = step.forward_loss
        self.loss = step.forward_loss.loss
        self.ce_gradient = ops.grad(_CrossEntropyOfFeature(self.network, self.loss), 0)
        self.align_gradient = ops.grad(_AlignmentOfFeature(self.network, self.loss), 0)
        self.random_state = step.random_state
        self.statistics, self.kept = step.statistics, step.kept
        self.ranks = distributed.world_size()
        if self.ranks > 1:
            self.sum = ops.AllReduce(ops.ReduceOp.SUM)

    def construct(self, random_state, images, labels, text_emb, text_id, mix=None, boxes=None):
        if self.random_state is not None:
            ops.assign(self.random_state, random_state)
        images, targets, text_target = self.forward_loss.prepare(
            random_state, images, labels, text_emb, text_id, mix, boxes
        )
        feature = self.network.feature(images)
        ce = self.ce_gradient(feature, targets).astype(mstype.float32)
        align = self.align_gradient(feature, text_emb, text_id, text_target).astype(mstype.float32)

        all_ids = self.loss.gather(text_id)
        excluded = excluded_pairs(text_id, all_ids, self.loss.rank)
        image_emb = normalize(self.network.projection(feature))
        scores = self.loss.similarity(image_emb, self.loss.gather(text_emb), excluded)
        own = ops.arange(feature.shape[0]) + self.loss.rank * feature.shape[0]
        has_text = text_id >= 0
        right = ops.logical_and(has_text, scores.argmax(axis=1) == own)

        # The forward pass in training mode has moved the BatchNorm statistics.
        for i in range(len(self.statistics)):
            ops.assign(self.statistics[i], self.kept[i])
        counts = [right.astype(mstype.float32).sum(), has_text.astype(mstype.float32).sum()]
        result = ops.stack(counts + [(ce * ce).sum(), (align * align).sum(), (ce * align).sum()])
        return self.sum(result) if self.ranks > 1 else result


def totals(sums: np.ndarray, rows: int) -> np.ndarray:
    """What is added up over the looks of an epoch, float64 [6], of one output of `Diagnostics` on `rows` rows in all:
    the two counts, the two norms of the gradients of the mean loss, their cosine, and 1.
    """
    right, counted, ce, align, inner = np.asarray(sums, np.float64)
    ce, align = np.sqrt(ce), np.sqrt(align)
    cosine = inner / (ce * align) if ce * align > 0 else 0.0
    return np.array([right, counted, ce / rows, align / rows, cosine, 1])


def summarise(total: Sequence[float]) -> dict[str, float]:
    """Means over the looks that `total`, the sum of their `totals`, is made of; empty without any.

    Returns:
        batch_r_at_1: images whose own text is the nearest of the batch's, in percent.
        ce_gradient, align_gradient: norms of d L_ce / d f and d (lambda · L_align) / d f; where the second is far below
            the first, lambda does nothing.
        gradient_cosine: of the two: above 0 they agree, below 0 they work against each other.
    """
    right, counted, ce, align, cosine, looks = total
    if not looks:
        return {}
    return {
        "batch_r_at_1": 100.0 * right / max(counted, 1),
        "ce_gradient": ce / looks,
        "align_gradient": align / looks,
        "gradient_cosine": cosine / looks,
    }
