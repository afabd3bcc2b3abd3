"""What happens to a training image before it reaches the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from mindspore.dataset import vision

from mindspore_gpt4image.data.rand_augment import RandAugment

_FILTERS = {"bilinear": vision.Inter.LINEAR, "bicubic": vision.Inter.BICUBIC}


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image; see `AugmentConfig` for each value."""

    image_size: int
    crop: str = "random_resized"
    min_area: float = 0.08
    padding: int = 4
    fill: int = 0
    flip: float = 0.5
    color_jitter: float = 0.0
    interpolation: str = "bilinear"
    rand_augment: Optional[RandAugment] = None

    def operators(self) -> list:
        """MindData's C++ operators, from encoded bytes to uint8 [image_size, image_size, 3]; `rand_augment` follows."""
        size = (self.image_size, self.image_size)
        filter = _FILTERS[self.interpolation]
        if self.crop == "random_resized":
            operators = [vision.RandomCropDecodeResize(size, scale=(self.min_area, 1.0), interpolation=filter)]
        else:
            operators = [vision.Decode(), vision.Resize(size, filter)]
            if self.crop == "padded":
                operators.append(vision.RandomCrop(size, padding=self.padding, fill_value=self.fill))
        if self.flip > 0:
            operators.append(vision.RandomHorizontalFlip(self.flip))
        if self.color_jitter > 0:
            change = (1 - self.color_jitter, 1 + self.color_jitter)
            operators.append(vision.RandomColorAdjust(brightness=change, contrast=change, saturation=change))
        return operators
