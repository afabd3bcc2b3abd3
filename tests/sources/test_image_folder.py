"""Image folders as people really have them: droppings, odd endings, missing and flat splits."""

import errno
import os
import re
import sys

import numpy as np
import pytest
from PIL import Image

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.image_folder import list_folder


def save(path, size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    return path


@pytest.fixture
def root(tmp_path):
    for id in ("train/a/1.png", "train/b/1.png", "train/b/2.png", "train/c/1.png", "val/a/9.png", "val/c/9.png"):
        save(tmp_path / id)
    return tmp_path


def test_ids_labels_and_classes(root):
    images = list_folder(root, "train")
    assert images.ids == ["train/a/1.png", "train/b/1.png", "train/b/2.png", "train/c/1.png"]
    assert images.labels.dtype == np.int32
    assert images.labels.tolist() == [0, 1, 1, 2]
    assert images.classes == ("a", "b", "c")
    assert images.skipped == {}
    assert len(images) == 4
    assert images.where(2) == str(root / "train/b/2.png")
    assert images.rgb(2).size == (4, 3)
    assert images.encoded(2) == (root / "train/b/2.png").read_bytes()


def test_a_file_comes_whole_where_the_system_gives_it_in_parts(root, monkeypatch):
    images, read = list_folder(root, "train"), os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: read(descriptor, min(size, 10)))
    assert images.encoded(2) == (root / "train/b/2.png").read_bytes()


def test_a_disk_that_fails_is_told_by_the_image(root, monkeypatch):
    images = list_folder(root, "train")

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", fail)
    path = re.escape(str(root / "train/b/2.png"))
    with pytest.raises(UserError, match=rf"^{path}: cannot be read any more \(Input/output error: {path}\)$"):
        images.encoded(2)


def test_hidden_files_are_neither_classes_nor_images_nor_skipped(root):
    (root / ".DS_Store").write_bytes(b"\0" * 10)
    for name in (".DS_Store", "._1.png", "Thumbs.db", "desktop.ini"):
        (root / "train" / "a" / name).write_bytes(b"\0" * 4096)
    (root / "train" / ".DS_Store").write_bytes(b"\0" * 10)
    save(root / "train" / "a" / ".ipynb_checkpoints" / "1-checkpoint.png")
    save(root / "train" / ".ipynb_checkpoints" / "1-checkpoint.png")
    save(root / "train" / "__MACOSX" / "a" / "1.png")
    images = list_folder(root, "train")
    assert images.ids == ["train/a/1.png", "train/b/1.png", "train/b/2.png", "train/c/1.png"]
    assert images.classes == ("a", "b", "c")
    assert images.skipped == {}


def test_every_supported_ending_counts_and_the_rest_is_listed_once(tmp_path):
    names = ["a.jpg", "b.JPG", "c.JPEG", "d.png", "e.webp", "f.bmp", "g.gif", "i.TIF", "j.tiff", "k.ppm"]
    for name in names:
        save(tmp_path / "train" / "x" / name)
    for name in ("h.txt", "l.TXT", "README"):
        (tmp_path / "train" / "x" / name).write_text("no image")
    (tmp_path / "train" / "labels.csv").write_text("no image")
    images = list_folder(tmp_path, "train")
    assert images.ids == [f"train/x/{name}" for name in names]
    assert images.skipped == {"": 1, ".csv": 1, ".txt": 2}


def test_nested_folders_belong_to_their_class(tmp_path):
    save(tmp_path / "train" / "a" / "2020" / "may" / "1.png")
    save(tmp_path / "train" / "a" / "0.png")
    save(tmp_path / "train" / "a-b" / "1.png")
    images = list_folder(tmp_path, "train")
    assert images.ids == ["train/a-b/1.png", "train/a/0.png", "train/a/2020/may/1.png"]
    assert images.classes == ("a", "a-b")
    assert images.labels.tolist() == [1, 0, 0]


def test_given_classes_map_by_name(root):
    images = list_folder(root, "val", classes=("a", "b", "c"))
    assert images.labels.tolist() == [0, 2]
    assert images.classes == ("a", "b", "c")
    assert list_folder(root, "val").labels.tolist() == [0, 1]


def test_unknown_class_is_refused_by_name(root):
    save(root / "val" / "d" / "1.png")
    with pytest.raises(UserError, match=r"val: 1 of its 3 classes are none of the 3 known ones \(first: 'd'\)"):
        list_folder(root, "val", classes=("a", "b", "c"))


def test_flat_split_is_refused(tmp_path):
    save(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    save(tmp_path / "val" / "ILSVRC2012_val_00000002.JPEG")
    with pytest.raises(
        UserError, match=r"2 images lie outside any class folder.*must be <root>/<split>/<class>/<image>"
    ):
        list_folder(tmp_path, "val")


def test_one_stray_image_beside_the_classes_is_refused(root):
    save(root / "val" / "lost.png")
    with pytest.raises(UserError, match=r"1 images lie outside any class folder \(first: lost.png\)"):
        list_folder(root, "val")


def test_missing_split_names_those_there_are(root):
    (root / ".cache").mkdir()
    with pytest.raises(UserError, match=r"there is no split 'test'; splits there: train, val$"):
        list_folder(root, "test")


def test_missing_root(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: there is no such folder"):
        list_folder(tmp_path / "nowhere", "train")


def test_empty_split_and_empty_class(root):
    (root / "test").mkdir()
    with pytest.raises(UserError, match=r"test: holds no class folders; the layout must be"):
        list_folder(root, "test")
    (root / "val" / "b").mkdir()
    (root / "val" / "b" / "notes.txt").write_text("later")
    with pytest.raises(UserError, match=r"val/b: the class has no image"):
        list_folder(root, "val")


def test_linked_folders_are_followed_and_circles_end(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere / "7.png")
    (root / "train" / "d").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "loop").symlink_to(elsewhere, target_is_directory=True)
    images = list_folder(root, "train")
    assert images.ids[-1] == "train/d/7.png"
    assert len(images) == 5


def test_unicode_names_are_kept_as_they_are(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    save(tmp_path / "train" / "x" / f"{composed}.png")
    save(tmp_path / "train" / "x" / f"{decomposed}.png")
    assert list_folder(tmp_path, "train").ids == [f"train/x/{decomposed}.png", f"train/x/{composed}.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such a name themselves")
def test_name_that_is_not_utf8_is_refused(root):
    with open(os.fsencode(root / "train" / "a") + b"/\xff.png", "wb"):  # noqa: PTH123
        pass
    with pytest.raises(UserError, match=r"train/a: the name '\\udcff.png' is not UTF-8"):
        list_folder(root, "train")
