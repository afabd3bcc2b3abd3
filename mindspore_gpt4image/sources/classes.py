"""The order of the classes, where it is not the data set's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mindspore_gpt4image.errors import UserError


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Read a file of class names, one a line, in the order of the labels; blank lines do not count.

    Raises:
        UserError: the file cannot be read, is no UTF-8 text, holds no name, or a name twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a file with a class name a line") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text; give a file with a class name a line") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise UserError(f"{path}: holds no class names; write one a line")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path}: the class {twice[0]!r} stands there twice; keep one of the lines")
    return names


def label_map(names: Sequence[str], classes: Sequence[str], where: str | Path) -> np.ndarray:
    """The label in `classes` of each of `names`, int32 [len(names)].

    Raises:
        UserError: a name is not in `classes`; `where` says whose name it is.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    unknown = [name for name in names if name not in label_of]
    if unknown:
        first = ", ".join(map(repr, unknown[:3]))
        raise UserError(
            f"{where}: {len(unknown)} of its {len(names)} classes are none of the {len(classes)} known ones "
            f"(first: {first}); rename or remove them"
        )
    return np.array([label_of[name] for name in names], np.int32)
