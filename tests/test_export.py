"""The exported file is the plain classifier: same logits, any batch, no projection."""

import mindspore as ms
import numpy as np
import pytest
import yaml
from mindspore import Tensor
from PIL import Image

from mindspore_gpt4image import export as module
from mindspore_gpt4image.checkpoint import read_checkpoint, save_checkpoint
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.evaluation.classification import classifier_of
from mindspore_gpt4image.export import export_mindir, load_mindir
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.models import create_network

INFO = ModelInfo(
    network="resnet10_cifar_half",
    classes=("a", "b", "c"),
    resize=20,
    crop=16,
    interpolation="bicubic",
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
    projection="mlp",
    text_dim=8,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    ms.set_seed(0)
    network = create_network(INFO.network, 3, text_dim=8, projection="mlp")
    # Statistics that differ from their start, so that a graph in training mode would give itself away.
    for parameter in network.get_parameters():
        if "moving_mean" in parameter.name:
            parameter.set_data(Tensor(np.random.default_rng(1).standard_normal(parameter.shape), ms.float32))
    network.set_train(True)
    path = tmp_path_factory.mktemp("checkpoint") / "a.ckpt"
    save_checkpoint(path, network, INFO, {})
    return read_checkpoint(path)


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "a.mindir"
    assert export_mindir(checkpoint, path) <= 1e-5
    return path


def test_no_projection_is_in_the_file(exported):
    content = exported.read_bytes()
    assert b"projection" not in content
    assert b"classifier.weight" in content


def test_only_the_model_and_its_description_are_written(exported):
    assert sorted(path.name for path in exported.parent.iterdir()) == ["a.mindir", "model.yaml"]


def test_model_yaml_is_enough_to_predict_with_pillow_and_numpy(exported, checkpoint, tmp_path):
    """Odd sizes, by hand: resize the shorter side, crop the centre, normalise; the logits are those of evaluation."""
    model = yaml.safe_load((exported.parent / "model.yaml").read_text())
    network, classify = load_mindir(exported), classifier_of(checkpoint)
    random = np.random.default_rng(0)
    for width, height in ((33, 47), (61, 20), (20, 20)):
        image = Image.fromarray(random.integers(0, 256, (height, width, 3)).astype(np.uint8))
        scale = model["resize"] / min(width, height)
        size = (model["resize"], int(height * scale)) if width <= height else (int(width * scale), model["resize"])
        left, top = (round((side - model["crop"]) / 2) for side in size)
        pixels = np.asarray(image.resize(size, Image.BICUBIC))[top : top + model["crop"], left : left + model["crop"]]
        inputs = (pixels / 255.0 - model["mean"]) / model["std"]
        by_hand = network(Tensor(inputs.transpose(2, 0, 1)[None], ms.float32)).asnumpy()
        ours = classify(Tensor(checkpoint.model.transform(image)[None])).asnumpy()
        np.testing.assert_allclose(by_hand, ours, rtol=1e-5, atol=1e-5)


def test_a_file_that_differs_is_refused_and_not_left_behind(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "largest_difference", lambda *arguments: 0.5)
    with pytest.raises(UserError, match=r"differ from the checkpoint's by 0.5; not written"):
        export_mindir(checkpoint, tmp_path / "a.mindir")
    assert list(tmp_path.iterdir()) == []


def test_another_model_s_description_is_not_overwritten(checkpoint, tmp_path):
    ModelInfo(**{**INFO.__dict__, "classes": ("x", "y", "z")}).save(tmp_path / "model.yaml")
    with pytest.raises(UserError, match="describes another model"):
        export_mindir(checkpoint, tmp_path / "b.mindir")


def test_unknown_endings_and_foreign_files_are_refused(checkpoint, tmp_path):
    with pytest.raises(UserError, match="ends in .mindir"):
        export_mindir(checkpoint, tmp_path / "a.tflite")
    (tmp_path / "b.mindir").write_bytes(b"not a model")
    with pytest.raises(UserError, match="b.mindir: damaged, or no MINDIR"):
        load_mindir(tmp_path / "b.mindir")
    with pytest.raises(UserError, match="c.mindir: no such file"):
        load_mindir(tmp_path / "c.mindir")
