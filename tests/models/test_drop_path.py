"""Drop path against a NumPy twin in uint32, and how a network uses it."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindspore_gpt4image.models.drop_path import DropPath
from mindspore_gpt4image.models.network import Network
from mindspore_gpt4image.models.vit import VisionTransformer


def murmur3(bits):
    """Its 32-bit finaliser, as published."""
    bits = np.asarray(bits).astype(np.uint32)
    bits = (bits ^ (bits >> 16)) * np.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * np.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def twin(seed, step, rate, blocks, branches, batch):
    key = murmur3(murmur3(murmur3(np.array([seed])) + np.uint32(step)))  # + 0, the stream of drop path
    uniform = (murmur3(murmur3(np.arange(blocks * branches * batch)) + key) >> 8) / 2**24
    rates = np.linspace(0, rate, blocks).reshape(-1, 1, 1)
    return (uniform.reshape(blocks, branches, batch) >= rates) / (1 - rates)


def draw(cell, seed, step, batch):
    cell.state.set_data(Tensor([seed, step], ms.int32))
    return cell(batch).asnumpy()


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def test_equals_the_numpy_twin(mode):
    ms.set_context(mode=mode)
    cell = DropPath(0.4, blocks=5, branches=2)
    for seed, step in [(0, 0), (42, 1), (-7, 2**31 - 1), (2**31 - 1, 600_000)]:
        np.testing.assert_allclose(draw(cell, seed, step, 16), twin(seed, step, 0.4, 5, 2, 16), rtol=1e-6)


def test_expectation_rates_and_independence():
    """The twin, which the cell equals: 4 x 2 x 64 numbers at each of 500 steps; bounds of five standard errors."""
    blocks, steps = 4, 500
    rates = np.linspace(0, 0.6, blocks)
    draws = np.stack([twin(1, step, 0.6, blocks, 2, 64) for step in range(steps)])  # [steps, blocks, branches, rows]
    count = draws[:, 0].size
    for block, rate in enumerate(rates):
        dropped = (draws[:, block] == 0).mean()
        assert abs(dropped - rate) <= 5 * np.sqrt(rate * (1 - rate) / count)
        assert abs(draws[:, block].mean() - 1) <= 5 * np.sqrt(rate / (1 - rate) / count)
    last = draws[:, -1]
    pairs = {
        "steps": (last[:-1], last[1:]),
        "rows": (last[..., :-1], last[..., 1:]),
        "branches": (last[:, 0], last[:, 1]),
        "seeds": (last, np.stack([twin(2, step, 0.6, blocks, 2, 64) for step in range(steps)])[:, -1]),
    }
    for name, (first, second) in pairs.items():
        correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        assert abs(correlation) <= 5 / np.sqrt(first.size), name


def network():
    ms.set_context(mode=ms.GRAPH_MODE)
    backbone = VisionTransformer(32, dim=24, heads=2, depth=3)
    return Network(backbone, backbone.make_classifier(5), nn.Identity(), DropPath(0.5, backbone.num_blocks, 2))


class Step(nn.Cell):
    """As a training step does it: write the state, then run, in one graph."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def construct(self, images, state):
        ops.assign(self.net.drop_path.state, state)
        return self.net(images)[0]


def test_repeats_for_the_same_seed_and_step_and_is_off_in_evaluation():
    net = network()
    step = Step(net)
    images = Tensor(np.random.default_rng(0).standard_normal((8, 3, 32, 32)), ms.float32)

    def logits(seed, number):
        return step(images, Tensor([seed, number], ms.int32)).asnumpy()

    step.set_train()
    first = logits(1, 10)
    assert not np.array_equal(logits(1, 11), first)
    assert not np.array_equal(logits(2, 10), first)
    assert np.array_equal(logits(1, 10), first)
    step.set_train(False)
    assert np.array_equal(logits(1, 10), logits(1, 11))
    assert np.array_equal(logits(1, 10), net.classifier(net.backbone(images)).asnumpy())


def test_a_dropped_branch_adds_nothing():
    """With every branch dropped the blocks are the identity; kept ones count 1 / (1 - rate)."""
    backbone = network().backbone
    images = Tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32)), ms.float32)
    dropped = backbone(images, ops.zeros((3, 2, 2), ms.float32)).asnumpy()
    tokens = backbone.cls_token + backbone.pos_embed[:, :1]
    expected = backbone.norm(tokens)[:, 0].asnumpy()
    np.testing.assert_allclose(dropped, np.repeat(expected, 2, axis=0), rtol=1e-5, atol=1e-6)
    kept = backbone(images, ops.ones((3, 2, 2), ms.float32)).asnumpy()
    np.testing.assert_allclose(kept, backbone(images).asnumpy(), rtol=1e-5, atol=1e-6)
