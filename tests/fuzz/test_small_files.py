"""The small files that people write or hand on: read as they are, or refused in one line that names the file."""

import csv
import io
import json
import pickle

import numpy as np
import pytest
import yaml
from damage import TEXT, VALUES, cases, changed, damaged
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from mindspore_gpt4image import released
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.evaluation.labels import read_label_sets, rename_folders
from mindspore_gpt4image.model_info import ModelInfo, describe_model_file, read_model_file
from mindspore_gpt4image.offline.import_texts import import_texts
from mindspore_gpt4image.offline.served_model import answer_of
from mindspore_gpt4image.runs import read_evaluation, read_metrics, read_run
from mindspore_gpt4image.sources.classes import read_classes
from mindspore_gpt4image.sources.descriptions import is_text
from mindspore_gpt4image.sources.image_set import ImageSet

IDS = ["train/a/1.png", "train/a/2.png", "train/b/3.png"]
INFO = ModelInfo("resnet18", ("a", "b"), 16, 16, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def images(tmp_path):
    return ImageSet(tmp_path, "train", IDS, np.array([0, 0, 1], np.int32), ("a", "b"), reader=None)


def read(function, path):
    """What it gives; None where it refuses the file by name."""
    try:
        return function(path)
    except UserError as error:
        assert str(path) in str(error)
        return None


def texts(tree, dump=json.dumps):
    """A file that holds something like `tree`, or is damaged."""
    return st.one_of(changed(tree).map(lambda tree: dump(tree).encode()), damaged(dump(tree).encode()))


@cases(40, 2_000)
@given(data=st.one_of(damaged("a\nb c\nd é\n".encode()), TEXT.map(lambda text: text.encode(errors="surrogatepass"))))
def test_class_names(tmp_path, data):
    path = tmp_path / "classes.txt"
    path.write_bytes(data)
    if classes := read(read_classes, path):
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
        assert classes == tuple(line for line in lines if line)


@cases(40, 2_000)
@given(data=texts([[0], [1, 0], []]))
def test_label_sets(tmp_path, images, data):
    path = tmp_path / "real.json"
    path.write_bytes(data)
    if sets := read(lambda path: read_label_sets(path, images), path):
        assert [labels.tolist() for labels in sets] == json.loads(data)


@cases(40, 2_000)
@given(data=texts({"a": "cat", "b": "dog"}))
def test_folder_names(tmp_path, images, data):
    path = tmp_path / "names.json"
    path.write_bytes(data)
    if named := read(lambda path: rename_folders(images, path, ("cat", "dog")), path):
        assert [named.classes[label] for label in named.labels] == [json.loads(data)[id.split("/")[1]] for id in IDS]


@pytest.mark.parametrize("function", [read_evaluation, read_metrics])
def test_json_that_is_nested_too_deeply(tmp_path, images, function):
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    assert read(function, path) is None
    assert read(lambda path: read_label_sets(path, images), path) is None


@cases(40, 2_000)
@given(data=texts(INFO.to_dict(), yaml.safe_dump))
def test_model_yaml(tmp_path, data):
    path = tmp_path / "model.yaml"
    path.write_bytes(data)
    if model := read(ModelInfo.load, path):
        assert model.to_dict() == {key: value for key, value in yaml.safe_load(data).items() if key != "files"}


@cases(25, 500)
@given(data=st.data())
def test_model_yaml_beside_an_export(tmp_path, data):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"graph")
    description = tmp_path / "model.yaml"
    description.unlink(missing_ok=True)
    describe_model_file(path, INFO, batch=None, dtype="float32")
    tree = yaml.safe_load(description.read_text())
    description.write_bytes(data.draw(texts(tree, yaml.safe_dump)))
    try:
        model, file = read_model_file(path)
    except UserError as error:
        assert str(tmp_path) in str(error)
    else:
        assert file.batch is None or file.batch > 0
        assert model.crop > 0


@cases(20, 2_000)
@given(data=st.data())
def test_manifest(tmp_path, monkeypatch, data):
    monkeypatch.setattr(released, "FOLDER", tmp_path)
    entry = dict.fromkeys(("network", "dataset", "split", "recipe", "text_encoder", "file", "sha256", "licence"), "x")
    entry |= {
        "top1": 1.0,
        "recipe_top1": {"mean": 1.0},
        "classes": 2,
        "preprocessing": "x",
        "attribution": "x",
        "commit": "x",
    }
    slot = {key: entry[key] for key in ("network", "dataset", "split", "recipe", "text_encoder", "classes")}
    tree = {"a": entry, "b": {**slot, "paper": {"aligned": 1.0, "table": "1"}}}
    (tmp_path / "manifest.yaml").write_bytes(data.draw(texts(tree, yaml.safe_dump)))
    for name in ("a", "b", "c"):
        with pytest.raises(UserError, match=r"manifest.yaml|checkpoint [abc]: |x: is missing|: is not the file"):
            released.locate_checkpoint(name)


def table(rows):
    file = io.StringIO()
    csv.writer(file).writerows([[str(cell).replace("\0", "") for cell in row] for row in rows])
    return file.getvalue()


COCO = {
    "images": [{"id": n, "file_name": id} for n, id in enumerate(IDS)],
    "annotations": [{"image_id": n, "caption": f"text {n}"} for n in range(3)],
}
IMPORTS = {
    "csv": texts(
        [["image", "caption"], *([id, f"text {id}"] for id in IDS)],
        lambda rows: table(r for r in rows if isinstance(r, list)),
    ),
    "json": texts(COCO),
    "pth": damaged(pickle.dumps([f"text {id}" for id in IDS], 2)),
}


@cases(40, 2_000)
@given(data=st.data(), ending=st.sampled_from(sorted(IMPORTS)))
def test_texts_that_are_imported(tmp_path, data, ending):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(data.draw(IMPORTS[ending]))
    if imported := read(lambda path: import_texts(path, IDS, ["short"]), path):
        assert imported.texts.keys() <= set(IDS)
        assert all(text["short"].strip().encode() for text in imported.texts.values())


@cases(25, 2_000)
@given(data=st.data(), name=st.sampled_from(["config.yaml", "summary.json", "metrics.jsonl"]))
def test_the_folder_of_a_run(tmp_path, data, name):
    config = {"seed": 1, "epochs": 1, "loss": {"alignment": "none"}, "data": {"shuffle_texts": False}}
    trees = {"config.yaml": config, "summary.json": {"epochs": 1, "top1": 1.0}, "metrics.jsonl": {"epoch": 1}}
    for file, tree in trees.items():
        (tmp_path / file).write_text(json.dumps(tree) + "\n")
    (tmp_path / name).write_bytes(
        data.draw(st.one_of(texts(trees[name]), VALUES.map(lambda v: json.dumps(v).encode())))
    )
    if run := read(read_run, tmp_path):
        assert run.arm in ("baseline", "aligned", "control")


COMPLETION = {
    "id": "a",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a cat"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}


@cases(60, 2_000)
@given(tree=st.one_of(changed(COMPLETION), VALUES))
@example(tree="<html>")
@example(tree={"choices": [{"message": None}]})
def test_answers_of_a_server(tree):
    """The client makes an object of any answer; what is no description is none."""
    completion = ChatCompletion.construct(**tree) if isinstance(tree, dict) else tree
    try:
        answer = answer_of(completion, "describe it")
    except (AttributeError, TypeError, LookupError, ValueError):
        return
    assert answer.fault or is_text(answer.text)
