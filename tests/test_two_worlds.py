"""The training side needs no torch, and the offline side (but for writing the store) no MindSpore."""

import subprocess
import sys
from pathlib import Path

import pytest
from blocked import MINDSPORE, TORCH, blocking
from PIL import Image
from tiny_describers import write_llava

from mindspore_gpt4image.sources.descriptions import read_descriptions

DESCRIBE = Path(__file__).parents[1] / "tools" / "describe.py"
PACKAGE = Path(__file__).parents[1] / "mindspore_gpt4image"


def modules(*folders: str) -> list[str]:
    """Every module of the package that lies in one of the folders (or files)."""
    paths = [path for folder in folders for path in sorted(PACKAGE.glob(folder))]
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names]


def import_without(blocked, names):
    """Import the modules in a fresh interpreter in which the blocked packages cannot be imported."""
    code = f"{blocking(blocked)}\nimport importlib\nfor name in {names!r}:\n    importlib.import_module(name)\n"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_training_imports_without_torch():
    # The benchmarks measure PyTorch too, where it is installed.
    names = [name for name in modules("**/*.py") if ".offline" not in name and ".benchmark" not in name]
    assert len(names) > 25
    result = import_without(TORCH, names)
    assert result.returncode == 0, result.stderr


def test_sources_and_offline_import_without_mindspore():
    names = modules("sources/*.py", "offline/*.py", "config.py", "errors.py", "files.py", "model_info.py")
    assert len(names) > 10
    result = import_without(MINDSPORE, names)
    assert result.returncode == 0, result.stderr


def test_prediction_imports_without_mindspore_and_torch():
    names = modules("classifiers.py", "predict.py", "released.py", "evaluation/classification.py")
    assert len(names) == 4
    result = import_without((*MINDSPORE, *TORCH), names)
    assert result.returncode == 0, result.stderr


def test_sources_need_numpy_and_pillow_alone():
    result = import_without((*MINDSPORE, *TORCH, "yaml", "omegaconf", "scipy"), modules("sources/*.py"))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("blocked", [TORCH, MINDSPORE])
def test_the_block_blocks(blocked):
    assert import_without(blocked, [blocked[0]]).returncode != 0


def describe_without(blocked, root, *arguments):
    """Run tools/describe.py on two images; returns the texts by id."""
    folder = root / "train" / "a"
    folder.mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (20, 20), (100 * number, 0, 0)).save(folder / f"{number}.png")
    output = root / "descriptions.jsonl"
    command = [DESCRIBE, "--data", root, "--output", output, "--text", "short", *arguments]
    code = f"""{blocking(blocked)}
import runpy
sys.argv = {[*map(str, command)]!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return read_descriptions(output, "short")


def test_describing_runs_without_mindspore(tmp_path):
    model = write_llava(tmp_path / "llava")
    texts = describe_without(MINDSPORE, tmp_path / "data", "--model", model, "--max-tokens", 4)
    assert sorted(texts) == ["train/a/0.png", "train/a/1.png"]


def test_descriptions_are_imported_without_either(tmp_path):
    (tmp_path / "texts.csv").write_text("image,caption\n0.png,black\n1.png,red\n")
    texts = describe_without((*MINDSPORE, *TORCH), tmp_path / "data", "--import", tmp_path / "texts.csv")
    assert texts == {"train/a/0.png": "black", "train/a/1.png": "red"}
