"""Files of GPT4Image's own code, converted and back: logits and image embeddings of plain PyTorch beside ours."""

import argparse
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor, nn

from mindspore_gpt4image import conversion
from mindspore_gpt4image.checkpoint import read_checkpoint
from mindspore_gpt4image.conversion import convert, projection_of, to_pytorch
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.models.network import Network, linear_projection, mlp_projection
from mindspore_gpt4image.models.resnet import Bottleneck, ResNet
from mindspore_gpt4image.models.vit import VisionTransformer

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from mindspore_gpt4image.offline.state_dict import read_state_dict  # noqa: E402

CONVERT = Path(__file__).parents[1] / "tools" / "convert.py"
CLASSES, TEXT_DIM, SIDE = 7, 5, 64
INFO = ModelInfo("tiny", tuple("abcdefg"), SIDE, SIDE, "bicubic", (0.5,) * 3, (0.25,) * 3)
PROJECTIONS = {"linear": linear_projection, "mlp": mlp_projection, "none": lambda *_: nn.Identity()}


def tiny(name, num_classes, text_dim=None, projection="none", image_size=SIDE):
    backbone = {
        "tiny_resnet": lambda: ResNet(Bottleneck, (1, 2, 1, 1), width=8),
        "tiny_vit": lambda: VisionTransformer(image_size, dim=24, heads=2, depth=2),
    }[name]()
    projected = PROJECTIONS[projection](backbone.num_features, text_dim, name == "tiny_resnet")
    return Network(backbone, backbone.make_classifier(num_classes), projected, None)


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    monkeypatch.setattr(conversion, "create_network", tiny)
    monkeypatch.setattr("mindspore_gpt4image.checkpoint.create_network", tiny)


class Random:
    """Random weights by name and shape, as a state dict."""

    def __init__(self):
        self.generator, self.state = torch.Generator().manual_seed(0), {}

    def weight(self, name, *shape):
        fan_in = int(np.prod(shape[1:])) or 1
        self.state[name] = torch.randn(shape, generator=self.generator) / fan_in**0.5

    def vector(self, name, size, around=0.0):
        self.state[name] = around + 0.2 * torch.rand(size, generator=self.generator)

    def linear(self, name, outputs, inputs, bias=True):
        self.weight(f"{name}.weight", outputs, inputs)
        if bias:
            self.vector(f"{name}.bias", outputs)

    def norm(self, name, size, running=True):
        self.vector(f"{name}.weight", size, 0.8)
        self.vector(f"{name}.bias", size, -0.1)
        if running:
            self.vector(f"{name}.running_mean", size, -0.1)
            self.vector(f"{name}.running_var", size, 0.6)
            self.state[f"{name}.num_batches_tracked"] = torch.tensor(3)


def released_resnet(projection):
    """The names that `WrapperModel` of the released code gives: `model.` and torchvision's, and `proj_layer`."""
    random, width, channels = Random(), 8, 8
    random.weight("model.conv1.weight", width, 3, 7, 7)
    random.norm("model.bn1", width)
    for stage, blocks in enumerate((1, 2, 1, 1), 1):
        planes = width * 2 ** (stage - 1)
        for block in range(blocks):
            name = f"model.layer{stage}.{block}"
            random.weight(f"{name}.conv1.weight", planes, channels, 1, 1)
            random.weight(f"{name}.conv2.weight", planes, planes, 3, 3)
            random.weight(f"{name}.conv3.weight", 4 * planes, planes, 1, 1)
            for index, size in ((1, planes), (2, planes), (3, 4 * planes)):
                random.norm(f"{name}.bn{index}", size)
            if block == 0:
                random.weight(f"{name}.downsample.0.weight", 4 * planes, channels, 1, 1)
                random.norm(f"{name}.downsample.1", 4 * planes)
            channels = 4 * planes
    random.linear("model.fc", CLASSES, channels)
    if projection == "linear":
        random.linear("proj_layer", TEXT_DIM, channels, bias=False)
    else:
        random.linear("proj_layer.0", 2 * TEXT_DIM, channels, bias=False)
        random.norm("proj_layer.1", 2 * TEXT_DIM)
        random.linear("proj_layer.3", TEXT_DIM, 2 * TEXT_DIM)
    return random.state


def run_resnet(state, images):
    def norm(x, name):
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias)

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = F.max_pool2d(F.relu(norm(conv(images, "model.conv1", 2), "model.bn1")), 3, 2, 1)
    for stage, blocks in enumerate((1, 2, 1, 1), 1):
        for block in range(blocks):
            name = f"model.layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.relu(norm(conv(x, f"{name}.conv1"), f"{name}.bn1"))
            y = F.relu(norm(conv(y, f"{name}.conv2", stride), f"{name}.bn2"))
            y = norm(conv(y, f"{name}.conv3"), f"{name}.bn3")
            if block == 0:
                x = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = F.relu(x + y)
    feature = x.mean((2, 3))
    if "proj_layer.weight" in state:
        embedding = F.linear(feature, state["proj_layer.weight"])
    else:
        hidden = F.relu(norm(F.linear(feature, state["proj_layer.0.weight"]), "proj_layer.1"))
        embedding = F.linear(hidden, state["proj_layer.3.weight"], state["proj_layer.3.bias"])
    return F.linear(feature, state["model.fc.weight"], state["model.fc.bias"]), embedding


def released_vit(projection):
    """The names of timm's VisionTransformer, and `proj_layer`."""
    random, dim = Random(), 24
    random.weight("cls_token", 1, 1, dim)
    random.weight("pos_embed", 1, 17, dim)
    random.weight("patch_embed.proj.weight", dim, 3, 16, 16)
    random.vector("patch_embed.proj.bias", dim)
    for block in range(2):
        name = f"blocks.{block}"
        random.norm(f"{name}.norm1", dim, running=False)
        random.linear(f"{name}.attn.qkv", 3 * dim, dim)
        random.linear(f"{name}.attn.proj", dim, dim)
        random.norm(f"{name}.norm2", dim, running=False)
        random.linear(f"{name}.mlp.fc1", 4 * dim, dim)
        random.linear(f"{name}.mlp.fc2", dim, 4 * dim)
    random.norm("norm", dim, running=False)
    random.linear("head", CLASSES, dim)
    if projection == "linear":
        random.linear("proj_layer", TEXT_DIM, dim, bias=False)
    else:
        random.linear("proj_layer.0", 2 * TEXT_DIM, dim)
        random.linear("proj_layer.2", TEXT_DIM, 2 * TEXT_DIM)
    return random.state


def run_vit(state, images):
    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    x = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], 1) + state["pos_embed"]
    for block in range(2):
        name = f"blocks.{block}"
        heads = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").unflatten(2, (3, 2, 12)).permute(2, 0, 3, 1, 4)
        attention = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        x = x + linear(attention, f"{name}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
    feature = norm(x, "norm")[:, 0]
    if "proj_layer.weight" in state:
        return linear(feature, "head"), linear(feature, "proj_layer")
    return linear(feature, "head"), linear(F.relu(linear(feature, "proj_layer.0")), "proj_layer.2")


MODELS = {"tiny_resnet": (released_resnet, run_resnet), "tiny_vit": (released_vit, run_vit)}


def assert_close(ours, theirs):
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("projection", ["linear", "mlp"])
@pytest.mark.parametrize("name", MODELS)
def test_the_authors_files_give_their_logits_and_embeddings_there_and_back(name, projection, tmp_path):
    make, run = MODELS[name]
    state = make(projection)
    images = np.random.default_rng(0).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)
    with torch.no_grad():
        logits, embeddings = (value.numpy() for value in run(state, torch.from_numpy(images)))
    # As each of the two trainers writes them.
    content = {"model": state, "acc1": 72.8, "epoch": 119}
    if name == "tiny_vit":
        content = {**content, "args": argparse.Namespace(lr=5e-4, model="deit"), "model_ema": state}
    path = tmp_path / "best.pth.tar"
    torch.save(content, path)

    arrays = read_state_dict(path)
    model = convert(arrays, replace(INFO, network=name), path, tmp_path / "ours.ckpt")
    assert (model.projection, model.text_dim) == (projection, TEXT_DIM)
    network = read_checkpoint(tmp_path / "ours.ckpt").create_network().set_train(False)
    for ours, theirs in zip(network(Tensor(images)), (logits, embeddings)):
        assert_close(ours.asnumpy(), theirs)

    back = to_pytorch(network, "released")
    assert back.keys() == {key for key in arrays if not key.endswith("num_batches_tracked")}
    for key, value in back.items():
        np.testing.assert_array_equal(value, arrays[key])
    assert not any(key.startswith("proj") for key in to_pytorch(network, "timm"))


def test_projections_are_recognised():
    assert projection_of({"fc.weight": np.zeros((3, 2))}) == ("none", None)
    with pytest.raises(UserError, match=r"does not fit tiny_vit with 7 classes: names not in the table \(\d+\): model"):
        state = {key: value.numpy() for key, value in released_resnet("mlp").items()}
        convert(state, replace(INFO, network="tiny_vit"), "a.pth", "unused.ckpt")


class TestFiles:
    """State dicts on disk."""

    def test_wrappers_prefixes_and_half_precision(self, tmp_path):
        state = {"module.fc.weight": torch.ones(2, 3, dtype=torch.bfloat16), "module.fc.bias": torch.zeros(2)}
        torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.pth")
        found = read_state_dict(tmp_path / "a.pth")
        assert found.keys() == {"fc.weight", "fc.bias"} and found["fc.weight"].dtype == np.float32
        save_file({"fc.weight": torch.ones(2, 3)}, tmp_path / "a.safetensors")
        assert read_state_dict(tmp_path / "a.safetensors").keys() == {"fc.weight"}

    def test_averaged_weights_are_taken_on_request(self, tmp_path):
        torch.save({"model": {"a": torch.zeros(1)}, "model_ema": {"a": torch.ones(1)}}, tmp_path / "a.pth")
        assert read_state_dict(tmp_path / "a.pth")["a"] == 0
        assert read_state_dict(tmp_path / "a.pth", ema=True)["a"] == 1
        torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "b.pth")
        with pytest.raises(UserError, match=r"b.pth: holds no averaged weights .*; it holds model"):
            read_state_dict(tmp_path / "b.pth", ema=True)

    def test_nothing_in_a_file_is_executed(self, tmp_path):
        class Hostile:
            def __reduce__(self):
                return Path.touch, (tmp_path / "executed",)

        for name, write in (
            ("torch.pth", torch.save),
            ("plain.pth", lambda value, path: pickle.dump(value, path.open("wb"))),
        ):
            write({"model": {"a": torch.zeros(1)}, "args": Hostile()}, tmp_path / name)
            with pytest.raises(UserError, match=f"{name}: "):
                read_state_dict(tmp_path / name)
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
    @pytest.mark.parametrize("content", [b"", b"weights", b"\x80\x02", b"PK\x03\x04" + bytes(100)])
    def test_what_is_no_weights_is_refused(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: damaged, or no file of PyTorch"):
            read_state_dict(tmp_path / name)

    @pytest.mark.parametrize(
        ("value", "fault"),
        [
            ([1, 2], "holds a list and no state dict"),
            ({"epoch": 3, "lr": 0.1}, "holds no state dict; it holds epoch, lr"),
            ({}, "holds no state dict; it holds nothing"),
        ],
    )
    def test_other_content_is_told(self, tmp_path, value, fault):
        torch.save(value, tmp_path / "a.pth")
        with pytest.raises(UserError, match=fault):
            read_state_dict(tmp_path / "a.pth")
        with pytest.raises(UserError, match="gone.pth: no such file"):
            read_state_dict(tmp_path / "gone.pth")


@pytest.mark.slow
def test_the_tool_converts_a_resnet18_there_and_back(tmp_path):
    """By its command line, with transformers' own ResNet-18 and its names; half of the way through safetensors."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", num_labels=CLASSES
    )
    model = transformers.ResNetForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "hub")
    (tmp_path / "classes.txt").write_text("\n".join("abcdefg"))

    def run(*arguments):
        result = subprocess.run(
            [sys.executable, str(CONVERT), *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    said = run(
        *("from-pytorch", "hub/model.safetensors", "--network", "resnet18", "--classes", "classes.txt"),
        *("--interpolation", "bilinear", "--output", "ours.safetensors"),
    )
    assert said == "ours.safetensors: resnet18, 7 classes, projection: none\n"
    run("to-pytorch", "ours.safetensors", "--layout", "transformers", "--output", "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    names = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    assert back.keys() == names
    for name in names:
        torch.testing.assert_close(back[name], model.state_dict()[name], rtol=0, atol=0)
    assert read_checkpoint(tmp_path / "ours.safetensors").model.classes == tuple("abcdefg")
