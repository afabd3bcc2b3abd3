"""What diagnostics say, against gradients of finite differences and a full matrix; and that they change nothing."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindspore_gpt4image.losses import GPT4ImageLoss
from mindspore_gpt4image.models import Preprocess, create_network
from mindspore_gpt4image.training.diagnostics import Diagnostics, summarise, totals
from mindspore_gpt4image.training.optimizer import create_optimizer
from mindspore_gpt4image.training.step import TrainStep

BATCH, SIDE, TEXT_DIM, CLASSES, WEIGHT, TAU = 6, 16, 5, 3, 0.7, 0.2


@pytest.fixture(scope="module")
def looked_at():
    """The network, the batch, the sums, and the parameters before and after."""
    ms.set_seed(3)
    network = create_network("resnet10_cifar_half", CLASSES, text_dim=TEXT_DIM, projection="mlp").set_train(True)
    optimizer = create_optimizer(network.trainable_params(), "sgd", lr=1.0, weight_decay=0.0)
    step = TrainStep(network, Preprocess((0.5,) * 3, (0.25,) * 3), GPT4ImageLoss("infonce", WEIGHT, TAU), optimizer)
    random = np.random.default_rng(0)
    text = random.standard_normal((BATCH, TEXT_DIM)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    ids = np.array([0, 1, 2, 1, -1, 5], np.int32)
    text[3] = text[1]
    text[4] = 0
    images = random.integers(0, 256, (BATCH, SIDE, SIDE, 3)).astype(np.uint8)
    labels = random.integers(0, CLASSES, BATCH).astype(np.int32)
    before = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    sums = Diagnostics(step)(Tensor([0, 0], ms.int32), *map(Tensor, (images, labels, text, ids))).asnumpy()
    after = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    return network, (images, labels, text, ids), sums, before, after


def test_nothing_changes(looked_at):
    *_, before, after = looked_at
    assert [name for name in before if (before[name] != after[name]).any()] == []


def test_gradients_and_retrieval_equal_numpy(looked_at):
    network, (images, labels, text, ids), sums, before, _ = looked_at
    feature = network.feature(Preprocess((0.5,) * 3, (0.25,) * 3)(Tensor(images))).asnumpy().astype(np.float64)
    w, b = before["classifier.weight"].astype(np.float64), before["classifier.bias"].astype(np.float64)
    logits = feature @ w.T + b
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    ce_gradient = (p - np.eye(CLASSES)[labels]) @ w

    hidden_w = before["projection.0.weight"].astype(np.float64)
    gamma, beta = before["projection.1.gamma"], before["projection.1.beta"]
    out_w, out_b = before["projection.3.weight"].astype(np.float64), before["projection.3.bias"]

    def project(f):
        hidden = f @ hidden_w.T
        hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5) * gamma + beta
        z = np.maximum(hidden, 0) @ out_w.T + out_b
        return z / np.linalg.norm(z, axis=1, keepdims=True)

    pair = np.eye(BATCH, dtype=bool) | ((ids[:, None] != ids) & (ids[:, None] >= 0) & (ids >= 0))

    def align(f):
        scores = np.where(pair, project(f) @ text.T.astype(np.float64) / TAU, -np.inf)
        rows = np.log(np.exp(scores).sum(1)) - np.diag(scores)
        return WEIGHT * rows[ids >= 0].sum()  # diagnostics have B times the mean over B

    align_gradient = np.zeros_like(feature)
    for index in np.ndindex(*feature.shape):
        shift = np.zeros_like(feature)
        shift[index] = 1e-5
        align_gradient[index] = (align(feature + shift) - align(feature - shift)) / 2e-5

    scores = np.where(pair & (ids[:, None] >= 0) & (ids >= 0), project(feature) @ text.T, -np.inf)
    right = sum(scores[i].argmax() == i for i in range(BATCH) if ids[i] >= 0)
    expected = [right, 5, (ce_gradient**2).sum(), (align_gradient**2).sum(), (ce_gradient * align_gradient).sum()]
    np.testing.assert_allclose(sums, expected, rtol=2e-3)


def test_summary_of_two_looks():
    looks = totals(np.array([3, 4, 9.0, 4.0, 3.0]), 2) + totals(np.array([1, 4, 1.0, 16.0, -4.0]), 2)
    assert summarise(looks) == {
        "batch_r_at_1": 50.0,
        "ce_gradient": pytest.approx((3 / 2 + 1 / 2) / 2),
        "align_gradient": pytest.approx((2 / 2 + 4 / 2) / 2),
        "gradient_cosine": pytest.approx((3 / 6 - 4 / 4) / 2),
    }
    assert summarise([0.0] * 6) == {}
    assert totals(np.array([0, 4, 1.0, 0.0, 0.0]), 2)[4] == 0
