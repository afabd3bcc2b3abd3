"""One step of training: what it changes, and what a bad gradient must not change."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindspore_gpt4image.losses import GPT4ImageLoss
from mindspore_gpt4image.models import Preprocess, create_network, weights
from mindspore_gpt4image.training.optimizer import create_optimizer
from mindspore_gpt4image.training.precision import LossScale, create_loss_scale, use_mixed_precision
from mindspore_gpt4image.training.step import TrainStep, all_finite

BATCH, SIDE, TEXT_DIM, CLASSES = 4, 16, 8, 3


def make_step(name="resnet10_cifar_half", amp="O0", **options):
    ms.set_seed(0)
    network = create_network(name, CLASSES, text_dim=TEXT_DIM, image_size=SIDE)
    use_mixed_precision(network, amp)
    optimizer = create_optimizer(network.trainable_params(), "sgd", lr=1.0, weight_decay=0.0)
    preprocess = Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    step = TrainStep(network, preprocess, GPT4ImageLoss("infonce", 1.0, 0.1), optimizer, **options)
    return network.set_train(True), step


def make_batch(seed=0, rows=BATCH):
    random = np.random.default_rng(seed)
    text = random.standard_normal((rows, TEXT_DIM)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return [
        Tensor(random.integers(0, 256, (rows, SIDE, SIDE, 3)).astype(np.uint8)),
        Tensor(random.integers(0, CLASSES, rows).astype(np.int32)),
        Tensor(text),
        Tensor(np.arange(rows, dtype=np.int32)),
    ]


def call(step, batch, lr=0.05, last=True):
    flags = Tensor(lr, ms.float32), Tensor([0, 0], ms.int32), Tensor(0, ms.float32), Tensor(last)
    return step(*flags, *batch).asnumpy()


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


def test_micro_batches_make_the_step_of_the_joined_batch():
    """With the cosine alignment, in which rows do not compete; a transformer, whose rows do not meet in a BatchNorm."""

    def weights_after(rows, accumulate, calls):
        ms.set_seed(0)
        network = create_network("deit_tiny", CLASSES, text_dim=TEXT_DIM, image_size=SIDE).set_train(True)
        optimizer = create_optimizer(network.trainable_params(), "sgd", lr=1.0, weight_decay=0.0)
        loss = GPT4ImageLoss("cosine", 1.0)
        step = TrainStep(network, Preprocess((0.5,) * 3, (0.25,) * 3), loss, optimizer, accumulate=accumulate)
        before = network.classifier.weight.asnumpy().copy()
        batch = make_batch(rows=6)
        for number in range(calls):
            part = [Tensor(x.asnumpy()[number * rows : (number + 1) * rows]) for x in batch]
            taken = call(step, part, lr=0.1, last=number == calls - 1)[3]
            assert taken == (number == calls - 1)
            if number < calls - 1:
                assert (network.classifier.weight.asnumpy() == before).all()
        # A second step, in which what was accumulated for the first must not count.
        for number in range(calls):
            part = [Tensor(x.asnumpy()[number * rows : (number + 1) * rows]) for x in batch]
            call(step, part, lr=0.1, last=number == calls - 1)
        return {p.name: p.asnumpy() for p in network.trainable_params()}

    joined, parts = weights_after(6, 1, 1), weights_after(2, 3, 3)
    for name, value in joined.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-4, atol=2e-6, err_msg=name)


def test_a_bad_micro_batch_undoes_its_whole_step():
    network, step = make_step(accumulate=2, ema_decay=0.5)
    bad = make_batch()
    bad[2] = Tensor(np.full((BATCH, TEXT_DIM), np.nan, np.float32))
    before = snapshot(network, step)
    call(step, bad, last=False)
    assert call(step, make_batch())[3] == 0
    after = snapshot(network, step)
    assert [name for name, value in before.items() if (after[name] != value).any() and name != "learning_rate"] == []
    call(step, make_batch(), last=False)
    assert call(step, make_batch())[3] == 1


def test_moving_average_follows_its_equation_and_can_be_looked_at():
    decay = 0.75
    network, step = make_step(ema_decay=decay)
    expected = {name: p.asnumpy().copy() for name, p in weights(network).items()}
    for seed in range(3):
        call(step, make_batch(seed))
        now = {name: p.asnumpy().copy() for name, p in weights(network).items()}
        expected = {name: decay * value + (1 - decay) * now[name] for name, value in expected.items()}
    state = step.state()
    assert {name for name in state if name.startswith("ema.")} == {f"ema.{name}" for name in expected}
    for name, value in expected.items():
        np.testing.assert_allclose(state[f"ema.{name}"].asnumpy(), value, rtol=1e-5, atol=1e-7, err_msg=name)
    averages = {name: state[f"ema.{name}"].asnumpy().copy() for name in expected}
    step.swap_averages()
    assert all((weights(network)[name].asnumpy() == value).all() for name, value in averages.items())
    step.swap_averages()
    assert all((weights(network)[name].asnumpy() == value).all() for name, value in now.items())
    assert all((state[f"ema.{name}"].asnumpy() == value).all() for name, value in averages.items())


def test_a_fixed_loss_scale_changes_nothing_but_rounding():
    plain_network, plain_step = make_step()
    network, step = make_step(loss_scale=create_loss_scale("O0", 1024.0))
    for _ in range(3):
        call(plain_step, make_batch())
        call(step, make_batch())
    for one, other in zip(plain_network.get_parameters(), network.get_parameters()):
        np.testing.assert_allclose(other.asnumpy(), one.asnumpy(), rtol=1e-4, atol=1e-6, err_msg=one.name)
    assert step.loss_scale.value.asnumpy() == 1024


def test_a_dynamic_loss_scale_is_halved_by_overflow_and_doubles_after_good_steps():
    network, step = make_step(loss_scale=LossScale(2.0**16, window=2))
    bad = make_batch()
    bad[2] = Tensor(np.full((BATCH, TEXT_DIM), np.inf, np.float32))
    scales = []
    for batch in (make_batch(), bad, make_batch(), make_batch(), make_batch(), make_batch()):
        call(step, batch)
        scales.append(float(step.state()["loss_scale"].asnumpy()) / 2**16)
    assert scales == [1, 0.5, 0.5, 1, 1, 2]


def test_float16_trains_with_float32_weights_and_a_float32_similarity():
    network, step = make_step(amp="O2", loss_scale=create_loss_scale("O2", None))
    full_network, full = make_step()
    batch = make_batch()
    results = [call(step, batch) for _ in range(8)]
    expected = call(full, batch)
    assert results[0][0] == pytest.approx(expected[0], rel=2e-2) and results[0][0] != expected[0]
    assert results[0][1] == pytest.approx(expected[1], rel=2e-2)
    assert results[-1][0] < results[0][0]
    assert {str(p.dtype) for p in network.get_parameters()} == {"Float32"}
    assert [p.name for p in network.get_parameters()] == [p.name for p in full_network.get_parameters()]


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
