"""Which networks there are, how large they are, and what is said where one cannot be built."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.nn.utils import no_init_parameters

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.models import create_network, deployable, network_names


def forward(name, image_size, **options):
    ms.set_context(mode=ms.GRAPH_MODE)
    net = create_network(name, num_classes=7, text_dim=5, image_size=image_size, **options)
    images = np.random.default_rng(0).standard_normal((2, 3, image_size, image_size))
    logits, embeddings = net.set_train()(Tensor(images, ms.float32))
    assert np.isfinite(logits.asnumpy()).all()
    assert np.isfinite(embeddings.asnumpy()).all()
    return logits.shape, embeddings.shape


@pytest.mark.parametrize("name", ["resnet10_cifar_half", "resnet18_cifar", "resnet18"])
def test_forward(name):
    assert forward(name, image_size=32) == ((2, 7), (2, 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet34", "resnet50", "resnet101"])
def test_forward_of_the_deeper_resnets(name):
    assert forward(name, image_size=64) == ((2, 7), (2, 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_small", "convnext_base"])
def test_forward_of_convnext(name):
    assert forward(name, image_size=64, drop_path=0.1) == ((2, 7), (2, 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deit_tiny", "deit_small", "deit_base"])
def test_forward_of_deit(name):
    assert forward(name, image_size=32, drop_path=0.1) == ((2, 7), (2, 5))


@pytest.mark.parametrize("name", ["mobilenet_v2_035_96", "regnet_x_200mf"])
def test_forward_of_mindcv(name):
    """The first keeps its classifier in a sequence, the second in a cell of its own."""
    assert forward(name, image_size=32) == ((2, 7), (2, 5))


@pytest.mark.parametrize(
    ("name", "num_classes", "millions"),
    [
        ("resnet10_cifar_half", 67, 1.24),
        ("resnet18_cifar", 10, 11.17),
        ("resnet18", 1000, 11.69),
        ("resnet34", 1000, 21.80),
        ("resnet50", 1000, 25.56),
        ("resnet101", 1000, 44.55),
        ("convnext_tiny", 1000, 28.59),
        ("convnext_small", 1000, 50.22),
        ("convnext_base", 1000, 88.59),
        ("deit_tiny", 1000, 5.72),
        ("deit_small", 1000, 22.05),
        ("deit_base", 1000, 86.57),
    ],
)
def test_deployable_parameters_as_published(name, num_classes, millions):
    with no_init_parameters():
        net = create_network(name, num_classes, text_dim=512, drop_path=0.1 if "resnet" not in name else 0.0)
    count = sum(parameter.size for parameter in deployable(net).trainable_params())
    assert round(count / 1e6, 2) == millions


def test_names_are_unique_and_hold_mindcv():
    names = network_names()
    assert len(names) == len(set(names))
    assert {"resnet18_cifar", "deit_small", "convnext_base", "swin_tiny", "mobilenet_v2_100"} <= set(names)


def test_mindcv_classifier_leaves_the_backbone():
    net = create_network("mobilenet_v2_035_96", num_classes=7, text_dim=5)
    assert net.num_features == 1280
    names = [parameter.name for parameter in net.get_parameters()]
    assert len(names) == len(set(names))
    assert names[-3:] == ["classifier.weight", "classifier.bias", "projection.weight"]
    assert all(name.startswith("backbone.") for name in names[:-3])


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "deit_tiny"])
def test_own_networks_have_no_drop_path_at_zero(name):
    with no_init_parameters():
        net = create_network(name, 10, text_dim=8)
    assert net.drop_path is None


@pytest.mark.parametrize(
    ("name", "batch_norm"),
    [("resnet18_cifar", True), ("convnext_tiny", True), ("deit_tiny", False), ("swin_tiny", False)],
)
def test_mlp_has_batch_normalisation_behind_convolutions_only(name, batch_norm):
    net = create_network(name, 10, text_dim=6, projection="mlp")
    cells = [type(cell) for cell in net.projection]
    assert cells == [nn.Dense, *([nn.BatchNorm1d] if batch_norm else []), nn.ReLU, nn.Dense]
    first, last = net.projection[0], net.projection[len(cells) - 1]
    assert (first.in_channels, first.out_channels, last.in_channels, last.out_channels) == (net.num_features, 12, 12, 6)
    assert first.has_bias != batch_norm


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5o"}, "unknown network 'resnet5o'; the nearest names are resnet50, resnet152, resnest50"),
        (
            {"text_dim": None},
            "projection 'linear' needs text_dim, the dimension of the text embeddings; "
            "without texts set projection to none",
        ),
        ({"projection": "Linear"}, "projection is 'Linear'; choose linear, mlp or none"),
        ({"drop_path": 0.1}, "drop_path is 0.1, which resnet10_cifar_half does not have; set it to 0"),
        ({"name": "deit_tiny", "drop_path": 1.0}, "drop_path is 1.0; it must be at least 0 and below 1"),
        ({"name": "deit_tiny", "image_size": 40}, "image_size is 40; deit_tiny needs a multiple of 16"),
        (
            {"name": "squeezenet1_0"},
            "squeezenet1_0 has 0 dense layers with 10 outputs, so which one is its classifier cannot be told; "
            "choose another network",
        ),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError) as raised:
        create_network(**{"name": "resnet10_cifar_half", "num_classes": 10, "text_dim": 8, **arguments})
    assert str(raised.value) == message
