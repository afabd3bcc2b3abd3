"""Mixup, cutmix and random erasing: what is random is drawn on the host, the pixels are changed in the graph."""

import math
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from mindspore_gpt4image.losses import one_hot
from mindspore_gpt4image.models.hashing import ERASING, uniform

# (share of the image itself in the targets, in the pixels outside the box, box: top, left, bottom, right)
UNMIXED = np.array([1, 1, 0, 0, 0, 0], np.float32)


@dataclass(frozen=True)
class Mixing:
    """Mixup (Zhang et al.) and cutmix (Yun et al.), one draw a batch, as in timm's `Mixup(mode="batch")`.

    Attributes:
        mixup, cutmix: alpha of the Beta(alpha, alpha) distribution of the share; 0: never.
        probability: of mixing a batch at all.
        switch: probability of cutmix where both are on.
    """

    mixup: float
    cutmix: float
    probability: float = 1.0
    switch: float = 0.5

    def draw(self, random: np.random.Generator, side: int) -> np.ndarray:
        """float32 [6] for a batch of images [side, side], as `Mix` takes it."""
        if random.random() >= self.probability:
            return UNMIXED
        use_cutmix = self.cutmix > 0 and (self.mixup == 0 or random.random() < self.switch)
        alpha = self.cutmix if use_cutmix else self.mixup
        share = random.beta(alpha, alpha)
        if not use_cutmix:
            return np.array([share, share, 0, 0, 0, 0], np.float32)
        half = int(side * math.sqrt(1 - share)) // 2
        centre = random.integers(0, side, 2)
        top, left = np.clip(centre - half, 0, side)
        bottom, right = np.clip(centre + half, 0, side)
        # The border may have cut the box: what counts is the area that was replaced.
        share = 1 - (bottom - top) * (right - left) / side**2
        return np.array([share, 1, top, left, bottom, right], np.float32)


def draw_boxes(random: np.random.Generator, batch_size: int, side: int, probability: float) -> np.ndarray:
    """Boxes to erase, int32 [B, 4]: top, left, bottom, right; all 0 where nothing is erased.

    Of random erasing (Zhong et al.) as in the DeiT recipe: one box of 2% to a third of the area, its aspect log-uniform
    between 0.3 and 1/0.3, drawn anew (ten times at most) while it does not fit.
    """
    boxes = np.zeros((batch_size, 4), np.int32)
    for row in np.flatnonzero(random.random(batch_size) < probability):
        for _ in range(10):
            area = random.uniform(0.02, 1 / 3) * side**2
            aspect = math.exp(random.uniform(math.log(0.3), -math.log(0.3)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height < side and width < side:
                top, left = random.integers(0, side - height + 1), random.integers(0, side - width + 1)
                boxes[row] = top, left, top + height, left + width
                break
    return boxes


def _inside(side: int, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """bool, broadcast to [B, 1, side, side]: which pixels lie in a box; its bounds are [B, 1, 1, 1] or scalars."""
    row, column = ops.arange(side).reshape(1, 1, side, 1), ops.arange(side).reshape(1, 1, 1, side)
    rows = ops.logical_and(row >= top, row < bottom)
    return ops.logical_and(rows, ops.logical_and(column >= left, column < right))


class Erase(nn.Cell):
    """Fill a box of each image with standard normal noise, a number of its own for each pixel and channel.

    Inputs:
        images: float32 [B, 3, S, S], normalised.
        boxes: int32 [B, 4], from `draw_boxes`.
        random_state: int32 [2], seed and number of the step, which the noise is a hash of.
    """

    def construct(self, images: Tensor, boxes: Tensor, random_state: Tensor) -> Tensor:
        top, left, bottom, right = ops.split(boxes.reshape(-1, 4, 1, 1), 1, axis=1)
        inside = _inside(images.shape[2], top, left, bottom, right)
        # Box and Muller: two uniform numbers make two normal ones.
        count = images.size
        half = (count + 1) // 2
        drawn = uniform(random_state, ERASING, 2 * half)
        # log1p, since log on CPU gives other last bits in other calls.
        radius = ops.sqrt(-2 * ops.log1p(-drawn[:half]))
        angle = 2 * math.pi * drawn[half:]
        noise = ops.concat((radius * ops.cos(angle), radius * ops.sin(angle)))[:count].reshape(images.shape)
        return ops.where(inside, noise, images)


class Mix(nn.Cell):
    """Mix each image, label and text with that of the row as far from the batch's end as it is from its start.

    Inputs:
        images: float32 [B, 3, S, S].
        labels: int32 [B].
        text_emb, text_id: float32 [B, k] and int32 [B], or None.
        mix: float32 [6], from `Mixing.draw`.
        num_classes: C.

    Outputs:
        images; label probabilities float32 [B, C]; text targets [B, k] or None: share · t_i + (1 - share) · t_partner,
        and t_i alone where the partner has no text.
    """

    def construct(self, images: Tensor, labels: Tensor, text_emb, text_id, mix: Tensor, num_classes: int):
        share, pixel_share = mix[0], mix[1]
        box = mix[2:].astype(mstype.int32)
        partners = ops.flip(images, (0,))
        inside = _inside(images.shape[2], box[0], box[1], box[2], box[3])
        images = ops.where(inside, partners, pixel_share * images + (1 - pixel_share) * partners)
        own = one_hot(labels, num_classes)
        targets = share * own + (1 - share) * ops.flip(own, (0,))
        if text_emb is None:
            return images, targets, None
        share = ops.where(ops.flip(text_id, (0,)) < 0, ops.ones_like(share), share).reshape(-1, 1)
        return images, targets, share * text_emb + (1 - share) * ops.flip(text_emb, (0,))
