"""Training on real ranks through the launcher: the losses of one process, clean stops, no process left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_data import make_data_set, overrides

from mindspore_gpt4image.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[2]
# One step an epoch on the joined batch of 2 x 12, so that the lines of metrics.jsonl are the steps. A transformer, as
# BatchNorm's statistics are those of a rank, and pixels without randomness, which a rank draws for itself.
STEPS = {
    "epochs": 4,
    "model__name": "deit_tiny",
    "model__image_size": 32,
    "augment__eval_resize": 32,
    "augment__crop": "none",
    "augment__flip": 0,
    "optimizer__lr": 0.0003,
    "accumulate": 2,
    "ema": 0.5,
    "diagnostics": 1,
}
NAMES = (
    *("train_ce", "train_align", "train_top1", "val_ce", "val_top1", "val_ce_ema"),
    *("batch_r_at_1", "ce_gradient", "align_gradient", "gradient_cosine"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text("loss: {alignment: clip, temperature: 0.2, weight: 1.0}\n")
    return path


def launcher(ranks, config, options):
    command = ["bash", ROOT / "tools" / "run_distribute_train.sh", "-n", ranks, "--config", config, *options]
    # Variables of somebody else's launcher must not matter.
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "MS_ROLE": "MS_WORKER",
        "MS_SCHED_PORT": "1",
        "DEVICE": "CPU",
    }
    return subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process, code=0, seconds=240):
    output, error = process.communicate(timeout=seconds)
    assert process.returncode == code, output + error
    assert "Traceback" not in error
    return output, error


def one_process(config, options):
    command = [sys.executable, ROOT / "tools" / "train.py", "--config", config, *options]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [[line[name] for name in NAMES if name in line] for line in lines]


def pids(folder, ranks):
    """Process ids by rank, once all have started."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        logs = sorted(folder.glob("logs/*/worker_*.log"))
        found = [re.search(r"is process (\d+)", log.read_text(errors="replace")) for log in logs]
        if len(found) == ranks and all(found):
            return [int(match[1]) for match in found]
        time.sleep(0.2)
    raise AssertionError("the ranks did not start")


def wait_for(path):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.1)


def assert_gone(processes):
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in processes):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def joined(data, config, tmp_path_factory):
    """The losses of one process with the joined batch."""
    folder = tmp_path_factory.mktemp("joined") / "run"
    one_process(config, overrides(data, folder, **STEPS, batch_size=12))
    return losses(folder)


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_give_the_losses_of_one_process_step_by_step(data, config, joined, tmp_path, ranks):
    """Within 1e-5 of each loss: float32 sums in another order, through four updates."""
    finish(launcher(ranks, config, overrides(data, tmp_path / "run", **STEPS, batch_size=12 // ranks)))
    for step, (ours, reference) in enumerate(zip(losses(tmp_path / "run"), joined)):
        assert ours == pytest.approx(reference, rel=1e-5), f"step {step}"
    assert len(joined) == 4
    assert joined[3][0] < joined[0][0]


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_equal_and_evaluates_what_it_saved(data, config, tmp_path):
    """BatchNorm, random pixels, 2 ranks: SIGTERM to the launcher, then the same command again."""
    options = overrides(data, tmp_path / "whole", epochs=15)
    finish(launcher(2, config, options))

    options = overrides(data, tmp_path / "stopped", epochs=15)
    process = launcher(2, config, options)
    wait_for(tmp_path / "stopped" / "last.ckpt")
    workers = pids(tmp_path / "stopped", 2)
    process.send_signal(signal.SIGTERM)
    _, error = finish(process, code=128 + signal.SIGTERM)
    assert "stopped by SIGTERM" in error
    assert_gone(workers)
    stopped = read_checkpoint(tmp_path / "stopped").progress
    assert stopped["epoch"] < 15
    finish(launcher(2, config, options))

    whole, resumed = read_checkpoint(tmp_path / "whole"), read_checkpoint(tmp_path / "stopped")
    for name, value in {**whole.network, **whole.training}.items():
        other = {**resumed.network, **resumed.training}[name]
        assert (value.asnumpy() == other.asnumpy()).all(), name
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")

    # One process evaluates the checkpoint of rank 0 as both ranks together did.
    command = [sys.executable, ROOT / "tools" / "eval.py", "--checkpoint", tmp_path / "whole"]
    subprocess.run([*map(str, command), "--json", str(tmp_path / "eval.json")], check=True, capture_output=True)
    evaluated = json.loads((tmp_path / "eval.json").read_text())
    assert [evaluated["ce"], evaluated["top1"]] == pytest.approx(losses(tmp_path / "whole")[-1][3:5], rel=1e-6)


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_with_its_last_lines(data, config, tmp_path):
    process = launcher(2, config, overrides(data, tmp_path / "run", epochs=100000))
    wait_for(tmp_path / "run" / "last.ckpt")
    workers = pids(tmp_path / "run", 2)
    os.kill(workers[1], signal.SIGKILL)
    _, error = finish(process, code=128 + signal.SIGKILL)
    assert "--- last lines of rank 1" in error
    assert error.splitlines()[-1].startswith("error: rank 1 failed with exit code 137")
    assert_gone(workers)
    assert read_checkpoint(tmp_path / "run").progress["epoch"] >= 1


def test_a_mistake_is_one_line_before_anything_starts(data, config, tmp_path):
    _, error = finish(launcher(2, config, [*overrides(data, tmp_path / "run"), "loss.wieght=1"]), code=1)
    assert error.startswith("error: ") and "did you mean loss.weight?" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
