"""Starting from another training's weights: everything but the head, by rule, or an error."""

import shutil

import numpy as np
import pytest
from tiny_data import overrides

from mindspore_gpt4image.checkpoint import read_checkpoint
from mindspore_gpt4image.config import load_config
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.training.loop import train


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text("schedule: {warmup_epochs: 0}\n")
    return path


@pytest.fixture(scope="module")
def pretrained(config_file, data, tmp_path_factory):
    """A finished run on three classes, with a projection and moments."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    train(load_config(config_file, overrides(data, folder, epochs=1)))
    return folder


def start(config_file, data, folder, pretrained, **more):
    """One epoch without a learning rate to speak of, so that the weights are those it began with."""
    more = {"epochs": 1, "optimizer__lr": 1e-30, "optimizer__weight_decay": 0, **more}
    train(load_config(config_file, overrides(data, folder, model__pretrained=pretrained, **more)))
    return read_checkpoint(folder)


def differing(one, other, names):
    return [name for name in names if not np.array_equal(one.network[name].asnumpy(), other.network[name].asnumpy())]


def learned(checkpoint):
    return [name for name in checkpoint.network if "moving" not in name]


def test_same_classes_take_everything(config_file, data, pretrained, tmp_path, capsys):
    result = start(config_file, data, tmp_path / "run", pretrained)
    assert differing(result, read_checkpoint(pretrained), learned(result)) == []
    assert "parameters loaded, all there are" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["last.ckpt", "best.ckpt"])
def test_other_classes_take_all_but_the_head_and_say_so(config_file, data, pretrained, tmp_path, capsys, file):
    fewer = tmp_path / "data"
    shutil.copytree(data, fewer)
    for split in ("train", "val"):
        shutil.rmtree(fewer / split / "red")
    result = start(config_file, fewer, tmp_path / "run", pretrained / file)
    old = read_checkpoint(pretrained / file)
    names = [name for name in learned(result) if not name.startswith("classifier.")]
    assert differing(result, old, names) == []
    assert result.network["classifier.weight"].shape == (2, 256)
    assert (
        "not loaded: classifier (3 classes there, 2 other ones here); fresh here: classifier.weight, classifier.bias"
        in capsys.readouterr().err
    )


def test_a_baseline_leaves_the_projection(config_file, data, pretrained, tmp_path, capsys):
    result = start(config_file, data, tmp_path / "run", pretrained, loss__alignment="none")
    assert not any(name.startswith("projection.") for name in result.network)
    assert differing(result, read_checkpoint(pretrained), learned(result)) == []
    assert "not loaded: projection (linear to 8 there, none here); fresh here: nothing" in capsys.readouterr().err


def test_another_network_is_refused(config_file, data, pretrained, tmp_path):
    with pytest.raises(UserError, match="holds a resnet10_cifar_half; set model.name=resnet10_cifar_half"):
        start(config_file, data, tmp_path / "run", pretrained, model__name="resnet18_cifar")


def test_another_image_size_of_a_transformer_is_refused(config_file, data, tmp_path):
    small = {"model__name": "deit_tiny", "model__image_size": 16, "epochs": 1}
    train(load_config(config_file, overrides(data, tmp_path / "old", **small)))
    with pytest.raises(UserError, match=r"mis-shaped: backbone\.pos_embed"):
        start(config_file, data, tmp_path / "new", tmp_path / "old", **{**small, "model__image_size": 32},
              augment__eval_resize=32)  # fmt: skip


def test_a_missing_file_is_named(config_file, data, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.ckpt"):
        start(config_file, data, tmp_path / "run", tmp_path / "nowhere.ckpt")
