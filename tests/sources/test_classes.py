"""A file of class names."""

import numpy as np
import pytest

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.classes import label_map, read_classes


def test_names_in_the_file_s_order(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffgreat white shark\r\n\r\n  tench\nça va\n".encode())
    assert read_classes(path) == ("great white shark", "tench", "ça va")


@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"a\nb\na\n", "the class 'a' stands there twice"), (b"\n \n", "holds no class names"), (b"\xff", "is not UTF-8")],
)
def test_a_file_that_fixes_no_order_is_refused(tmp_path, content, fault):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"classes.txt: {fault}"):
        read_classes(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none.txt: cannot be read \(No such file or directory\)"):
        read_classes(tmp_path / "none.txt")


def test_labels_by_name():
    labels = label_map(["b", "c"], ["c", "a", "b"], "here")
    assert labels.dtype == np.int32
    assert labels.tolist() == [2, 0]
    with pytest.raises(
        UserError, match=r"^here: 4 of its 5 classes are none of the 1 known ones \(first: 'b', 'c', 'd'\)"
    ):
        label_map(list("abcde"), ["a"], "here")
