"""The whole network: what its parts share, and what its graph holds."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindspore_gpt4image.models import create_network, deployable, weights
from mindspore_gpt4image.models.convnext import ConvNeXt
from mindspore_gpt4image.models.drop_path import DropPath
from mindspore_gpt4image.models.network import Network, linear_projection
from mindspore_gpt4image.models.vit import VisionTransformer


def random_images(size=32, batch=4):
    return Tensor(np.random.default_rng(0).standard_normal((batch, 3, size, size)), ms.float32)


def tiny(family):
    """A network of the family that compiles in seconds, drop path included."""
    if family == "resnet":
        return create_network("resnet10_cifar_half", 5, text_dim=6, projection="mlp")
    if family == "convnext":
        backbone = ConvNeXt((1, 2, 1, 1), (8, 12, 16, 24))
        for block in (block for stage in backbone.stages for block in stage):
            block.gamma.set_data(Tensor(np.full(block.gamma.shape, 0.5), ms.float32))  # 1e-6 would hide the branch
    else:
        backbone = VisionTransformer(32, dim=24, heads=2, depth=3)
    drop_path = DropPath(0.5, backbone.num_blocks, backbone.branches)
    projection = linear_projection(backbone.num_features, 6, convolutional=False)
    return Network(backbone, backbone.make_classifier(5), projection, drop_path)


def values(cell):
    return {parameter.name: parameter.asnumpy() for parameter in cell.get_parameters()}


@pytest.mark.parametrize("name", ["resnet10_cifar_half", "deit_tiny", "mobilenet_v2_035_96"])
def test_initial_weights_do_not_depend_on_the_projection(name):
    networks = {}
    for projection in ("none", "linear", "mlp"):
        ms.set_seed(3)
        text_dim = None if projection == "none" else 16
        networks[projection] = create_network(name, 10, text_dim, projection, image_size=32)
    baseline = values(networks["none"])
    assert not any(parameter.startswith("projection") for parameter in baseline)
    for projection in ("linear", "mlp"):
        aligned = values(networks[projection])
        assert all(np.array_equal(aligned[parameter], baseline[parameter]) for parameter in baseline)
    ms.set_seed(4)
    other = values(create_network(name, 10, projection="none", image_size=32))
    assert any(not np.array_equal(other[parameter], baseline[parameter]) for parameter in baseline)


@pytest.mark.parametrize(
    ("name", "deviation"), [("resnet10_cifar_half", 1024**-0.5), ("deit_tiny", 0.02)], ids=["resnet", "deit"]
)
@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_projection_starts_as_in_the_released_code(name, deviation, projection):
    net = create_network(name, 10, 256, projection, image_size=32)
    for parameter in net.projection.get_parameters():
        if parameter.ndim == 2:
            assert parameter.asnumpy().std() == pytest.approx(deviation, rel=0.02)


def test_without_projection_the_feature_comes_out():
    ms.set_context(mode=ms.GRAPH_MODE)
    net = create_network("resnet10_cifar_half", 5, projection="none").set_train(False)
    images = random_images()
    assert np.array_equal(net(images)[1].asnumpy(), net.backbone(images).asnumpy())


@pytest.mark.parametrize("family", ["resnet", "convnext", "vit"])
def test_deployable_shares_all_but_the_projection(family):
    ms.set_context(mode=ms.GRAPH_MODE)
    net = tiny(family)
    shipped = deployable(net)
    whole = {parameter.name: parameter for parameter in net.get_parameters()}
    kept = {parameter.name: parameter for parameter in shipped.get_parameters()}
    assert all(whole[name] is parameter for name, parameter in kept.items())
    assert set(kept) == {name for name in whole if name.startswith(("backbone.", "classifier."))}

    images = random_images()
    net.set_train(False)
    assert np.array_equal(shipped(images).asnumpy(), net(images)[0].asnumpy())


def test_weights_are_all_but_the_state_of_drop_path():
    net = tiny("vit")
    names = {parameter.name for parameter in net.get_parameters()}
    assert names - set(weights(net)) == {"drop_path.state"}


class Objective(nn.Cell):
    """A number that depends on every output."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def construct(self, images):
        logits, embeddings = self.net(images)
        return (logits**2).sum() + embeddings.sum()


@pytest.mark.parametrize("family", ["resnet", "convnext", "vit"])
def test_gradient_of_the_graph_equals_pynative(family):
    objective = Objective(tiny(family)).set_train()
    parameters = objective.trainable_params()
    results = []
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=mode)
        value, gradients = ms.value_and_grad(objective, None, parameters)(random_images())
        results.append([value.asnumpy(), *(gradient.asnumpy() for gradient in gradients)])
    for parameter, graph, pynative in zip(["value", *(p.name for p in parameters)], *results):
        assert np.isfinite(graph).all(), parameter
        assert np.abs(graph).max() > 0, parameter
        np.testing.assert_allclose(graph, pynative, rtol=1e-4, atol=1e-4 * np.abs(pynative).max(), err_msg=parameter)


@pytest.mark.parametrize("name", ["ghostnet_050", "resnext50_32x4d"])
def test_no_in_place_add_in_the_graph(name, tmp_path):
    """Both of MindCV's files add with `+=`; the exported graph spells the names of its operators."""
    shipped = deployable(create_network(name, 10, projection="none")).set_train(False)
    file = tmp_path / "net.mindir"
    ms.export(shipped, Tensor(shape=[None, 3, 32, 32], dtype=ms.float32), file_name=str(file), file_format="MINDIR")
    graph = file.read_bytes()
    assert b"Conv2D" in graph
    assert b"Inplace" not in graph
