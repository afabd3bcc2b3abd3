"""Labels of ImageNet's companions."""

import json
from pathlib import Path

import numpy as np
import pytest

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.evaluation.classification import Predictions
from mindspore_gpt4image.evaluation.labels import read_label_sets, relabelled, rename_folders
from mindspore_gpt4image.sources.image_set import ImageSet

CLASSES = ("cat", "dog", "fish")


def images(ids, labels, classes):
    return ImageSet(Path("root"), "val", ids, np.array(labels, np.int32), classes, reader=None)


def write(tmp_path, value):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(value))
    return path


def test_numbered_folders_are_given_their_classes(tmp_path):
    numbered = images(["val/0/a.png", "val/10/b.png", "val/2/c.png"], [0, 1, 2], ("0", "10", "2"))
    path = write(tmp_path, {"0": "fish", "2": "cat", "10": "dog", "11": "not asked for"})
    found = rename_folders(numbered, path, CLASSES)
    assert found.classes == CLASSES
    assert found.labels.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"0": "cat"}, r"lacks 1 folders of root/val \(first: 1\)"),
        ({"0": "cat", "1": "bird"}, "'bird'"),
        (["cat", "dog"], "must be a JSON object"),
        ({"0": 1, "1": 2}, "must be a JSON object"),
    ],
)
def test_names_that_do_not_go_with_the_folders_are_refused(tmp_path, value, fault):
    with pytest.raises(UserError, match=f"labels.json.*{fault}"):
        rename_folders(images(["val/0/a", "val/1/b"], [0, 1], ("0", "1")), write(tmp_path, value), CLASSES)


def test_label_sets_go_by_file_names_and_count_where_there_is_one(tmp_path):
    """Sorted by file: 1, 2, 3, 4. Image 1 may be cat or dog and is dog; 2 has none; 3 is right among the best two."""
    listed = images(["val/cat/4.png", "val/dog/1.png", "val/dog/3.png", "val/fish/2.png"], [0, 1, 1, 2], CLASSES)
    sets = read_label_sets(write(tmp_path, [[0, 1], [], [2], [1]]), listed)
    assert [labels.tolist() for labels in sets] == [[1], [0, 1], [2], []]
    best = np.array([[0, 2], [1, 0], [0, 2], [2, 0]], np.int32)
    predictions = Predictions(listed, best, np.ones_like(best, float), np.zeros(4))
    assert relabelled(predictions, sets) == pytest.approx({"images": 3, "top1": 100 / 3, "top5": 200 / 3})


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([[0]], "is about 1 images, root/val has 2"),
        ([[0], [3]], r"entry 1 is \[3\]; the classes are 0 to 2"),
        ([[0], ["cat"]], "entry 1"),
        ({"a": []}, "must be a JSON list"),
    ],
)
def test_label_sets_that_do_not_go_with_the_images_are_refused(tmp_path, value, fault):
    with pytest.raises(UserError, match=f"labels.json: {fault}"):
        read_label_sets(write(tmp_path, value), images(["val/cat/a", "val/dog/b"], [0, 1], CLASSES))


def test_no_label_at_all_and_no_file(tmp_path):
    listed = images(["val/cat/a"], [0], CLASSES)
    predictions = Predictions(listed, np.zeros((1, 1), np.int32), np.ones((1, 1)), np.zeros(1))
    with pytest.raises(UserError, match="none of the images has one"):
        relabelled(predictions, [np.empty(0, np.int32)])
    with pytest.raises(UserError, match="gone.json: cannot be read"):
        read_label_sets(tmp_path / "gone.json", listed)
    (tmp_path / "labels.json").write_text("[")
    with pytest.raises(UserError, match=r"labels.json: is no JSON file"):
        read_label_sets(tmp_path / "labels.json", listed)
