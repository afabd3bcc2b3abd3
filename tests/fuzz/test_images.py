"""Damaged images: decoded or refused by path, and no decoder ends the process."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from damage import LONG, cases, damaged
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.decoding import encoded_rgb, is_plain, open_rgb

SCRIPT = Path(__file__).with_name("train_on_damaged.py")
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"]


def encode(format, mode="RGB", **options):
    ramp = np.linspace(0, 255, 24 * 17 * 3).reshape(17, 24, 3).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(ramp).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


WHOLE = [
    *map(encode, FORMATS),
    encode("JPEG", progressive=True, exif=Image.Exif().tobytes()),
    encode("JPEG", "CMYK"),
    encode("PNG", "P"),
    encode("PNG", "RGBA"),
    encode("PNG", "I;16"),
    encode("TIFF", compression="tiff_lzw"),
    encode("TIFF", "1", compression="group4"),
    encode("WEBP", "RGBA", lossless=True),
]


@cases(150, 20_000)
@given(data=st.sampled_from(WHOLE).flatmap(damaged))
def test_accidents(tmp_path, data):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    results = []
    for read in (is_plain, encoded_rgb, open_rgb):
        try:
            results.append(read(path))
        except UserError as error:
            assert str(error).startswith(f"{path}: cannot be decoded: ")
            results.append(None)
    plain, encoded, image = results
    if image is not None:
        assert image.mode == "RGB"
        assert encoded is not None
        with Image.open(io.BytesIO(encoded)) as again:
            # What is handed to other decoders is the file itself, or a PNG of what Pillow sees in it.
            assert plain or np.array_equal(np.asarray(again), np.asarray(image))


@pytest.mark.parametrize("seed", range(20 if LONG else 1))
def test_training_survives_them(tmp_path, seed):
    count = 400 if LONG else 60
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "data", str(seed), str(count)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"seed {seed}: exit {done.returncode}\n{done.stderr[-3000:]}"
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["images"] == count
    assert counts["refused when listed"] > 0
    assert counts["trained though refused"] == 0
