"""One step of training: what it changes, and what a bad gradient must not change."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindspore_gpt4image.losses import GPT4ImageLoss
from mindspore_gpt4image.models import Preprocess, create_network
from mindspore_gpt4image.training.optimizer import create_optimizer
from mindspore_gpt4image.training.step import TrainStep, all_finite

BATCH, SIDE, TEXT_DIM, CLASSES = 4, 16, 8, 3


def make_step(**options):
    ms.set_seed(0)
    network = create_network("resnet10_cifar_half", CLASSES, text_dim=TEXT_DIM)
    optimizer = create_optimizer(network.trainable_params(), "sgd", lr=1.0, weight_decay=0.0)
    preprocess = Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    step = TrainStep(network, preprocess, GPT4ImageLoss("infonce", 1.0, 0.1), optimizer, **options)
    return network.set_train(True), step


def make_batch(seed=0):
    random = np.random.default_rng(seed)
    text = random.standard_normal((BATCH, TEXT_DIM)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return [
        Tensor(random.integers(0, 256, (BATCH, SIDE, SIDE, 3)).astype(np.uint8)),
        Tensor(random.integers(0, CLASSES, BATCH).astype(np.int32)),
        Tensor(text),
        Tensor(np.arange(BATCH, dtype=np.int32)),
    ]


def call(step, batch, lr=0.05):
    return step(Tensor(lr, ms.float32), Tensor([0, 0], ms.int32), Tensor(0, ms.float32), *batch).asnumpy()


def snapshot(network, step):
    return {p.name: p.asnumpy().copy() for p in [*network.get_parameters(), *step.state().values()]}


@pytest.fixture(scope="module")
def plain():
    return make_step()


def test_losses_fall_on_one_batch(plain):
    _, step = plain
    batch = make_batch()
    results = [call(step, batch) for _ in range(15)]
    assert results[-1][0] < 0.5 * results[0][0]
    assert results[-1][1] < 0.9 * results[0][1]
    assert results[-1][2] == BATCH
    assert all(result[3] == 1 for result in results)


def test_a_gradient_that_is_not_finite_changes_nothing_and_the_next_step_goes_on(plain):
    network, step = plain
    call(step, make_batch())
    before = snapshot(network, step)
    batch = make_batch()
    batch[2] = Tensor(np.full((BATCH, TEXT_DIM), np.inf, np.float32))
    assert call(step, batch)[3] == 0
    after = snapshot(network, step)
    changed = [name for name, value in before.items() if (after[name] != value).any() and name != "learning_rate"]
    assert changed == []
    assert call(step, make_batch())[3] == 1
    moved = snapshot(network, step)
    assert (moved["backbone.conv1.weight"] != before["backbone.conv1.weight"]).any()


def test_the_learning_rate_of_the_call_is_what_counts(plain):
    network, step = plain
    before = network.classifier.weight.asnumpy().copy()
    call(step, make_batch(), lr=0.0)
    assert (network.classifier.weight.asnumpy() == before).all()


def test_clipping_bounds_the_global_norm_of_the_update():
    network, step = make_step(clip_norm=0.01)
    before = [p.asnumpy().copy() for p in network.trainable_params()]
    call(step, make_batch(), lr=1.0)
    moved = [p.asnumpy() - old for p, old in zip(network.trainable_params(), before)]
    norm = np.sqrt(sum((difference.astype(np.float64) ** 2).sum() for difference in moved))
    assert norm == pytest.approx(0.01, rel=1e-3)


class AllFinite(nn.Cell):
    def construct(self, *gradients):
        return all_finite(gradients)


@pytest.fixture(scope="module")
def all_finite_cell():
    return AllFinite()


@pytest.mark.parametrize(("value", "expected"), [(np.nan, False), (np.inf, False), (-np.inf, False), (1e18, True)])
@pytest.mark.parametrize("position", range(3))
def test_one_bad_number_in_any_gradient_is_found(all_finite_cell, value, expected, position):
    gradients = [np.ones((2, 3, 1, 1), np.float32), np.zeros((4, 3), np.float32), np.full(4, -2, np.float32)]
    gradients[position].flat[-1] = value
    assert all_finite_cell(*map(Tensor, gradients)).asnumpy() == expected
