"""Descriptions that exist already, joined to a data set's images."""

import json

import pytest
import torch

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.import_texts import import_texts

IDS = ["train/cat-big/1.png", "train/cat/1.png", "train/cat/2.png", "train/dog/3.png"]
TEXTS = {id: f"text of {id}" for id in IDS}


def texts_of(imported, key="long"):
    return {id: texts[key] for id, texts in imported.texts.items()}


def refusal(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        import_texts(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_released_list_is_in_torchvision_s_order(tmp_path):
    # Whose classes are sorted by name: cat before cat-big, although "train/cat-big/" comes before "train/cat/".
    order = [IDS[1], IDS[2], IDS[0], IDS[3]]
    torch.save([f" {TEXTS[id]}\n" for id in order], tmp_path / "released.pth")
    imported = import_texts(tmp_path / "released.pth", IDS, ["long"])
    assert texts_of(imported) == TEXTS
    assert (imported.missing, imported.unknown) == ([], [])


@pytest.mark.parametrize("count", [3, 5])
def test_a_list_of_another_length_is_refused_with_both_numbers(tmp_path, count):
    torch.save(["text"] * count, tmp_path / "released.pth")
    assert f"holds {count} texts for 4 images" in refusal(tmp_path / "released.pth", IDS, ["long"])


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_list_is_executed(tmp_path):
    torch.save([Malicious(tmp_path / "executed")] * 4, tmp_path / "released.pth")
    assert "holds more than plain values" in refusal(tmp_path / "released.pth", IDS, ["long"])
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": "b"}, "holds a dict; expected a list of texts"),
        (["a", "b", 3, "d"], r"entry 2 (for train/cat-big/1.png) is a int"),
        (["", " ", "\n", ""], None),
    ],
)
def test_a_list_of_something_else(tmp_path, content, message):
    torch.save(content, tmp_path / "released.pth")
    if message:
        assert message in refusal(tmp_path / "released.pth", IDS, ["long"])
    else:
        imported = import_texts(tmp_path / "released.pth", IDS, ["long"])
        assert imported.missing == IDS and not imported.texts


def test_a_file_that_is_no_list_at_all(tmp_path):
    (tmp_path / "released.pth").write_bytes(b"not a pickle")
    assert str(tmp_path) in refusal(tmp_path / "released.pth", IDS, ["long"])


@pytest.mark.parametrize(("name", "separator"), [("texts.csv", ","), ("texts.TSV", "\t")])
def test_tables_by_the_end_of_the_path(tmp_path, name, separator):
    rows = [
        ("file_name", "short", "long"),
        ("dog/3.png", "dog", '"a, dog\nat home"'),
        ("./cat/2.png", "cat", " a cat "),
        ("train/cat/1.png", "kitten", ""),
        ("bird/9.png", "bird", "a bird"),
    ]
    content = "\r\n".join(separator.join(row) for row in rows)
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
    imported = import_texts(tmp_path / name, IDS, ["short", "long"])
    assert imported.texts == {
        "train/cat/2.png": {"short": "cat", "long": "a cat"},
        "train/dog/3.png": {"short": "dog", "long": "a, dog\nat home"},
    }
    assert list(imported.texts) == ["train/cat/2.png", "train/dog/3.png"]
    assert imported.missing == IDS[:2]  # one has no row, one an empty text
    assert imported.unknown == ["bird/9.png"]


def test_a_table_with_a_caption_column(tmp_path):
    (tmp_path / "texts.csv").write_text("Caption,Image\na dog,3.png\n")
    assert texts_of(import_texts(tmp_path / "texts.csv", IDS, ["short"]), "short") == {"train/dog/3.png": "a dog"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,caption\n1.png,x\n", "line 2: several images end in '1.png'"),
        ("id,caption\n3.png,x\ndog/3.png,y\n", "line 3: image train/dog/3.png has a text at line 2 already"),
        ("name,caption\n3.png,x\n", "no column for the image; expected one of id, image"),
        ("id,words\n3.png,x\n", "no column for the long text; expected one of long, caption"),
        ("id,caption\n7.png,x\n", "names none of the 4 images; the first is '7.png'"),
        ("", "no column for the image"),
    ],
)
def test_faulty_tables(tmp_path, content, message):
    (tmp_path / "texts.csv").write_text(content)
    assert message in refusal(tmp_path / "texts.csv", IDS, ["long"])


def test_coco_captions(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "3.png"}, {"id": 9, "file_name": "train/cat/1.png"}],
        "annotations": [
            {"image_id": 9, "id": 1, "caption": "first"},
            {"image_id": 7, "id": 2, "caption": "dog "},
            {"image_id": 9, "id": 3, "caption": "second"},
        ],
    }
    (tmp_path / "captions.json").write_text(json.dumps(content))
    imported = import_texts(tmp_path / "captions.json", IDS, ["short"])
    assert texts_of(imported, "short") == {"train/cat/1.png": "first", "train/dog/3.png": "dog"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": []}', "is not in the form of COCO captions"),
        ("[1]", "is not in the form of COCO captions"),
        ('{"images": [{"id": 1, "file_name": "3.png"}], "annotations": [{"image_id": 2, "caption": "x"}]}', "COCO"),
        ('{"images": [{"id": 1, "file_name": "3.png"}], "annotations": [{"image_id": 1, "caption": 5}]}', "strings"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_faulty_coco(tmp_path, content, message):
    (tmp_path / "captions.json").write_text(content)
    assert message in refusal(tmp_path / "captions.json", IDS, ["long"])


def test_a_text_file_beside_each_image(tmp_path):
    for id in IDS[1:]:
        path = tmp_path / id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".txt").write_text(TEXTS[id] + "\n")
    imported = import_texts(tmp_path, IDS, ["long"])
    assert texts_of(imported) == {id: TEXTS[id] for id in IDS[1:]}
    assert imported.missing == IDS[:1]


def test_what_cannot_be_imported(tmp_path):
    (tmp_path / "texts.xlsx").touch()
    assert "give a .pth, .csv" in refusal(tmp_path / "texts.xlsx", IDS, ["long"])
    assert "there is no such file" in refusal(tmp_path / "none.csv", IDS, ["long"])
    assert "--text short or --text long" in refusal(tmp_path, IDS, ["short", "long"])
