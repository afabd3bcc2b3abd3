"""Update rules and groups of weight decay, against PyTorch."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Parameter, Tensor

from mindspore_gpt4image.models import create_network
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


def test_vectors_and_embeddings_are_spared():
    network = create_network("deit_tiny", 10, text_dim=8, image_size=32)
    decayed, spared = decay_groups(network.trainable_params(), 0.05, decay_norm_and_bias=False)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    names = {parameter.name for parameter in spared["params"]}
    assert {"backbone.pos_embed", "backbone.cls_token", "classifier.bias"} <= names
    assert all(parameter.ndim >= 2 and "embed" not in parameter.name.split(".")[-1] for parameter in decayed["params"])
    assert "projection.weight" in {parameter.name for parameter in decayed["params"]}
    assert len(decayed["params"]) + len(spared["params"]) == len(network.trainable_params())
