"""What a card shows of images, and which of many texts its map takes."""

import numpy as np
import pytest
from cifar_archives import CLASSES, pixels_and_labels, write_archive
from tiny_data import make_images, make_store

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.report import card as module
from mindspore_gpt4image.report.card import describe_sets, text_map
from mindspore_gpt4image.report.described_images import DescribedImages
from mindspore_gpt4image.sources.descriptions import write_descriptions


def test_images_of_a_folder(tmp_path):
    ids = make_images(tmp_path, "train", 2)
    images = DescribedImages(tmp_path)
    assert images.classes is None
    assert images.rgb(ids[0]).size == (16, 16)
    (tmp_path / ids[1]).write_bytes(b"no image")
    inside = DescribedImages(tmp_path / "train")
    assert inside.rgb("/".join(ids[0].split("/")[1:])).size == (16, 16)
    assert inside.rgb(f"../{ids[0]}").size == inside.rgb(str(tmp_path / ids[0])).size == (8, 8)
    for id in (ids[1], "train/red/99.png"):
        assert images.rgb(id).getcolors() == [(64, (238, 238, 238))]
    selected = images.select(ids[::-1], np.arange(6), list("abcdef"))
    assert selected.rgb(5).tobytes() == images.rgb(ids[0]).tobytes()


def test_classes_and_images_of_cifar(tmp_path):
    """Its ids do not tell the class."""
    write_archive(tmp_path, "cifar10", "binary")
    pixels, labels = pixels_and_labels("cifar10", "train")
    ids = [f"train/{n:05d}" for n in range(len(labels))]
    write_descriptions(tmp_path / "d.jsonl", [{"id": id, "short": f"a {CLASSES['cifar10'][1]}"} for id in ids])
    (described,), images = describe_sets([tmp_path / "d.jsonl"])
    assert described.texts.classes == [CLASSES["cifar10"][label] for label in labels]
    assert described.statistics["most_shared_texts"] == [{"text": "a car", "images": 20}]
    assert described.statistics["share_that_names_its_class"] == pytest.approx(np.mean(labels == 1))
    np.testing.assert_array_equal(np.asarray(images.rgb(ids[3])).transpose(2, 0, 1), pixels[3])


def test_the_map_takes_some_images_of_some_classes(tmp_path, monkeypatch):
    store = make_store(tmp_path, make_images(tmp_path, "train", 8))
    (described,), images = describe_sets([tmp_path / "descriptions.jsonl"], [store])
    everything = text_map(described, images)
    assert [point[4] for point in everything["points"]] == described.texts.ids
    monkeypatch.setattr(module, "MAP_CLASSES", 2)
    monkeypatch.setattr(module, "MAP_IMAGES", 3)
    some = text_map(described, images)
    found = [point[4].split("/")[1] for point in some["points"]]
    assert len(found) == 6 and sorted(map(found.count, set(found))) == [3, 3]
    assert [some["classes"][point[2]] for point in some["points"]] == found
    assert text_map(described, images) == some


def test_sets_are_told_apart(tmp_path):
    for name in ("one", "two"):
        write_descriptions(tmp_path / f"{name}.jsonl", [{"id": "train/a/1.png", "short": name, "long": name}])
    files = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    labels = [
        [each.label for each in describe_sets(given, text=text)[0]]
        for given, text in ((files[:1], None), (files, "short"), (files, None))
    ]
    assert labels[:2] == [["short", "long"], ["one", "two"]]
    assert labels[2] == [f"{file}: {key}" for file in files for key in ("short", "long")]
    write_descriptions(files[0], [{"id": "train/a/1.png", "short": "x"}])
    with pytest.raises(UserError, match="one.jsonl: no line has 'long'; choose the other text"):
        describe_sets(files[:1], text="long")
