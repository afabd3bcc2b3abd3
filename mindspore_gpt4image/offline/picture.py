"""Images as a model that describes them sees them."""

from __future__ import annotations

import io

from PIL import Image

from mindspore_gpt4image.sources.image_set import ImageSet

# As in the paper, Sec. 4.4: models name the object wrongly on 32 x 32 pixels.
SMALLEST_SIDE = 224
# What up-sampling makes no side longer than.
_LONGEST_SIDE = 1024


class Picture:
    """An image of a data set, its shorter side up-sampled to 224 pixels if it is smaller.

    Attributes:
        id: the image's.
        image: 8-bit RGB, upright.

    Raises:
        UserError: it is broken.
    """

    def __init__(self, images: ImageSet, position: int):
        self.id = images.ids[position]
        original = images.rgb(position)
        self.image = up_sample(original)
        self._is_original = self.image is original
        self._images, self._position = images, position

    def encoded(self) -> bytes:
        """JPEG or PNG of just these pixels: the file's own bytes where they are that."""
        if self._is_original:
            return self._images.encoded(self._position)
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def up_sample(image: Image.Image) -> Image.Image:
    """Resize (bicubic) to a shorter side of 224 pixels; the image itself if it has them."""
    factor = min(SMALLEST_SIDE / min(image.size), _LONGEST_SIDE / max(image.size))
    if factor <= 1:
        return image
    return image.resize(tuple(max(1, round(side * factor)) for side in image.size), Image.BICUBIC)
