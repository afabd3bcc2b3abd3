"""Pictures inside a page: small, and as text."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

from PIL import Image

from mindspore_gpt4image.sources.image_set import ImageSet


def data_uri(image: bytes, kind: str) -> str:
    """An encoded image (`kind`: png, webp) as an address that holds the image itself."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def thumbnail(image: Image.Image, side: int) -> str:
    """An image, at most `side` pixels wide and high, as a data URI; it is shrunk in place."""
    image.thumbnail((side, side), Image.LANCZOS)
    return data_uri(_webp(image), "webp")


def contact_sheet(images: ImageSet, positions: Sequence[int], tile: int) -> tuple[str, int]:
    """Images on one sheet, row by row in square tiles: the sheet as a data URI, and its number of columns."""
    columns = math.ceil(math.sqrt(len(positions)))
    sheet = Image.new("RGB", (columns * tile, math.ceil(len(positions) / columns) * tile), "white")
    for place, position in enumerate(positions):
        image = images.rgb(position)
        image.thumbnail((tile, tile), Image.LANCZOS)
        row, column = divmod(place, columns)
        left, top = column * tile + (tile - image.width) // 2, row * tile + (tile - image.height) // 2
        sheet.paste(image, (left, top))
    return data_uri(_webp(sheet), "webp"), columns


def _webp(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=85)
    return file.getvalue()
