"""Odd images are converted once and read as plain bytes ever after; broken ones are found when the set is listed."""

import io
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources import plain_files
from mindspore_gpt4image.sources.decoding import open_rgb
from mindspore_gpt4image.sources.image_folder import list_folder

PLAIN = ("a.jpg", "b.png", "c.jpg")
ODD = (
    "deep.png",
    "palette.png",
    "turned.jpg",
    "clear.png",
    "web.webp",
    "cmyk.jpg",
    "lies.jpg",
    "caf\u00e9.gif",
    "x\ny.bmp",
)


def picture(number=0, size=(60, 40)):
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), np.uint8))


@pytest.fixture
def root(tmp_path):
    """One class of plain images, one of odd ones."""
    root = tmp_path / "data"
    folder, odd = root / "train" / "plain", root / "train" / "odd"
    folder.mkdir(parents=True)
    odd.mkdir()
    for number, name in enumerate(PLAIN):
        picture(number).save(folder / name)
    Image.fromarray(np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)).save(odd / "deep.png")
    picture().quantize(16).save(odd / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(odd / "turned.jpg", exif=exif)
    picture().convert("RGBA").save(odd / "clear.png")
    picture().convert("CMYK").save(odd / "cmyk.jpg")
    picture().save(odd / "lies.jpg", format="BMP")
    for name in ("web.webp", "caf\u00e9.gif", "x\ny.bmp"):
        picture().save(odd / name)
    return root


@pytest.fixture
def looked_at(monkeypatch):
    """How often each file's header was looked at."""
    count = Counter()
    is_plain = plain_files.is_plain

    def counted(path):
        count[path.name] += 1
        return is_plain(path)

    monkeypatch.setattr(plain_files, "is_plain", counted)
    return count


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_plain_files_are_handed_on_and_odd_ones_as_copies(root):
    images = list_folder(root, "train")
    for position, id in enumerate(images.ids):
        with Image.open(io.BytesIO(images.encoded(position))) as image:
            assert (np.asarray(image) == np.asarray(open_rgb(root / id))).all(), id
            assert (np.asarray(images.rgb(position)) == np.asarray(image)).all(), id
        assert (images.encoded(position) == (root / id).read_bytes()) == ((root / id).name in PLAIN), id
    assert images.ids == list_folder(root, "train").ids
    assert images.classes == ("odd", "plain")


def test_files_are_looked_at_once(root, looked_at):
    for _ in range(2):
        images = list_folder(root, "train")
    assert set(looked_at) == {*PLAIN, *ODD}
    assert set(looked_at.values()) == {1}
    picture(9).convert("L").convert("1").save(root / "train" / "plain" / "b.png")
    picture(8).save(root / "train" / "plain" / "new.jpg")
    images = list_folder(root, "train")
    assert {name for name, count in looked_at.items() if count == 2} == {"b.png"}
    assert looked_at["new.jpg"] == 1
    position = images.ids.index("train/plain/b.png")
    with Image.open(io.BytesIO(images.encoded(position))) as image:
        assert (np.asarray(image) == np.asarray(open_rgb(root / "train/plain/b.png"))).all()


def test_reading_opens_nothing_with_pillow(root, monkeypatch):
    images = list_folder(root, "train")
    monkeypatch.setattr(Image, "open", None)
    assert all(images.encoded(position) for position in range(len(images)))


def test_a_read_only_place_has_its_copies_in_the_user_s_cache(root, cache, looked_at):
    (root / plain_files.FOLDER).write_text("a file where the folder would be")
    before = files_below(root)
    for _ in range(2):
        images = list_folder(root, "train")
    assert all(images.encoded(position) for position in range(len(images)))
    assert files_below(root) == before
    assert len([name for name in files_below(cache) if name.endswith(".png")]) == len(ODD)
    assert set(looked_at.values()) == {1}


def test_copies_that_somebody_else_made_are_used(root, cache, monkeypatch, looked_at):
    list_folder(root, "train")
    monkeypatch.setattr(plain_files, "_is_writable", lambda place: False)
    images = list_folder(root, "train")
    assert all(images.encoded(position) for position in range(len(images)))
    assert set(looked_at.values()) == {1}


def test_no_place_at_all(root, tmp_path, monkeypatch):
    (root / plain_files.FOLDER).write_text("")
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"its plain copy can be written neither to .*; set XDG_CACHE_HOME"):
        list_folder(root, "train")
    for name in ODD:
        (root / "train" / "odd" / name).unlink()
    picture().save(root / "train" / "odd" / "plain.png")
    assert len(list_folder(root, "train")) == 4


def test_a_lost_or_damaged_cache_is_made_anew(root, looked_at):
    list_folder(root, "train")
    (root / plain_files.FOLDER / "train.npz").write_bytes(b"PK\3\4 damaged")
    list_folder(root, "train")
    # Copies that are there are not looked into again.
    assert {name: count for name, count in looked_at.items() if count == 2} == dict.fromkeys(PLAIN, 2)
    for copy in (root / plain_files.FOLDER).rglob("*.png"):
        copy.unlink()
    images = list_folder(root, "train")
    assert {name for name, count in looked_at.items() if count == 2} == {*PLAIN, *ODD}
    assert all(images.encoded(position) for position in range(len(images)))


def test_a_copy_that_is_lost_in_training_is_told_by_the_image_s_path(root):
    images = list_folder(root, "train")
    for copy in (root / plain_files.FOLDER).rglob("*.png"):
        copy.unlink()
    with pytest.raises(
        UserError, match=r"odd/caf\u00e9.gif: cannot be read any more \(No such file or directory: .*\.png\)"
    ):
        images.encoded(0)


def test_of_several_processes_one_looks_and_the_others_wait(root):
    code = """
import sys, time
from mindspore_gpt4image.sources import plain_files
from mindspore_gpt4image.sources.image_folder import list_folder
looked, is_plain = [], plain_files.is_plain
def slow(path):
    looked.append(path)
    time.sleep(0.02)
    return is_plain(path)
plain_files.is_plain = slow
images = list_folder(sys.argv[1], "train")
assert all(images.encoded(position) for position in range(len(images)))
print(len(looked))
"""
    ranks = [
        subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [rank.communicate(timeout=60) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0, 0], said
    assert sorted(int(out) for out, _ in said) == [0, 0, len(PLAIN) + len(ODD)]
    assert len(list((root / plain_files.FOLDER).rglob("*.png"))) == len(ODD)


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png", "cut.webp", "empty.jpg", "gone.png"])
def test_a_broken_image_is_found_before_anything_is_read(root, name):
    path = root / "train" / "plain" / name
    if name == "gone.png":
        path.symlink_to(root / "nothing.png")
    elif name == "empty.jpg":
        path.write_bytes(b"")
    else:
        picture(5, (300, 200)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    for _ in range(2):  # what was found once is found again
        with pytest.raises(UserError, match=rf"train/plain/{name}: cannot be decoded: .*; replace or remove it$"):
            list_folder(root, "train").checked()


def test_broken_images_can_be_left_out(root):
    whole = list_folder(root, "train")
    for name in ("a.jpg", "c.jpg"):
        (root / "train" / "plain" / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"plain/a.jpg: .* \(2 of 12 images in .*train are broken\)$"):
        list_folder(root, "train").checked()
    images = list_folder(root, "train").checked(skip_broken=True)
    assert images.ids == [id for id in whole.ids if id not in ("train/plain/a.jpg", "train/plain/c.jpg")]
    assert images.labels.tolist() == [0] * len(ODD) + [1]
    assert list(images.broken) == ["train/plain/a.jpg", "train/plain/c.jpg"]
    for position, id in enumerate(images.ids):
        assert images.encoded(position) == whole.encoded(whole.ids.index(id))
        assert images.where(position) == str(root / id)
        assert images.rgb(position).mode == "RGB"


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(root):
    path = root / "train" / "plain" / "a.jpg"
    path.write_bytes(path.read_bytes() + b"\0made by a camera")
    images = list_folder(root, "train")
    assert images.encoded(images.ids.index("train/plain/a.jpg")) == path.read_bytes()
