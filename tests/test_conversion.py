"""Conversion proved on randomly initialised models of transformers, and against names as they are published."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindspore_gpt4image.conversion import from_pytorch, to_pytorch
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.models import create_network, deployable
from mindspore_gpt4image.models.convnext import ConvNeXt
from mindspore_gpt4image.models.network import Network
from mindspore_gpt4image.models.resnet import Bottleneck, ResNet
from mindspore_gpt4image.models.vit import VisionTransformer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CLASSES = 11


def tiny(family):
    backbone = {
        "resnet": lambda: ResNet(Bottleneck, (1, 2, 1, 1), width=8),
        "convnext": lambda: ConvNeXt((1, 2, 1, 1), (8, 12, 16, 24)),
        "vit": lambda: VisionTransformer(64, dim=24, heads=2, depth=2),
    }[family]()
    return Network(backbone, backbone.make_classifier(CLASSES), nn.Identity(), None)


def resnet(depths, width):
    return transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=width,
            hidden_sizes=[4 * width * 2**stage for stage in range(4)],
            depths=depths,
            layer_type="bottleneck",
            num_labels=CLASSES,
        )
    )


def convnext(depths, dims):
    config = transformers.ConvNextConfig(depths=depths, hidden_sizes=dims, num_labels=CLASSES, layer_norm_eps=1e-6)
    return transformers.ConvNextForImageClassification(config)


def vit(image_size, dim, heads, depth):
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            image_size=image_size,
            hidden_size=dim,
            num_attention_heads=heads,
            intermediate_size=4 * dim,
            num_hidden_layers=depth,
            layer_norm_eps=1e-6,
            num_labels=CLASSES,
        )
    )


def randomise(model):
    """Move what starts at 0, 1 or 1e-6, so that no parameter can be left out or swapped unnoticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var") or value.ndim == 1 and name.endswith("weight"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif value.ndim == 1:
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    return model.eval()


def largest_difference(model, net, image_size):
    """Between the logits of both, relative to the largest logit."""
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for parameter in deployable(net).get_parameters():
        parameter.set_data(Tensor(np.zeros(parameter.shape), ms.float32))
    for name, value in from_pytorch(arrays, net).items():
        net.parameters_dict()[name].set_data(Tensor(value))
    images = np.random.default_rng(0).standard_normal((2, 3, image_size, image_size)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).logits.numpy()
    ms.set_context(mode=ms.GRAPH_MODE)
    logits = deployable(net).set_train(False)(Tensor(images)).asnumpy()
    return np.abs(logits - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("family", ["resnet", "convnext", "vit"])
def test_same_logits_as_transformers(family):
    model = {
        "resnet": lambda: resnet([1, 2, 1, 1], 8),
        "convnext": lambda: convnext([1, 2, 1, 1], [8, 12, 16, 24]),
        "vit": lambda: vit(64, dim=24, heads=2, depth=2),
    }[family]()
    assert largest_difference(randomise(model), tiny(family), 64) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny", "deit_small"])
def test_same_logits_as_transformers_at_full_size(name):
    model = {
        "resnet50": lambda: resnet([3, 4, 6, 3], 64),
        "convnext_tiny": lambda: convnext([3, 3, 9, 3], [96, 192, 384, 768]),
        "deit_small": lambda: vit(224, dim=384, heads=6, depth=12),
    }[name]()
    net = create_network(name, CLASSES, projection="none")
    assert largest_difference(randomise(model), net, 224) < 1e-5


@pytest.mark.parametrize(
    ("family", "layout"),
    [("resnet", layout) for layout in ("torchvision", "timm", "transformers", "released")]
    + [("convnext", layout) for layout in ("official", "timm", "torchvision", "transformers")]
    + [("vit", layout) for layout in ("timm", "torchvision", "transformers", "transformers5", "released")],
)
def test_there_and_back(family, layout):
    net = tiny(family)
    back = from_pytorch(to_pytorch(net, layout), net)
    assert set(back) == {parameter.name for parameter in deployable(net).get_parameters()}
    for parameter in deployable(net).get_parameters():
        assert np.array_equal(back[parameter.name], parameter.asnumpy()), parameter.name


@pytest.mark.parametrize(
    ("family", "layout"), [("resnet", "transformers"), ("convnext", "transformers"), ("vit", "transformers5")]
)
def test_pytorch_takes_what_is_written_and_gives_the_same_logits(family, layout):
    model = {
        "resnet": lambda: resnet([1, 2, 1, 1], 8),
        "convnext": lambda: convnext([1, 2, 1, 1], [8, 12, 16, 24]),
        "vit": lambda: vit(64, dim=24, heads=2, depth=2),
    }[family]().eval()
    net, random = tiny(family), np.random.default_rng(1)
    for name, parameter in net.parameters_dict().items():
        around = 1.0 if name.endswith((".gamma", "moving_variance")) else 0.0
        spread = 0.3 if parameter.ndim == 1 else np.prod(parameter.shape[1:]) ** -0.5
        values = around + spread * random.uniform(-1, 1, parameter.shape)
        parameter.set_data(Tensor(values.astype(np.float32)))
    written = {name: torch.from_numpy(value) for name, value in to_pytorch(net, layout).items()}
    keys = model.load_state_dict(written, strict=False)
    assert keys.unexpected_keys == []
    assert all(name.endswith("num_batches_tracked") for name in keys.missing_keys)
    images = random.standard_normal((2, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        theirs = model(torch.from_numpy(images)).logits.numpy()
    ours = deployable(net).set_train(False)(Tensor(images)).asnumpy()
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("family", "layout", "shapes"),
    [
        (
            "resnet",
            "torchvision",
            {
                "conv1.weight": (8, 3, 7, 7),
                "bn1.running_var": (8,),
                "layer2.1.conv2.weight": (16, 16, 3, 3),
                "layer2.0.downsample.0.weight": (64, 32, 1, 1),
                "layer2.0.downsample.1.running_mean": (64,),
                "fc.bias": (CLASSES,),
            },
        ),
        (
            "convnext",
            "official",
            {
                "downsample_layers.0.1.weight": (8,),
                "downsample_layers.1.0.bias": (8,),
                "downsample_layers.1.1.weight": (12, 8, 2, 2),
                "stages.1.1.gamma": (12,),
                "stages.1.1.pwconv1.weight": (48, 12),
                "head.weight": (CLASSES, 24),
            },
        ),
        (
            "convnext",
            "timm",
            {
                "stem.1.weight": (8,),
                "stages.1.downsample.1.weight": (12, 8, 2, 2),
                "stages.1.blocks.1.conv_dw.weight": (12, 1, 7, 7),
                "stages.1.blocks.1.mlp.fc2.weight": (12, 48),
                "stages.1.blocks.1.gamma": (12,),
                "head.norm.weight": (24,),
                "head.fc.weight": (CLASSES, 24),
            },
        ),
        (
            "convnext",
            "torchvision",
            {
                "features.0.1.weight": (8,),
                "features.2.0.weight": (8,),
                "features.2.1.weight": (12, 8, 2, 2),
                "features.3.1.block.0.weight": (12, 1, 7, 7),
                "features.3.1.block.5.weight": (12, 48),
                "features.3.1.layer_scale": (12, 1, 1),
                "classifier.0.weight": (24,),
                "classifier.2.weight": (CLASSES, 24),
            },
        ),
        (
            "vit",
            "timm",
            {
                "cls_token": (1, 1, 24),
                "pos_embed": (1, 17, 24),
                "patch_embed.proj.weight": (24, 3, 16, 16),
                "blocks.1.attn.qkv.weight": (72, 24),
                "blocks.1.norm2.bias": (24,),
                "head.weight": (CLASSES, 24),
            },
        ),
        (
            "vit",
            "torchvision",
            {
                "class_token": (1, 1, 24),
                "encoder.pos_embedding": (1, 17, 24),
                "conv_proj.bias": (24,),
                "encoder.layers.encoder_layer_1.self_attention.in_proj_weight": (72, 24),
                "encoder.layers.encoder_layer_1.self_attention.out_proj.bias": (24,),
                "encoder.layers.encoder_layer_1.mlp.3.weight": (24, 96),
                "encoder.ln.weight": (24,),
                "heads.head.weight": (CLASSES, 24),
            },
        ),
        (
            "vit",
            "transformers",
            {
                "vit.encoder.layer.1.attention.attention.key.weight": (24, 24),
                "vit.encoder.layer.1.attention.output.dense.bias": (24,),
                "vit.encoder.layer.1.intermediate.dense.weight": (96, 24),
                "classifier.bias": (CLASSES,),
            },
        ),
    ],
)
def test_names_and_shapes_as_published(family, layout, shapes):
    written = to_pytorch(tiny(family), layout)
    assert {name: written[name].shape for name in shapes} == shapes


def changed(remove=(), **add):
    state = to_pytorch(tiny("resnet"), "torchvision")
    return {**{name: value for name, value in state.items() if name not in remove}, **add}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: changed(head=np.zeros(3)), "names not in the table (1): head"),
        (lambda: changed(remove=["fc.bias"]), "names missing from the state dict (1): fc.bias"),
        (
            lambda: changed(**{"fc.weight": np.zeros((2, 256))}),
            f"fc.weight has shape (2, 256); ({CLASSES}, 256) fits the network",
        ),
    ],
)
def test_mistakes(state, message):
    with pytest.raises(UserError) as raised:
        from_pytorch(state(), tiny("resnet"))
    assert str(raised.value) == message


def test_networks_and_layouts_without_a_table():
    with pytest.raises(UserError, match="no table of names for MobileNetV2; ResNet, ConvNeXt and DeiT have one"):
        from_pytorch({}, create_network("mobilenet_v2_035_96", 10, projection="none"))
    with pytest.raises(
        UserError, match="layout is 'official'; this network has torchvision, timm, transformers, released"
    ):
        to_pytorch(tiny("resnet"), "official")
