"""What tools/benchmark.py measures and how it reports it. Nothing here is timed."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from mindspore_gpt4image.benchmark.alignment import OurRank, ReleasedRank, work_of
from mindspore_gpt4image.benchmark.measure import compare, comparison_of, median_interval, milliseconds, percentile_of

BENCHMARK = Path(__file__).parents[2] / "tools" / "benchmark.py"


class Stub:
    """An arm that gives prepared numbers and notes its turns."""

    def __init__(self, name, turns, values):
        self.name, self.turns, self.values = name, turns, iter(values)

    def __call__(self):
        self.turns.append(self.name)
        return next(self.values)


def compare_stubs(ours, peer, **options):
    turns = []
    row = compare("a", Stub("ours", turns, ours), Stub("peer", turns, peer), unit="ms", runs=len(ours), **options)
    return row, turns


def test_both_are_measured_in_turns():
    _, turns = compare_stubs([1] * 4, [1] * 4)
    assert turns == ["ours", "peer", "peer", "ours", "ours", "peer", "peer", "ours"]


def test_the_ratio_is_the_median_of_the_pairs():
    """Ratios 1/1, 8/4, 3/1: median 2, where the ratio of the medians is 3/1."""
    row, _ = compare_stubs([1, 8, 3], [1, 4, 1], goal=2.0)
    assert row.ratio == 2
    assert (row.ours, row.peer, row.runs) == (3, 1, 3)


def test_the_keys_of_the_json():
    row, _ = compare_stubs([3], [2])
    assert json.loads(json.dumps(asdict(row))) == {
        "name": "a",
        "ratio": 1.5,
        "interval": [1.5, 1.5],
        "goal": None,
        "better": "lower",
        "ours": 3.0,
        "peer": 2.0,
        "unit": "ms",
        "runs": 1,
    }


@pytest.mark.parametrize(
    ("goal", "better", "end"),
    [
        (1.5, "lower", "  1.5 met"),
        (1.4, "lower", "  1.4 MISSED"),
        (1.5, "higher", "  1.5 met"),
        (2, "higher", "  2 MISSED"),
        (None, "lower", "  -"),
    ],
)
def test_the_table_says_whether_the_goal_is_met(goal, better, end):
    row, _ = compare_stubs([3], [2], goal=goal, better=better)
    assert row.line().endswith(end)


def test_interval_of_the_median():
    """Of three values the median of a resample is 1 where at least two of its three draws are: 7 of 27 times.

    So are 2.5% and 97.5% the smallest and the largest value; of equal values there is only one.
    """
    assert median_interval([1.0, 2.0, 9.0]) == (1, 9)
    assert median_interval([2.0, 2.0, 2.0]) == (2, 2)


def test_interval_of_many_values_is_that_of_the_binomial():
    """The ranks between which the median of 400 lies at 95% are 200 ± 1.96 · sqrt(400) / 2."""
    low, high = median_interval(np.random.default_rng(3).permutation(np.arange(400.0)))
    assert low == pytest.approx(180, abs=2)
    assert high == pytest.approx(219, abs=2)


def test_a_percentile_is_compared_with_the_same_one_of_the_peer():
    """Of 0 to 100, the 90th percentile is 90; doubled it is 180."""
    values = np.arange(101.0)
    row = percentile_of("tail", 2 * values, values, percent=90, unit="ms")
    assert (row.ours, row.peer, row.ratio, row.interval) == (180, 90, 2, (2, 2))
    apart = percentile_of("tail", values[::-1], values, percent=90, unit="ms")
    assert apart.ratio == 1
    assert apart.interval[0] < 1 < apart.interval[1]


def test_images_a_second_are_better_when_higher():
    row = comparison_of("speed", np.array([4.0, 6.0]), np.array([2.0, 3.0]), unit="img/s", goal=1.5, better="higher")
    assert (row.ratio, row.is_met, row.runs) == (2, True, 2)


@pytest.mark.slow
def test_pytorch_has_the_weights_of_the_exported_network(tmp_path):
    from mindspore_gpt4image.benchmark.infer import exported, random_network, torch_logits
    from mindspore_gpt4image.benchmark.step import SIDE, random_images

    pixels, _ = random_images(2, SIDE)
    for name in ("resnet50", "deit_small", "convnext_tiny"):
        network = random_network(name, "none")
        ours = exported(network, name, tmp_path / name / "a.onnx")(pixels)
        assert np.abs(torch_logits(name, network)(pixels) - ours).max() < 1e-4 * max(1, np.abs(ours).max())


def test_a_timed_call_is_warmed_up_and_then_called_once_a_measurement():
    calls = []
    measure = milliseconds(lambda: calls.append(0))
    assert len(calls) == 2
    assert measure() > 0
    assert len(calls) == 3


@pytest.mark.parametrize("ranks", [1, 3])
def test_both_ranks_compute_the_same_loss(ranks):
    """The gradient of the released formula is 1/R of ours: see golden/README.md."""
    value, gradient = work_of(OurRank(ranks), batch=8)()
    released_value, released_gradient = work_of(ReleasedRank(ranks), batch=8)()
    assert value == pytest.approx(released_value, rel=1e-6)
    assert np.abs(gradient).max() > 1e-3
    assert gradient / ranks == pytest.approx(released_gradient, rel=1e-4, abs=1e-7)


@pytest.mark.slow
def test_our_step_and_mindcvs_train_alike():
    """Same weights, pixels, optimizer: the same losses step by step."""
    from mindspore_gpt4image.benchmark.step import mindcv_step, our_step

    ours, mindcv = our_step("resnet18", 8, 64, "none"), mindcv_step("resnet18", 8, 64)
    losses = np.array([(ours()[0], mindcv()) for _ in range(4)])
    assert losses[:, 0] == pytest.approx(losses[:, 1], rel=1e-5)
    assert losses[3, 0] < losses[0, 0]


@pytest.mark.parametrize("name", ["resnet50", "deit_small", "convnext_tiny"])
def test_pytorchs_network_has_as_many_weights(name):
    from mindspore_gpt4image.benchmark.step import CLASSES, torch_network
    from mindspore_gpt4image.models import create_network, deployable

    ours = deployable(create_network(name, CLASSES, projection="none"))
    peer = torch_network(name, 224)
    assert sum(p.numel() for p in peer.parameters()) == sum(p.size for p in ours.trainable_params())


def test_encoding_gives_what_the_released_loop_gives(tmp_path):
    from mindspore_gpt4image.benchmark.encode import Task, random_clip, random_texts, write_set
    from mindspore_gpt4image.offline.text_encoder import TextEncoder

    text_model = random_clip(width=64, layers=1)
    encoder, other = TextEncoder("ours", text_model), TextEncoder("other", random_clip(width=64, layers=1))
    other._model.text_projection.weight.mul_(-1)
    texts = random_texts(20, (6, 100)) * 2
    lengths = encoder.token_counts(texts)
    assert (lengths.min(), lengths.max(), len(set(texts))) == (6, 100, 20)
    task, descriptions = Task(tmp_path, text_model), write_set(tmp_path / "set.jsonl", texts)
    for measure in (task.encode(encoder, descriptions), task.encode(other, descriptions), task.released(descriptions)):
        assert measure() > 0
    assert task.agreement("a", encoder, descriptions).ratio == pytest.approx(1, abs=1e-6)
    assert task.agreement("a", other, descriptions).ratio == pytest.approx(-1, abs=1e-6)


def run(*arguments):
    command = [sys.executable, BENCHMARK, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_place_that_cannot_be_written_to_is_told_before_anything_is_measured(tmp_path):
    result = run("step", "--json", tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [f"error: {tmp_path}: cannot be written (Is a directory)"]


def test_wrong_syntax_exits_2():
    assert run().returncode == 2
    assert run("step", "--slow").returncode == 2
