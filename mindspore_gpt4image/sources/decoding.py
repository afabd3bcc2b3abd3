"""Decoding image files to upright 8-bit RGB, the same way for training, describing and predicting."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mindspore_gpt4image.errors import UserError

# Larger images are refused; it is where Pillow warns of a decompression bomb, which needs no second voice.
MAX_PIXELS = 89_478_485
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# Named, since Pillow would also hand PostScript to an interpreter.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# EXIF orientation: what turns the stored picture upright.
_UPRIGHT = {
    2: Image.FLIP_LEFT_RIGHT,
    3: Image.ROTATE_180,
    4: Image.FLIP_TOP_BOTTOM,
    5: Image.TRANSPOSE,
    6: Image.ROTATE_270,
    7: Image.TRANSVERSE,
    8: Image.ROTATE_90,
}


def open_rgb(path: str | Path) -> Image.Image:
    """Decode an image to RGB, 8 bit, upright.

    Format is told by content, not by extension. The EXIF orientation is applied, transparency laid on white, 16-bit
    grey scaled by 1/256, CMYK converted, and of an animation the first frame is taken.

    Raises:
        UserError: the file is missing, broken, has more than `MAX_PIXELS` pixels or no defined 8-bit range.
    """
    with _opened(Path(path)) as image:
        return to_rgb(_turn_upright(image))


def encoded_rgb(path: str | Path) -> bytes:
    """Encoded image that any decoder turns into the pixels of `open_rgb`.

    A plain file (`is_plain`) is returned as it is, other images are re-encoded as PNG.

    Raises:
        UserError: as `open_rgb`.
    """
    path = Path(path)
    if is_plain(path):
        return path.read_bytes()
    buffer = io.BytesIO()
    open_rgb(path).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def is_plain(path: str | Path) -> bool:
    """Whether a file is a JPEG or PNG of 8-bit grey or RGB, upright and opaque.

    Whether it can be decoded is found here too, since some decoders end the process of whoever gives them a broken
    file. A JPEG is decoded at an eighth of its size, which shows the same faults in less time, or if it does not end as
    a JPEG should, in full; and so is a PNG, whose orientation may come last.

    Raises:
        UserError: as `open_rgb`.
    """
    path = Path(path)
    with _opened(path) as image:
        if image.format not in ("JPEG", "MPO", "PNG"):
            return False
        with path.open("rb") as file:
            head = file.read(32)
            file.seek(-2, io.SEEK_END)
            end = file.read()
        if image.format != "PNG":
            if end == b"\xff\xd9":
                image.draft(None, (1, 1))
            image.load()
        if image.mode not in ("RGB", "L") or _has_alpha(image) or _orientation(image) in _UPRIGHT:
            return False
        # Pillow calls a PNG of 16-bit RGB or of 1 to 4-bit grey RGB or L too; byte 24 is the bit depth in its header.
        return image.format != "PNG" or head[24] == 8


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any of Pillow's modes to 8-bit RGB on white.

    Raises:
        ValueError: its pixels have no defined 8-bit range.
    """
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise ValueError("32-bit pixels have no fixed range, convert it to 8 bit")
    if image.mode.startswith("I"):
        image = _scale_to_8_bit(image)
    if not _has_alpha(image):
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The open image; whatever goes wrong while it is open is the file's fault and told by its path."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}")
            yield image
    except UnidentifiedImageError as error:
        cause = (
            f"not an image of a known format ({', '.join(_FORMATS)})" if path.stat().st_size else "the file is empty"
        )
        raise UserError(f"{path}: cannot be decoded: {cause}; replace or remove it") from error
    except Exception as error:  # a broken file can make a decoder of Pillow raise anything
        cause = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be decoded: {cause}; replace or remove it") from error


def _orientation(image: Image.Image) -> int:
    return image.getexif().get(0x0112, 1)


def _turn_upright(image: Image.Image) -> Image.Image:
    image.load()  # first, since a TIFF is turned, and its tag removed, while it loads
    method = _UPRIGHT.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _has_alpha(image: Image.Image) -> bool:
    return "A" in image.getbands() or "transparency" in image.info


def _scale_to_8_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits a pixel, in any of Pillow's integer modes, to its high byte, as Pillow does for 16-bit RGB."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray((values != image.info["transparency"]).astype(np.uint8) * 255))
    return grey
