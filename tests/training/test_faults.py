"""Processes killed or stopped at bad moments: none is left behind, and the same command goes on bit for bit."""

import os
import signal
import subprocess
import sys
import time

import pytest
from launching import (
    SIGKILLED,
    TERMINATED,
    TRAIN,
    assert_gone,
    assert_same_run,
    descendants,
    finish,
    launcher,
    metrics,
    msrun_pid,
    one_process,
    rank_pids,
    wait_for,
)
from tiny_data import overrides

from mindspore_gpt4image.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow
EPOCHS = 15  # of 2 steps on 2 ranks, 4 in one process


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text("loss: {alignment: clip, temperature: 0.2, weight: 1.0}\n")
    return path


@pytest.fixture(scope="module")
def whole_on_ranks(data, config, tmp_path_factory):
    """A run of two ranks that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(launcher(2, config, overrides(data, folder, epochs=EPOCHS)))
    return folder


@pytest.fixture(scope="module")
def whole(data, config, tmp_path_factory):
    """The same of one process."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    one_process(config, overrides(data, folder, epochs=EPOCHS))
    return folder


@pytest.mark.parametrize("victim", ["rank 0", "rank 1", "launcher", "msrun"])
def test_a_killed_process_takes_all_with_it_and_the_run_goes_on(data, config, whole_on_ranks, tmp_path, victim):
    options = overrides(data, tmp_path / "run", epochs=EPOCHS)
    process = launcher(2, config, options)
    wait_for(tmp_path / "run" / "last.ckpt")
    ranks = rank_pids(tmp_path / "run", 2)
    processes = descendants(process.pid)
    assert set(ranks) < set(processes) and len(processes) == 4  # msrun, scheduler, ranks: no data workers
    pids = {"rank 0": ranks[0], "rank 1": ranks[1], "launcher": process.pid, "msrun": msrun_pid(process)}
    os.kill(pids[victim], signal.SIGKILL)
    killed = time.monotonic()
    code = -signal.SIGKILL if victim == "launcher" else SIGKILLED
    _, error = finish(process, code=code, seconds=30)
    assert_gone(processes)
    assert time.monotonic() - killed < 30
    if victim != "launcher":
        assert error.splitlines()[-1].startswith(f"error: {victim} failed with exit code 137")
    assert read_checkpoint(tmp_path / "run").progress["epoch"] < EPOCHS
    finish(launcher(2, config, options))
    assert_same_run(tmp_path / "run", whole_on_ranks)


@pytest.mark.parametrize("receiver", ["launcher", "rank 1"])
def test_sigterm_on_ranks(data, config, whole_on_ranks, tmp_path, receiver):
    """At the launcher, which passes it on, and at one rank, whose word the others take."""
    options = overrides(data, tmp_path / "run", epochs=EPOCHS)
    process = launcher(2, config, options)
    wait_for(tmp_path / "run" / "last.ckpt")
    processes = descendants(process.pid)
    pid = process.pid if receiver == "launcher" else rank_pids(tmp_path / "run", 2)[1]
    os.kill(pid, signal.SIGTERM)
    _, error = finish(process, code=TERMINATED)
    assert "stopped by SIGTERM; the same command goes on from last.ckpt" in error
    assert_gone(processes)
    assert read_checkpoint(tmp_path / "run").progress["epoch"] < EPOCHS
    finish(launcher(2, config, options))
    assert_same_run(tmp_path / "run", whole_on_ranks)


# tools/train.py, which gets a real SIGTERM in the middle of the third save or evaluation. Signals are blocked before
# MindSpore is imported, as the tool itself does it.
SIGNALLED = """
import os, runpy, signal, sys
from mindspore_gpt4image.signals import SIGNALS
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
import mindspore
from mindspore_gpt4image.training import loop

moment, tool, *sys.argv[1:] = sys.argv[1:]
calls = 0

def signalled(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == 3:
            print(f"signalled in {moment}", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*args, **kwargs)
    return call

if moment == "save":
    mindspore.save_checkpoint = signalled(mindspore.save_checkpoint)
else:
    predict_on_ranks = loop.predict_on_ranks
    loop.predict_on_ranks = lambda classify, *args: predict_on_ranks(signalled(classify), *args)
sys.argv[0] = tool
runpy.run_path(tool, run_name="__main__")
"""


@pytest.mark.parametrize("moment", ["save", "evaluation"])
def test_sigterm_in_a_save_and_in_an_evaluation(data, config, whole, tmp_path, moment):
    options = overrides(data, tmp_path / "run", epochs=EPOCHS)
    command = [sys.executable, "-c", SIGNALLED, moment, TRAIN, "--config", config, *options]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == TERMINATED, result.stderr
    assert f"signalled in {moment}" in result.stderr and "Traceback" not in result.stderr
    # The save or the evaluation was finished, and the next step taken.
    progress = read_checkpoint(tmp_path / "run").progress
    assert progress["step"] == 1 and len(metrics(tmp_path / "run")) == progress["epoch"] >= 1
    one_process(config, options)
    assert_same_run(tmp_path / "run", whole)


def test_sigterm_in_an_epoch(data, config, whole, tmp_path):
    options = overrides(data, tmp_path / "run", epochs=EPOCHS)
    command = list(map(str, [sys.executable, TRAIN, "--config", config, *options]))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(tmp_path / "run" / "last.ckpt")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == TERMINATED
    one_process(config, options)
    assert_same_run(tmp_path / "run", whole)
