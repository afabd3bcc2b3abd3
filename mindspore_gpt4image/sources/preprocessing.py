"""What an image goes through before evaluation; anyone can repeat it with Pillow and NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mindspore_gpt4image.errors import UserError

_FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}


@dataclass(frozen=True)
class EvalTransform:
    """Resize the shorter side, then crop the centre, in the rounding of torchvision.

    Attributes:
        resize: length of the shorter side after resizing.
        crop: side of the square that is kept.
        interpolation: `bilinear` or `bicubic`, as Pillow computes them (with antialiasing).

    Raises:
        UserError: the crop is larger than the resized image, or the interpolation is unknown.
    """

    resize: int
    crop: int
    interpolation: str = "bilinear"

    def __post_init__(self):
        if self.resize < self.crop:
            raise UserError(f"resize {self.resize} is smaller than crop {self.crop}; choose resize >= crop")
        if self.interpolation not in _FILTERS:
            raise UserError(f"interpolation {self.interpolation!r} is unknown; choose {' or '.join(_FILTERS)}")

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Turn an RGB image into uint8 [crop, crop, 3]."""
        width, height = image.size
        if width <= height:
            size = self.resize, int(self.resize * height / width)
        else:
            size = int(self.resize * width / height), self.resize
        left, top = (int(round((side - self.crop) / 2.0)) for side in size)
        resized = image.resize(size, _FILTERS[self.interpolation])
        return np.array(resized.crop((left, top, left + self.crop, top + self.crop)))
