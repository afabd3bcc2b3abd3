"""Run the launcher as users do, and look at the processes it starts and at what a run leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from mindspore_gpt4image.checkpoint import read_checkpoint
from mindspore_gpt4image.signals import end_with_parent

ROOT = Path(__file__).parents[1]
LAUNCHER = ROOT / "tools" / "run_distribute_train.sh"
TRAIN = ROOT / "tools" / "train.py"
# What differs from run to run.
TIMES = {"images_per_second"}


def launcher(ranks, config, options, environment=(), prefix=()):
    """Start the launcher on CPU; its output is piped, and it ends with the tests.

    Args:
        environment: variables beside those of this process.
        prefix: words before the command, `ip netns exec NAME`.
    """
    command = [*prefix, "bash", LAUNCHER, "-n", ranks, "--config", config, *options]
    environment = {**os.environ, "PYTHON": sys.executable, "DEVICE": "CPU", **dict(environment)}
    return subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent,
    )


def finish(process, code=0, seconds=600):
    """Wait for a launcher; returns its output and error."""
    output, error = process.communicate(timeout=seconds)
    assert process.returncode == code, output + error
    assert "Traceback" not in error.partition("--- last lines")[0]
    return output, error


def one_process(config, options, code=0):
    """Train in one process without the launcher."""
    command = [sys.executable, TRAIN, "--config", config, *options]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == code, result.stderr


def rank_pids(folder, ranks):
    """Process ids by rank of the run's latest launch, once all of them train."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        found = {}
        for log in sorted(folder.glob("logs/*/worker_*.log")):
            said = re.search(r"is process (\d+)\nlogs of rank 0", log.read_text(errors="replace"))
            if said and Path(f"/proc/{said[1]}").exists():
                found[int(log.stem.partition("_")[2])] = int(said[1])
        if len(found) == ranks:
            return [found[rank] for rank in range(ranks)]
        time.sleep(0.2)
    raise AssertionError("the ranks did not start")


def descendants(pid):
    """Process ids of all processes below one, with their command lines."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, below = {}, {pid}
    while below:
        below = {child for child, parent in parents.items() if parent in below}
        found.update(
            (child, Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()) for child in below
        )
    return found


def msrun_pid(launcher):
    (pid,) = [pid for pid, command in descendants(launcher.pid).items() if "mindspore.parallel.cluster.run" in command]
    return pid


def wait_for(path, seconds=300):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.1)


def assert_gone(processes, seconds=10):
    """No process of these is left, but zombies that nobody has waited for yet."""

    def alive(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    deadline = time.monotonic() + seconds
    while left := [pid for pid in processes if alive(pid)]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.1)


def metrics(folder):
    """The lines of `metrics.jsonl` without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def assert_same_run(one, other):
    """Weights, moments and everything else of two runs' states, and their metrics, are equal bit for bit."""
    a, b = read_checkpoint(one), read_checkpoint(other)
    for left, right in ((a.network, b.network), (a.training, b.training)):
        assert left.keys() == right.keys()
        assert [name for name in left if (left[name].asnumpy() != right[name].asnumpy()).any()] == []
    assert metrics(one) == metrics(other)


def exit_code(signum):
    return 128 + signum


SIGKILLED, TERMINATED = exit_code(signal.SIGKILL), exit_code(signal.SIGTERM)
