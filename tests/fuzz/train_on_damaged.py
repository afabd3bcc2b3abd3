"""Damage many images and train on them, in a process of its own, since a decoder may end its process.

    python train_on_damaged.py FOLDER SEED COUNT

Prints a JSON object: how many images were refused when they were listed, by `find_broken`, and by MindData alone.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from mindspore_gpt4image.data.augmentation import Augmentation
from mindspore_gpt4image.data.pipeline import train_batches
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.formats import list_images

FORMATS = {
    "jpg": [{"format": "JPEG", "quality": 60}, {"format": "JPEG", "progressive": True}],
    "png": [{"format": "PNG"}, {"format": "PNG", "compress_level": 0}],
    "gif": [{"format": "GIF"}],
    "webp": [{"format": "WEBP"}, {"format": "WEBP", "lossless": True}],
    "bmp": [{"format": "BMP"}],
    "tif": [{"format": "TIFF"}, {"format": "TIFF", "compression": "tiff_lzw"}],
}


def encoded(random, ending):
    """A picture with something on it, in one of the ways of its format."""
    height, width = random.integers(8, 64, 2)
    mode = random.choice(["RGB", "L", "RGBA", "P"]) if ending in ("png", "tif") else "RGB"
    ramp = np.linspace(0, 255, width)[None, :, None] * random.random(3) + random.normal(0, 20, (height, 1, 3))
    image = Image.fromarray(np.clip(ramp, 0, 255).astype(np.uint8)).convert(str(mode))
    buffer = io.BytesIO()
    options = FORMATS[ending][random.integers(len(FORMATS[ending]))]
    exif = Image.Exif()
    exif[0x0112] = int(random.integers(0, 10))
    image.save(buffer, **options, **({"exif": exif.tobytes()} if ending == "jpg" and random.random() < 0.3 else {}))
    return buffer.getvalue()


def damaged(random, data):
    """Bits flipped, bytes set or lost, the end cut off."""
    data = bytearray(data)
    for _ in range(random.integers(1, 5)):
        position = int(random.integers(0, max(len(data), 1)))
        kind = random.integers(10)
        if kind < 6 and data:
            data[position] ^= 1 << int(random.integers(8))
        elif kind < 8:
            data[position : position + 8] = random.bytes(8)
        elif kind == 8:
            del data[position : position + int(random.integers(1, 30))]
        else:
            del data[position:]
    return bytes(data)


def main(folder, seed, count):
    random = np.random.default_rng(seed)
    place = folder / "train" / "a"
    place.mkdir(parents=True)
    for number in range(count):
        ending = str(random.choice(list(FORMATS)))
        data = encoded(random, ending)
        if number >= 4:  # some stay whole, to stand in for the others
            data = damaged(random, data)
        (place / f"{number:05}.{ending}").write_bytes(data)
    images = list_images(folder, "train")
    try:
        images.checked()
    except UserError as error:
        assert str(folder) in str(error)
    known = set(images.broken)
    images = images.checked(skip_broken=True)
    broken = {position for position, _ in images.find_broken()}
    # As training meets them that did not look before: nothing is known of the broken ones.
    found = set()
    augmentation = Augmentation(image_size=16, crop="random_resized" if seed % 2 else "none")
    order = np.arange(len(images))
    seen = [
        position
        for _, positions in train_batches(images, order, augmentation, 4, 0, 2, broken=found)
        for position in positions.tolist()
    ]
    assert not found & set(seen)
    met = order[: len(seen)]
    # Those that MindData could make nothing of are among those that Pillow refuses, or are named.
    print(
        json.dumps(
            {
                "images": count,
                "refused when listed": len(known),
                "refused when decoded": len(broken),
                "found in training": len(found),
                "trained though refused": len(broken & set(met.tolist()) - found),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
