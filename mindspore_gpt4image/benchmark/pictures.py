"""Pictures for benchmarks: JPEG files of ImageNet's usual size, quality and number of bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 500, 375
QUALITY = 90
CLASSES = 8


def write_pictures(root: Path, count: int) -> None:
    """Write `root/train/<class>/<n>.JPEG`: different pictures, the same at every call."""
    for number in range(count):
        folder = root / "train" / f"class_{number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number:05d}.JPEG", quality=QUALITY)


def picture(seed: int) -> Image.Image:
    """Noise whose amplitude falls with the frequency as it does in photographs, with a little grain."""
    random = np.random.default_rng(seed)
    width, height = SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    layers = []
    for _ in range(3):
        phase = np.exp(2j * np.pi * random.random(frequency.shape))
        layer = np.fft.irfft2(phase / frequency, SIZE[::-1])
        layers.append(layer / layer.std())
    shade, red, blue = layers
    grain = random.normal(0, 4, (height, width, 1))
    channels = np.stack([shade + 0.3 * red, shade, shade + 0.3 * blue], axis=-1)
    return Image.fromarray(np.clip(120 + 50 * channels + grain, 0, 255).astype(np.uint8))
