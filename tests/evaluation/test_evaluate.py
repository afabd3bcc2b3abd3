"""All that is measured of one untrained checkpoint, which is built once for all tests here."""

import json
import shutil

import numpy as np
import pytest
from tiny_data import CLASSES, SIDE, TEXT_DIM, make_data_set

from mindspore_gpt4image.checkpoint import save_checkpoint
from mindspore_gpt4image.classifiers import load_classifier
from mindspore_gpt4image.data.store import write_store
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.evaluation.evaluate import evaluate
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.models import create_network

NAMES = tuple(sorted(CLASSES))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, data):
    info = ModelInfo(
        "resnet10_cifar_half", NAMES, SIDE, SIDE, "bilinear", (0.5,) * 3, (0.25,) * 3, "linear", text_dim=TEXT_DIM
    )
    path = tmp_path_factory.mktemp("run") / "last.safetensors"
    progress = {"epoch": 3, "config": {"data": {"root": str(data), "format": "folder"}}}
    save_checkpoint(path, create_network(info.network, 3, TEXT_DIM), info, progress)
    return load_classifier(path)


def measure(classifier, split="test", **options):
    return evaluate(classifier, split, batch_size=4, workers=1, **options).values


def test_everything_at_once(classifier, data, tmp_path):
    metadata = {"encoder": "random", "text": "short", "truncated": 0, "descriptions_sha256": ""}
    vectors = np.eye(3, TEXT_DIM, dtype=np.float32)
    write_store(tmp_path / "names.mindrecord", NAMES, [0, 1, 2], vectors, metadata)
    (tmp_path / "sets.json").write_text(json.dumps([[0], [1], [2], [0, 1, 2], [], [], [], [], []]))
    values = measure(
        classifier,
        embeddings=data / "short.mindrecord",
        class_texts=tmp_path / "names.mindrecord",
        label_sets=tmp_path / "sets.json",
    )
    assert (values["epoch"], values["images"], values["k"]) == (3, 9, 3)
    assert (values["relabelled"]["images"], values["relabelled"]["top5"]) == (4, 100.0)
    found = values["retrieval"]
    assert found["images"] == found["text_to_image"]["texts"] + 2 == 9
    assert found["r1"] <= found["r5"] <= found["r10"]
    assert values["zero_shot"]["top5"] == 100.0
    assert json.loads(json.dumps(values)) == values


def test_numbered_folders_give_the_results_of_named_ones(classifier, data, tmp_path):
    for number, name in enumerate(NAMES):
        (tmp_path / "v2").mkdir(exist_ok=True)
        (tmp_path / "v2" / str(number)).symlink_to(data / "test" / name)
    (tmp_path / "names.json").write_text(json.dumps(dict(zip("012", NAMES))))
    numbered = measure(classifier, "v2", data=tmp_path, folder_names=tmp_path / "names.json")
    named = measure(classifier)
    for key in ("images", "top1", "top5", "ce", "classes"):
        assert numbered[key] == named[key]
    with pytest.raises(UserError, match="'0'"):
        measure(classifier, "v2", data=tmp_path)


def test_answers_among_the_folders_that_are_there(classifier, data, tmp_path):
    (tmp_path / "some").mkdir()
    for name in NAMES[:2]:
        (tmp_path / "some" / name).symlink_to(data / "test" / name)
    limited = measure(classifier, "some", data=tmp_path, only_classes_of_split=True)
    assert (limited["k"], limited["top5"]) == (2, 100.0)
    assert {name for image in limited["predictions"] for name in image["predicted"]} == set(NAMES[:2])


def test_files_that_are_no_images_are_listed_once_and_broken_ones_refused(classifier, data, tmp_path, capsys):
    folder = shutil.copytree(data / "test", tmp_path / "test")
    for name in (".DS_Store", "._00.png", "Thumbs.db", "a.txt", "b.TXT", "c.heic"):
        (folder / "red" / name).write_bytes(b"\0" * 100)
    assert measure(classifier, data=tmp_path)["predictions"] == measure(classifier)["predictions"]
    said = capsys.readouterr().err
    assert said.count("note: ") == 1
    assert f"note: {folder}: files that are not read as images: 1 .heic, 2 .txt" in said
    (folder / "red" / "00.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"test/red/00.png: cannot be decoded: the file is empty"):
        measure(classifier, data=tmp_path)
    (folder / "red").rename(folder / "yellow")
    with pytest.raises(UserError, match=r"test: 1 of its 3 classes are none of the 3 known ones \(first: 'yellow'\)"):
        measure(classifier, data=tmp_path)


def test_a_store_of_another_space_is_refused(classifier, tmp_path):
    metadata = {"encoder": "random", "text": "short", "truncated": 0, "descriptions_sha256": ""}
    write_store(tmp_path / "other.mindrecord", ["a"], [0], np.eye(1, 4, dtype=np.float32), metadata)
    with pytest.raises(UserError, match="--class-texts .*: has dimension 4, the checkpoint was aligned with 8"):
        measure(classifier, class_texts=tmp_path / "other.mindrecord")
