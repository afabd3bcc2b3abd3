"""Running code where some packages cannot be imported."""

from collections.abc import Sequence

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
