"""The exported file is the plain classifier: same logits, any batch, no projection; in both formats."""

import dataclasses

import mindspore as ms  # before onnx, whose protobuf library MindSpore does not survive
import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from mindspore import Tensor, nn
from PIL import Image

from mindspore_gpt4image import export as module
from mindspore_gpt4image.checkpoint import read_checkpoint, save_checkpoint
from mindspore_gpt4image.classifiers import load_classifier
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.export import export_classifier, load_mindir
from mindspore_gpt4image.losses import GPT4ImageLoss
from mindspore_gpt4image.model_info import PIXELS, ModelInfo, read_model_file
from mindspore_gpt4image.models import Preprocess, create_network, weights
from mindspore_gpt4image.training.optimizer import create_optimizer
from mindspore_gpt4image.training.step import TrainStep

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
FORMATS = (".mindir", ".onnx")


def make_network(info=INFO):
    """Weights and statistics that differ from their start, so that a graph in training mode gives itself away."""
    ms.set_seed(0)
    network = create_network(
        info.network, len(info.classes), text_dim=info.text_dim, projection=info.projection, image_size=info.crop
    )
    random = np.random.default_rng(1)
    for parameter in network.get_parameters():
        if "moving_mean" in parameter.name or "gamma" in parameter.name or parameter.name.endswith("pos_embed"):
            parameter.set_data(Tensor(random.uniform(0.2, 1.5, parameter.shape), ms.float32))
    return network.set_train(True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "a.ckpt"
    network = make_network()
    averages = {f"ema.{name}": ms.Parameter(p.value() * 0.9) for name, p in weights(network).items()}
    save_checkpoint(path, network, INFO, {}, averages)
    return read_checkpoint(path)


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    """Both formats of one model, side by side."""
    folder = tmp_path_factory.mktemp("export")
    folder.chmod(0o755)
    for ending in FORMATS:
        result = export_classifier(checkpoint.create_network(), INFO, folder / f"a{ending}", real_images=pixels(3))
        assert result.batches == (1, 2, 5)
        assert max(result.random, result.real) <= 1e-5
    return folder


@pytest.fixture(scope="module")
def classifiers(checkpoint, folder):
    """Loaded once, since each compiles a graph."""
    paths = {"checkpoint": checkpoint.path, **{ending: folder / f"a{ending}" for ending in FORMATS}}
    return {name: load_classifier(path) for name, path in paths.items()}


def pixels(count, size=INFO.crop):
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), np.uint8)


def names_in(path):
    """Whatever has a name in a model file."""
    if path.suffix == ".mindir":
        return path.read_bytes().decode("latin-1")
    return " ".join(constant.name for constant in onnx.load(path).graph.initializer)


@pytest.mark.parametrize("ending", FORMATS)
def test_no_projection_is_in_the_file(folder, ending):
    found = names_in(folder / f"a{ending}")
    assert "projection" not in found
    assert "classifier.weight" in found


def test_an_onnx_file_holds_the_deployable_parameters_and_no_other_floats_of_their_size(folder, checkpoint):
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in onnx.load(folder / "a.onnx").graph.initializer}
    expected = {p.name: p.shape for p in checkpoint.create_classifier().get_parameters()}
    assert {name: constants[name].shape for name in expected} == expected
    rest = sum(value.size for name, value in constants.items() if name not in expected)
    assert rest < 100


def test_only_the_models_and_their_description_are_written_and_the_folder_stays_readable(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["a.mindir", "a.onnx", "model.yaml"]
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "a.onnx").stat().st_mode & 0o044 == 0o044


@pytest.mark.parametrize("ending", FORMATS)
def test_any_batch(classifiers, ending):
    """1010 is beyond the batch at which an ONNX graph is written before it is opened."""
    for batch in (1, 7, 1010):
        expected, found = (classifiers[name].logits(pixels(batch)) for name in ("checkpoint", ending))
        assert found.shape == (batch, 3)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ending", FORMATS)
def test_model_yaml_is_enough_to_predict_with_pillow_and_numpy(folder, classifiers, ending):
    """Odd sizes, by hand: resize the shorter side, crop the centre, normalise; the logits are those of evaluation."""
    model = yaml.safe_load((folder / "model.yaml").read_text())
    if ending == ".onnx":
        session = onnxruntime.InferenceSession(folder / "a.onnx")
        network = lambda inputs: session.run(["logits"], {"images": inputs})[0]  # noqa: E731
    else:
        graph = load_mindir(folder / "a.mindir")
        network = lambda inputs: graph(Tensor(inputs)).asnumpy()  # noqa: E731
    random = np.random.default_rng(0)
    for width, height in ((33, 47), (61, 20), (20, 20)):
        image = Image.fromarray(random.integers(0, 256, (height, width, 3)).astype(np.uint8))
        scale = model["resize"] / min(width, height)
        size = (model["resize"], int(height * scale)) if width <= height else (int(width * scale), model["resize"])
        left, top = (round((side - model["crop"]) / 2) for side in size)
        cut = np.asarray(image.resize(size, Image.BICUBIC))[top : top + model["crop"], left : left + model["crop"]]
        inputs = (cut / 255.0 - model["mean"]) / model["std"]
        by_hand = network(inputs.transpose(2, 0, 1)[None].astype(np.float32))
        ours = classifiers["checkpoint"].logits(INFO.transform(image)[None])
        np.testing.assert_allclose(by_hand, ours, rtol=1e-5, atol=1e-5)


def test_a_training_cell_and_a_checkpoint_of_all_that_training_needs_export_alike(classifiers, tmp_path):
    network = make_network()
    optimizer = create_optimizer(network.trainable_params(), "sgd", lr=0.1, weight_decay=0.0)
    step = TrainStep(network, Preprocess(INFO.mean, INFO.std), GPT4ImageLoss("infonce"), optimizer)
    step.set_train(True)
    export_classifier(step, INFO, tmp_path / "a.onnx")
    assert network.training
    expected = classifiers[".onnx"].logits(pixels(4))
    np.testing.assert_array_equal(load_classifier(tmp_path / "a.onnx").logits(pixels(4)), expected)


def test_the_moving_average_is_another_network(checkpoint, classifiers, tmp_path):
    result = export_classifier(checkpoint.create_network("ema"), INFO, tmp_path / "a.onnx")
    assert result.largest < 1e-5
    found = load_classifier(tmp_path / "a.onnx").logits(pixels(2))
    assert np.abs(found - classifiers[".onnx"].logits(pixels(2))).max() > 1e-3
    np.testing.assert_allclose(found, load_classifier(checkpoint.path, "ema").logits(pixels(2)), rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="--weights ema: .*a.onnx holds the weights that were chosen at its export"):
        load_classifier(tmp_path / "a.onnx", "ema")


@pytest.mark.parametrize("ending", FORMATS)
def test_pixels_in_a_fixed_batch_of_another_size(checkpoint, tmp_path, ending):
    path = tmp_path / f"b{ending}"
    result = export_classifier(checkpoint.create_network(), INFO, path, batch=3, image_size=24, pixels=True)
    assert (result.batches, result.largest < 1e-5) == ((3,), True)
    classifier = load_classifier(path)
    model = classifier.model
    assert (model.input, model.resize, model.crop) == (PIXELS, 30, 24)
    whole = classifier.logits(pixels(7, 24))
    assert whole.shape == (7, 3)
    np.testing.assert_array_equal(classifier.logits(pixels(7, 24)[3:6]), whole[3:6])


@pytest.mark.parametrize("ending", FORMATS)
def test_half_precision_halves_the_file(checkpoint, folder, tmp_path, ending):
    path = tmp_path / f"b{ending}"
    result = export_classifier(checkpoint.create_network(), INFO, path, dtype="float16")
    assert 0 < result.largest < 0.01
    assert path.stat().st_size < 0.55 * (folder / f"a{ending}").stat().st_size
    assert load_classifier(path).logits(pixels(2)).dtype == np.float32


def test_a_file_that_differs_is_refused_and_not_left_behind(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "largest_difference", lambda *arguments: float("nan"))
    with pytest.raises(UserError, match=r"differ from the network's by nan; not written"):
        export_classifier(checkpoint.create_network(), INFO, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_difference_is_the_largest_of_all_batches_relative_to_large_logits():
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)

    def logits(images):
        return images.reshape(-1, 1).astype(np.float32)

    def wrong_at_the_fourth(images):
        return logits(images) + 0.3 * (images.reshape(-1, 1) == 3)

    assert module.largest_difference(logits, wrong_at_the_fourth, images, (1, 3)) == 0
    assert module.largest_difference(logits, wrong_at_the_fourth, images, (1, 5)) == pytest.approx(0.1)


def test_exports_of_one_model_share_a_description_that_says_how_each_is_fed(tmp_path):
    for name, model in (("a.onnx", INFO), ("b.onnx", dataclasses.replace(INFO.at_size(24), input=PIXELS))):
        (tmp_path / name).write_text(name)
        module.describe_model_file(tmp_path / name, model, None, "float32")
        assert read_model_file(tmp_path / name)[0] == model
    assert read_model_file(tmp_path / "a.onnx")[0] == ModelInfo.load(tmp_path / "model.yaml") == INFO


def test_another_model_s_description_is_not_overwritten(checkpoint, tmp_path):
    dataclasses.replace(INFO, classes=("x", "y", "z")).save(tmp_path / "model.yaml")
    with pytest.raises(UserError, match="describes another model"):
        export_classifier(checkpoint.create_network(), INFO, tmp_path / "b.mindir")


class TestMistakes:
    @pytest.fixture()
    def copy(self, folder, tmp_path):
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        return tmp_path

    def test_unknown_ending(self, checkpoint, tmp_path):
        with pytest.raises(UserError, match="ends in .mindir or .onnx"):
            export_classifier(checkpoint.create_network(), INFO, tmp_path / "a.tflite")

    def test_a_renamed_file_is_known_by_its_content(self, copy):
        (copy / "a.onnx").rename(copy / "b.onnx")
        assert load_classifier(copy / "b.onnx").model == INFO

    @pytest.mark.parametrize("ending", FORMATS)
    def test_truncated_file(self, copy, ending):
        path = copy / f"a{ending}"
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(UserError, match=rf"a{ending}: damaged, or not a file that .*model.yaml describes"):
            load_classifier(path)

    @pytest.mark.parametrize("ending", FORMATS)
    def test_foreign_file_that_its_description_lists(self, copy, ending):
        path = copy / f"a{ending}"
        path.write_bytes(b"not a model")
        module.describe_model_file(path, INFO, None, "float32")
        with pytest.raises(UserError, match=rf"a{ending}: damaged, or no (MINDIR|ONNX model)"):
            load_classifier(path)

    def test_missing_description(self, copy):
        (copy / "model.yaml").unlink()
        with pytest.raises(UserError, match="model.yaml: cannot be read .*it belongs beside every exported model"):
            load_classifier(copy / "a.onnx")

    @pytest.mark.parametrize("ending", FORMATS)
    def test_wrong_number_of_channels(self, tmp_path, ending):
        """A graph for grey images with this package's description beside it."""
        grey = nn.SequentialCell(nn.Flatten(), nn.Dense(16 * 16, 3))
        path = tmp_path / f"grey{ending}"
        ms.export(
            grey, Tensor(np.zeros((1, 1, 16, 16)), ms.float32), file_name=str(path), file_format=ending[1:].upper()
        )
        module.describe_model_file(path, INFO, None, "float32")
        with pytest.raises(UserError, match=rf"grey{ending}: cannot be run on float32 \[1, 3, 16, 16\]"):
            load_classifier(path).logits(pixels(1))

    def test_a_transformer_at_another_size(self, tmp_path):
        info = paper_network("deit_tiny", 32)
        with pytest.raises(UserError, match="--image-size 48: the position embedding of deit_tiny is of another size"):
            export_classifier(make_network(info), info, tmp_path / "a.onnx", image_size=48)

    def test_no_such_file(self, tmp_path):
        with pytest.raises(UserError, match="c.mindir: no such file"):
            load_classifier(tmp_path / "c.mindir")


def paper_network(name, size):
    return dataclasses.replace(INFO, network=name, resize=size, crop=size)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["resnet18_cifar", "resnet50", "convnext_tiny", "convnext_small", "convnext_base", "deit_small", "deit_base"],
)
@pytest.mark.parametrize("ending", FORMATS)
def test_every_network_of_the_paper(tmp_path, name, ending):
    info = paper_network(name, 32)
    result = export_classifier(make_network(info), info, tmp_path / f"a{ending}")
    assert result.largest <= 1e-4
    assert "projection" not in names_in(tmp_path / f"a{ending}")


class TestTransformersAndConvNeXts:
    """A small one of each, for the operators that only they have."""

    @pytest.mark.parametrize("name", ["deit_tiny", "convnext_tiny"])
    def test_onnx(self, tmp_path, monkeypatch, name):
        from functools import partial

        from mindspore_gpt4image.models import factory
        from mindspore_gpt4image.models.convnext import ConvNeXt
        from mindspore_gpt4image.models.vit import VisionTransformer

        monkeypatch.setitem(factory._CONVOLUTIONAL, "convnext_tiny", partial(ConvNeXt, (1, 1, 1, 1), (8, 8, 16, 16)))
        monkeypatch.setitem(factory._TRANSFORMERS, "deit_tiny", partial(VisionTransformer, dim=32, heads=2, depth=2))
        info = paper_network(name, 32)
        network = make_network(info)
        result = export_classifier(network, info, tmp_path / "a.onnx", pixels=True)
        assert result.largest <= 1e-5
        assert "Erf" in {node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node}
        classifier = load_classifier(tmp_path / "a.onnx")
        many = np.resize(pixels(5, 32), (1010, 32, 32, 3))
        np.testing.assert_allclose(classifier.logits(many)[-5:], classifier.logits(many[-5:]), atol=1e-5)
        half = export_classifier(network, info, tmp_path / "half" / "a.onnx", pixels=True, dtype="float16")
        assert half.largest < 0.02
