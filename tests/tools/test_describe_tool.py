"""The command line of tools/describe.py, as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_describers import write_blip2

from mindspore_gpt4image.sources.descriptions import read_descriptions

DESCRIBE = Path(__file__).parents[2] / "tools" / "describe.py"


def describe(*arguments, launcher=(), **environment):
    command = [sys.executable, *launcher, DESCRIBE, *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def data(tmp_path):
    """Seven images, one of them broken."""
    root = tmp_path / "data"
    for number in range(7):
        path = root / "train" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 20), (40 * number, 200 - 30 * number, 90)).save(path)
    (root / "train" / "class1" / "3.png").write_bytes(b"no image")
    return root


@pytest.mark.slow
def test_two_processes_of_torchrun_and_the_merge_they_tell(data, tmp_path):
    model = write_blip2(tmp_path / "blip2", "opt")
    output = tmp_path / "sets" / "descriptions.jsonl"
    command = ["--data", data, "--output", output, "--model", model, "--max-tokens", 5, "--text", "short"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = describe(*command, launcher=launcher)
    assert result.returncode == 0, result.stderr
    merge = next(line for line in result.stdout.splitlines() if "cat " in line).partition(": ")[2]
    subprocess.run(["bash", "-c", merge], check=True)
    texts = read_descriptions(output, "short")
    assert len(texts) == 6
    (failures,) = output.parent.glob("failures.*")
    assert json.loads(failures.read_text())["id"] == "train/class1/3.png"

    alone = tmp_path / "alone" / "descriptions.jsonl"
    result = describe(*command[:2], "--output", alone, *command[4:], "--batch-size", 3)
    assert result.returncode == 0, result.stderr
    assert "6 images described in " in result.stdout
    assert f"1 images failed, listed in {alone.parent / 'failures.jsonl'}" in result.stdout
    assert read_descriptions(alone, "short") == texts


def test_a_released_list_is_imported(data, tmp_path):
    texts = [f"text {number}" for number in range(7)]
    torch.save(texts, tmp_path / "released.pth")
    output = tmp_path / "descriptions.jsonl"
    command = ["--data", data, "--output", output, "--import", tmp_path / "released.pth"]
    result = describe(*command, "--text", "long")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{output}: 7 of 7 images have their text from {tmp_path / 'released.pth'}\n"
    assert list(read_descriptions(output, "long").values()) == texts
    again = describe(*command, "--text", "long")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == f"error: {output}: is there already; delete it or choose another name\n"


def test_what_an_import_lacks_is_told(data, tmp_path):
    (tmp_path / "texts.csv").write_text("image,short,long\n0.png,a,b\n1.png,c,\n9.png,d,e\n")
    output = tmp_path / "descriptions.jsonl"
    result = describe("--data", data, "--output", output, "--import", tmp_path / "texts.csv")
    assert (result.returncode, result.stderr) == (0, "")
    assert output.read_text() == '{"id": "train/class0/0.png", "short": "a", "long": "b"}\n'
    assert "1 of 7 images have their text" in result.stdout
    assert "6 images have none, listed in " in result.stdout
    assert "1 texts belong to no image (first: 9.png)" in result.stdout
    failures = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert [line["id"] for line in failures[-2:]] == ["train/class1/3.png", "train/class1/5.png"]
    assert failures[0]["reason"] == f"no text in {tmp_path / 'texts.csv'}"


@pytest.mark.parametrize(
    ("arguments", "environment", "error"),
    [
        (["--model", "m", "--text", "tall"], {}, "--text tall: give short, long or short,long"),
        (["--model", "m", "--batch-size", "0"], {}, "--batch-size 0: must be at least 1"),
        (["--model", "m", "--retries", "-1"], {}, "--retries -1: must be at least 0"),
        (["--model", "m", "--base-url", "localhost:8000"], {}, "--base-url localhost:8000: must begin with http"),
        (["--model", "m", "--base-url", "http://127.0.0.1:9/v1"], {}, "http://127.0.0.1:9/v1: no server answers"),
        (["--model", "m", "--split", "val"], {}, "{data}: there is no split 'val'"),
        (["--model", "m"], {"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 WORLD_SIZE=2: RANK must lie below WORLD_SIZE"),
        (["--import", "{data}"], {}, "{data}: holds one text an image; say which it is: --text short or"),
    ],
)
def test_mistakes_are_one_line(data, tmp_path, arguments, environment, error):
    arguments = [each.format(data=data) for each in arguments]
    result = describe("--data", data, "--output", tmp_path / "descriptions.jsonl", *arguments, **environment)
    assert result.returncode == 1
    # A note of the images that cannot be described may come first.
    *notes, last = result.stderr.splitlines()
    assert last.startswith(f"error: {error.format(data=data)}"), result.stderr
    assert all(line.startswith("note: ") for line in notes), result.stderr


@pytest.mark.parametrize("arguments", [[], ["--model", "m", "--import", "x.csv"], ["--model", "m", "--dtype", "int8"]])
def test_wrong_syntax(data, tmp_path, arguments):
    assert describe("--data", data, "--output", tmp_path / "x.jsonl", *arguments).returncode == 2
