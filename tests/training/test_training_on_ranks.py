"""Training on real ranks through the launcher: the losses of one process, and mistakes told before anything starts."""

import functools
import json
import subprocess
import sys

import pytest
from launching import ROOT, finish, launcher, metrics, one_process
from tiny_data import overrides
from without_randomness import STEPS

from mindspore_gpt4image.losses import ALIGNMENTS


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text("loss: {temperature: 0.2, weight: 1.0}\n")
    return path


def steps(alignment):
    return {**STEPS, "loss__alignment": alignment, "diagnostics": 0 if alignment == "none" else 1}


@pytest.fixture(scope="module")
def joined(data, config, tmp_path_factory):
    """The metrics of one process with the joined batch, by alignment."""

    @functools.cache
    def run(alignment):
        folder = tmp_path_factory.mktemp("joined") / "run"
        one_process(config, overrides(data, folder, **steps(alignment), batch_size=12))
        return metrics(folder)

    return run


@pytest.mark.parametrize(
    ("ranks", "alignment"),
    [
        pytest.param(ranks, alignment, marks=[] if (ranks, alignment) == (2, "clip") else pytest.mark.slow)
        for ranks in (2, 3, 4)
        for alignment in ALIGNMENTS
    ],
)
def test_ranks_give_the_losses_of_one_process_step_by_step(data, config, joined, tmp_path, ranks, alignment):
    """Within 1e-5 of each loss: float32 sums in another order, through four updates."""
    options = overrides(data, tmp_path / "run", **steps(alignment), batch_size=12 // ranks)
    # Variables of somebody else's launcher must not matter.
    _, error = finish(launcher(ranks, config, options, {"MS_ROLE": "MS_WORKER", "MS_SCHED_PORT": "1"}))
    assert "note: MS_ROLE, MS_SCHED_PORT: set by some other launcher, and ignored" in error
    for ours, reference in zip(metrics(tmp_path / "run"), joined(alignment)):
        assert ours.keys() == reference.keys()
        assert ours == pytest.approx(reference, rel=1e-5, abs=1e-6)
    losses = [line["train_ce"] for line in joined(alignment)]
    assert len(losses) == STEPS["epochs"] and losses[-1] < losses[0]


@pytest.mark.slow
def test_one_process_evaluates_the_checkpoint_as_both_ranks_together_did(data, config, tmp_path):
    """With BatchNorm, of which rank 0's statistics are evaluated and saved, and random pixels."""
    finish(launcher(2, config, overrides(data, tmp_path / "run")))
    command = [sys.executable, ROOT / "tools" / "eval.py", "--checkpoint", tmp_path / "run"]
    subprocess.run([*map(str, command), "--json", str(tmp_path / "eval.json")], check=True, capture_output=True)
    evaluated, last = json.loads((tmp_path / "eval.json").read_text()), metrics(tmp_path / "run")[-1]
    assert [evaluated["ce"], evaluated["top1"]] == pytest.approx([last["val_ce"], last["val_top1"]], rel=1e-6)


@pytest.mark.parametrize(
    ("changed", "variables", "message"),
    [
        ("loss.wieght=1", {}, "did you mean loss.weight?"),
        ("device=GPU", {"DEVICE": "GPU"}, "-n 2: needs as many devices of GPU, "),
        ("seed=1", {"NNODES": "2"}, "MASTER_ADDR is not set: NNODES=2 needs it"),
        ("output=/dev/null/run", {}, "/dev/null/run/logs/"),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(data, config, tmp_path, changed, variables, message):
    process = launcher(2, config, [*overrides(data, tmp_path / "run"), changed], variables)
    _, error = finish(process, code=1, seconds=60)
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_check_tells_what_would_fail_on_so_many_ranks(data, config, tmp_path):
    options = overrides(data, tmp_path / "run", batch_size=6)
    output, _ = finish(launcher(2, config, [*options, "--check"]))
    assert "ranks    2 on CPU" in output and "ranks    2 steps an epoch" in output
    assert output.splitlines()[-1] == "training can start"
    output, error = finish(launcher(5, config, [*options, "--check"]), code=1)
    assert "launch   5 ranks share" in output
    assert error.splitlines()[-1].startswith("error: training would fail: batch_size=6 on 5 rank(s) needs 30 images")
    assert not (tmp_path / "run").exists()
