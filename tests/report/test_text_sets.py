"""What is counted of texts."""

import json

import numpy as np
import pytest

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.report.text_sets import read_names, read_some, read_text_sets, repeats_itself

ROWS = [
    {"id": "train/polar-bear/1.png", "short": "Polar  bears on ice", "long": "one two three four five"},
    {"id": "train/polar-bear/2.png", "short": "a bear"},
    {"id": "val/tench/1.png", "short": "a tenchling, é"},
    {"id": "train/00042", "short": "a bear", "long": "so it goes on and so it goes on and so it goes on"},
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "descriptions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_what_is_counted(file):
    short, long = read_text_sets(file)
    assert (short.key, len(short), short.lacking) == ("short", 4, 0)
    assert (long.key, long.ids, long.lacking) == ("long", ["train/polar-bear/1.png", "train/00042"], 2)
    assert short.classes == ["polar-bear", "polar-bear", "tench", None]
    assert list(short.words) == [4, 2, 3, 2] and list(short.characters) == [19, 6, 14, 6]
    assert list(short.non_ascii) == [0, 0, 1, 0]
    assert list(short.mentions) == [1, 0, 0, -1]
    assert list(long.repeats) == [0, 1]
    assert short.beginnings == {"polar bears on": 1, "a bear": 2, "a tenchling, é": 1}
    texts = np.asarray(short.texts)
    assert (texts[1] == texts[3], len(set(texts))) == (True, 3)
    assert read_some(short, ["train/00042", "val/tench/1.png"]) == {
        "train/00042": "a bear",
        "val/tench/1.png": "a tenchling, é",
    }


def test_classes_and_names_from_elsewhere(file, tmp_path):
    """As of CIFAR, whose ids do not tell the class; as of ImageNet, whose folders are numbers."""
    names = tmp_path / "names.txt"
    names.write_text("n02134084 ice bear, polar bear, Ursus Maritimus\nbear\ta bear\n\n")
    class_of = {"train/00042": "bear", "train/polar-bear/1.png": "n02134084", "train/polar-bear/2.png": "n02134084"}
    short, _ = read_text_sets(file, class_of, read_names(names))
    assert list(short.mentions) == [1, 0, -1, 1]
    assert list(read_text_sets(file, class_of)[0].mentions) == [-1, -1, -1, 1]
    names.write_text("n02134084 polar bear\nn1\n")
    with pytest.raises(UserError, match=r"names.txt, line 2: 'n1' has no name; write the folder, then the name"):
        read_names(names)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a b c d a b c d a b c d", True),
        ("a b c d a b c d a b c", False),
        ("no no no no no no", True),
        ("no no no no no", False),
        ("", False),
    ],
)
def test_repeats_itself(text, answer):
    assert repeats_itself(text.split()) is answer


def test_faulty_sets(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text('{"id": "a", "short": "x"}\n{"id": "a", "long": "x"}\n')
    with pytest.raises(UserError, match="line 2: id 'a' was on line 1 already"):
        read_text_sets(path)
    path.write_text('{"id": "a", "caption": "x"}\n')
    with pytest.raises(UserError, match="set.jsonl: no line has a text; texts are under 'short' or 'long'"):
        read_text_sets(path)
