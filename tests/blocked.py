"""Running code where some packages cannot be imported."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TORCH = ("torch", "transformers", "sentence_transformers")
MINDSPORE = ("mindspore", "mindcv")


def blocking(packages: Sequence[str]) -> str:
    """Python code after which the packages cannot be imported."""
    return f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked")

sys.meta_path.insert(0, Block())
"""


def run_without_frameworks(tool: Path, *arguments: object, timeout: int) -> subprocess.CompletedProcess:
    """Run a command line where neither MindSpore nor PyTorch can be imported."""
    run = 'import runpy\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name="__main__")\n'
    command = [sys.executable, "-c", blocking((*MINDSPORE, *TORCH)) + run, str(tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)
