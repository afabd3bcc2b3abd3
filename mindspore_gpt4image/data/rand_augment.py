"""RandAugment (Cubuk et al., 2020) as the DeiT and ConvNeXt recipes use it: timm's operators, ranges and notation.

MindCV has the notation too, but not the augmentation: it has no SolarizeAdd, takes shears for degrees, draws
translations anew from 0 up to the magnitude, posterizes to other bits, and its numbers come from global generators.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mindspore_gpt4image.errors import UserError

_FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
_SECTION = re.compile(r"(?P<name>[a-z]+)(?P<value>\d+(\.\d+)?)")


def _enhance(enhancer: type, image: Image.Image, level: float, look: dict) -> Image.Image:
    return enhancer(image).enhance(max(0.1, 1 + 0.9 * level))


def _affine(coefficients: Callable, image: Image.Image, level: float, look: dict) -> Image.Image:
    return image.transform(image.size, Image.AFFINE, coefficients(level, *image.size), **look)


def _rotate(image: Image.Image, level: float, look: dict) -> Image.Image:
    return image.rotate(30 * level, **look)


def _auto_contrast(image: Image.Image, level: float, look: dict) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, level: float, look: dict) -> Image.Image:
    return ImageOps.equalize(image)


def _invert(image: Image.Image, level: float, look: dict) -> Image.Image:
    return ImageOps.invert(image)


def _posterize(image: Image.Image, level: float, look: dict) -> Image.Image:
    # The highest level keeps no bit at all, which newer Pillows' own posterize refuses.
    mask = 255 << (4 + int(4 * level)) & 255
    return image.point([value & mask for value in range(256)] * 3)


def _solarize(image: Image.Image, level: float, look: dict) -> Image.Image:
    return ImageOps.solarize(image, 256 - int(256 * level))


def _solarize_add(image: Image.Image, level: float, look: dict) -> Image.Image:
    return image.point([min(255, value + int(110 * level)) if value < 128 else value for value in range(256)] * 3)


# Each takes an image, a level and what to fill with. Levels go from 0 (least) to 1; those of the second table are
# negated with probability 1/2.
ONE_SIDED = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": _invert,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
}
TWO_SIDED = {
    "rotate": _rotate,
    "color": partial(_enhance, ImageEnhance.Color),
    "contrast": partial(_enhance, ImageEnhance.Contrast),
    "brightness": partial(_enhance, ImageEnhance.Brightness),
    "sharpness": partial(_enhance, ImageEnhance.Sharpness),
    "shear_x": partial(_affine, lambda level, width, height: (1, 0.3 * level, 0, 0, 1, 0)),
    "shear_y": partial(_affine, lambda level, width, height: (1, 0, 0, 0.3 * level, 1, 0)),
    "translate_x": partial(_affine, lambda level, width, height: (1, 0, 0.45 * level * width, 0, 1, 0)),
    "translate_y": partial(_affine, lambda level, width, height: (1, 0, 0, 0, 1, 0.45 * level * height)),
}
OPERATORS = {**ONE_SIDED, **TWO_SIDED}


@dataclass(frozen=True)
class RandAugment:
    """`layers` operators drawn with replacement, each applied with `probability` at a level of its own.

    Attributes:
        magnitude: mean of the level times 10.
        noise: standard deviation of the level times 10; what is drawn is clipped to [0, 10].
        layers: operators an image.
        probability: of each of them.
        interpolation: `bilinear` or `bicubic`, of rotations, shears and translations.
        fill: colour where those leave nothing.
    """

    magnitude: float = 10.0
    noise: float = 0.0
    layers: int = 2
    probability: float = 0.5
    interpolation: str = "bicubic"
    fill: tuple[int, int, int] = (128, 128, 128)

    @classmethod
    def parse(cls, text: str, interpolation: str, fill: tuple[int, int, int]) -> RandAugment:
        """Read timm's notation, for instance rand-m9-mstd0.5-inc1 or rand-m9-n2-p0.5-mstd0.5-inc1.

        Raises:
            UserError: it is no such text, or asks for one of timm's other kinds.
        """
        where = f"augment.rand_augment={text}"
        form = "it is written like rand-m9-mstd0.5-inc1"
        kind, *sections = text.split("-")
        if kind != "rand":
            raise UserError(f"{where}: begins with {kind!r}, not with rand; {form}")
        values: dict[str, float] = {}
        for section in sections:
            match = _SECTION.fullmatch(section)
            name = match and match["name"]
            if name not in ("m", "mstd", "n", "p", "inc"):
                raise UserError(f"{where}: {section!r} is none of m, mstd, n, p, inc with a number; {form}")
            if name in values:
                raise UserError(f"{where}: {name} stands there twice")
            values[name] = float(match["value"])
        limits = (
            ("m", values.get("m", 10) <= 10, "at most 10"),
            ("mstd", values.get("mstd", 0) <= 100, "at most 100 (timm's uniform levels are not implemented)"),
            ("n", values.get("n", 2) in range(1, 16), "a whole number from 1 to 15"),
            ("p", values.get("p", 0.5) <= 1, "at most 1"),
            ("inc", values.get("inc") == 1, "1 (operators that do not grow with the magnitude are not implemented)"),
        )
        for name, holds, wording in limits:
            if not holds:
                raise UserError(f"{where}: {name} must be {wording}")
        return cls(
            magnitude=values.get("m", 10.0),
            noise=values.get("mstd", 0.0),
            layers=int(values.get("n", 2)),
            probability=values.get("p", 0.5),
            interpolation=interpolation,
            fill=fill,
        )

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Augment one image, uint8 [H, W, 3]; nothing else than `random` decides how."""
        image = Image.fromarray(pixels)
        look = {"resample": _FILTERS[self.interpolation], "fillcolor": self.fill}
        for name in random.choice(list(OPERATORS), self.layers):
            if random.random() >= self.probability:
                continue
            level = min(max(random.normal(self.magnitude, self.noise), 0), 10) / 10
            if name in TWO_SIDED and random.random() < 0.5:
                level = -level
            image = OPERATORS[name](image, level, look)
        return np.asarray(image)


def augment_batches(
    batches: Iterable[tuple[np.ndarray, ...]],
    augment: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    seed: int,
    threads: int,
    first: int = 0,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Augment the pixels of (pixels uint8 [B, H, W, 3], further columns), a batch ahead, in threads.

    Row n has a generator of its own, from (seed, n) alone; `first` is the number of the first. RandAugment as in the
    recipes takes 2 ms of CPU time an image of 224x224, most of it in bicubic transforms, during which Pillow lets other
    threads run.
    """

    def row(pixels: np.ndarray, number: int) -> np.ndarray:
        return augment(pixels, np.random.Generator(np.random.Philox(key=[seed, number])))

    waiting: deque = deque()
    with ThreadPoolExecutor(threads) as pool:
        for pixels, *columns in batches:
            waiting.append((pool.map(row, pixels, range(first, first + len(pixels))), columns))
            first += len(pixels)
            if len(waiting) > 1:
                rows, columns = waiting.popleft()
                yield (np.stack(list(rows)), *columns)
        for rows, columns in waiting:
            yield (np.stack(list(rows)), *columns)
