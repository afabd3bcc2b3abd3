"""Checkpoints: what is written is read back, and nothing else is accepted."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from mindspore_gpt4image import checkpoint as module
from mindspore_gpt4image.checkpoint import load_parameters, read_checkpoint, save_checkpoint
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.models import create_network, weights

INFO = ModelInfo(
    network="resnet10_cifar_half",
    classes=("añb", "c"),
    resize=16,
    crop=16,
    interpolation="bilinear",
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    projection="linear",
    text_dim=4,
)


def make_network(seed=0):
    ms.set_seed(seed)
    return create_network("resnet10_cifar_half", 2, text_dim=4)


@pytest.fixture
def saved(tmp_path):
    network = make_network()
    moment = Parameter(Tensor(np.arange(3, dtype=np.float32)), name="moment")
    save_checkpoint(tmp_path / "a.ckpt", network, INFO, {"epoch": 3}, {"moment": moment})
    return tmp_path / "a.ckpt", network


def test_everything_is_read_back(saved):
    path, network = saved
    checkpoint = read_checkpoint(path)
    assert checkpoint.model == INFO
    assert checkpoint.progress == {"epoch": 3}
    assert checkpoint.training["moment"].asnumpy().tolist() == [0, 1, 2]
    loaded = weights(checkpoint.create_network())
    assert loaded.keys() == weights(network).keys()
    assert all((loaded[name].asnumpy() == value.asnumpy()).all() for name, value in weights(network).items())


def test_the_classifier_gives_the_network_s_logits_without_projection(saved):
    path, network = saved
    classifier = read_checkpoint(path).create_classifier()
    assert not [p.name for p in classifier.get_parameters() if p.name.startswith("projection")]
    images = Tensor(np.random.default_rng(0).standard_normal((2, 3, 16, 16)), ms.float32)
    logits, _ = network.set_train(False)(images)
    assert (classifier(images).asnumpy() == logits.asnumpy()).all()


def test_a_run_folder_stands_for_its_last_checkpoint(saved):
    path, _ = saved
    path.rename(path.with_name("last.ckpt"))
    assert read_checkpoint(path.parent).path == path.with_name("last.ckpt")


def test_every_misfit_is_listed_and_nothing_is_loaded():
    network = make_network()
    values = dict(weights(make_network(seed=1)))
    values["stranger"] = values.pop("classifier.bias")
    values["projection.weight"] = Parameter(np.zeros((5, 4), np.float32), name="projection.weight")
    before = {name: value.asnumpy() for name, value in weights(network).items()}
    with pytest.raises(UserError) as error:
        load_parameters(weights(network), values, "x.ckpt")
    text = str(error.value)
    assert (
        "missing: classifier.bias; unexpected: stranger; mis-shaped: projection.weight (5, 4) instead of (4, 256)"
        in text
    )
    assert all((before[name] == value.asnumpy()).all() for name, value in weights(network).items())


def test_values_that_are_not_finite_are_refused():
    network = make_network()
    values = dict(weights(make_network(seed=1)))
    values["classifier.bias"] = Parameter(np.array([0, np.nan], np.float32), name="classifier.bias")
    with pytest.raises(UserError, match="not finite: classifier.bias"):
        load_parameters(weights(network), values, "x.ckpt")


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_file_is_refused_by_name(saved, damage, capfd):
    path, _ = saved
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    content = {"flipped": data, "cut": data[: len(data) // 2], "empty": b"", "foreign": b"PK\x03\x04 not ours"}[damage]
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_checkpoint(path)
    cause = "no MindSpore checkpoint" if damage == "flipped" else "was not written by this package (it has no checksum)"
    assert str(error.value) == f"checkpoint {path}: damaged, or {cause}"
    assert "ERROR" not in capfd.readouterr().err


def test_a_checkpoint_of_somebody_else_is_told_apart(tmp_path):
    path = tmp_path / "other.ckpt"
    ms.save_checkpoint(make_network(), str(path))
    with pytest.raises(UserError, match="was not written by this package"):
        read_checkpoint(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no.ckpt: no such file"):
        read_checkpoint(tmp_path / "no.ckpt")


def test_a_save_that_fails_leaves_the_old_file_and_no_rubbish(saved, monkeypatch):
    path, network = saved
    before = path.read_bytes()

    def fail(records, file_name, **options):
        with Path(file_name).open("wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.ms, "save_checkpoint", fail)
    with pytest.raises(UserError, match=r"a.ckpt: cannot be written \(No space left on device\)"):
        save_checkpoint(path, network, INFO, {"epoch": 4})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["a.ckpt"]


def test_model_yaml_reads_back_and_refuses_other_files(tmp_path):
    INFO.save(tmp_path / "model.yaml")
    assert ModelInfo.load(tmp_path / "model.yaml") == INFO
    (tmp_path / "other.yaml").write_text("a: 1\n")
    with pytest.raises(UserError, match="other.yaml: holds no model description"):
        ModelInfo.load(tmp_path / "other.yaml")
    with pytest.raises(UserError, match="it belongs beside every exported model"):
        ModelInfo.load(tmp_path / "none.yaml")
