"""Update rules and groups of weight decay, against PyTorch."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Parameter, Tensor

from mindspore_gpt4image.models.convnext import ConvNeXt
from mindspore_gpt4image.models.network import Network, linear_projection
from mindspore_gpt4image.models.resnet import BasicBlock, ResNet
from mindspore_gpt4image.models.vit import VisionTransformer
from mindspore_gpt4image.training.optimizer import create_optimizer, decay_groups

SHAPES = {"backbone.conv.weight": (3, 2), "backbone.norm.gamma": (3,)}
STEPS = 6


@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
@pytest.mark.parametrize(
    ("name", "options", "peer"),
    [
        ("sgd", {"momentum": 0.9}, lambda groups: torch.optim.SGD(groups, lr=1, momentum=0.9)),
        (
            "sgd",
            {"momentum": 0.9, "nesterov": True},
            lambda groups: torch.optim.SGD(groups, lr=1, momentum=0.9, nesterov=True),
        ),
        ("adamw", {"betas": [0.8, 0.99]}, lambda groups: torch.optim.AdamW(groups, lr=1, betas=(0.8, 0.99))),
    ],
    ids=["sgd", "nesterov", "adamw"],
)
def test_updates_equal_pytorch_s_under_a_changing_learning_rate(name, options, peer, decay_norm_and_bias):
    random = np.random.default_rng(0)
    start = {key: random.standard_normal(shape).astype(np.float32) for key, shape in SHAPES.items()}
    gradients = [
        {key: random.standard_normal(shape).astype(np.float32) for key, shape in SHAPES.items()} for _ in range(STEPS)
    ]

    ours = [Parameter(value.copy(), name=key) for key, value in start.items()]
    optimizer = create_optimizer(
        ours, name, lr=0.1, weight_decay=0.1, decay_norm_and_bias=decay_norm_and_bias, **options
    )
    theirs = {key: torch.nn.Parameter(torch.tensor(value)) for key, value in start.items()}
    decays = {"backbone.conv.weight": 0.1, "backbone.norm.gamma": 0.1 if decay_norm_and_bias else 0.0}
    reference = peer([{"params": [theirs[key]], "weight_decay": decay} for key, decay in decays.items()])

    for step, gradient in enumerate(gradients):
        lr = 0.1 / (step + 1)
        ms.ops.assign(optimizer.learning_rate, Tensor(lr, ms.float32))
        optimizer(tuple(Tensor(gradient[parameter.name]) for parameter in optimizer.parameters))
        for group in reference.param_groups:
            group["lr"] = lr
        for key, parameter in theirs.items():
            parameter.grad = torch.tensor(gradient[key])
        reference.step()
    for parameter in ours:
        np.testing.assert_allclose(
            parameter.asnumpy(), theirs[parameter.name].detach().numpy(), rtol=2e-6, atol=2e-6, err_msg=parameter.name
        )


def by_decay(network, decay_norm_and_bias):
    groups = decay_groups(network.trainable_params(), 0.05, decay_norm_and_bias)
    return {group["weight_decay"]: [parameter.name for parameter in group["params"]] for group in groups}


def create(backbone):
    return Network(backbone, backbone.make_classifier(3), linear_projection(backbone.num_features, 8, True), None)


def test_deit_spares_biases_norms_position_and_class_token():
    names = by_decay(create(VisionTransformer(32, dim=8, heads=2, depth=2)), decay_norm_and_bias=False)
    assert len(names[0.05]) == 1 + 2 * 4 + 2  # patches; qkv, proj, fc1 and fc2 of each block; classifier, projection
    assert all(name.endswith(".weight") for name in names[0.05])
    assert {"backbone.pos_embed", "backbone.cls_token", "classifier.bias"} <= set(names[0.0])
    rest = {name.rsplit(".", 1)[-1] for name in names[0.0]}
    assert rest == {"pos_embed", "cls_token", "bias", "gamma", "beta"}


def test_convnext_spares_biases_norms_and_layer_scale():
    names = by_decay(create(ConvNeXt((1, 2, 1, 1), (4, 4, 4, 4))), decay_norm_and_bias=False)
    assert len(names[0.05]) == 4 + 5 * 3 + 2  # downsampling; three layers of each block; classifier, projection
    assert all(name.endswith(".weight") for name in names[0.05])
    assert len([name for name in names[0.0] if name.split(".")[-1] == "gamma"]) >= 5 + 5 + 4
    assert "backbone.stages.1.1.gamma" in names[0.0]


def test_resnet_decays_everything():
    network = create(ResNet(BasicBlock, (1, 1, 1, 1), width=4))
    assert by_decay(network, decay_norm_and_bias=True) == {0.05: [p.name for p in network.trainable_params()]}
