"""Weak scaling: a training step on 1 and on 2 ranks of this machine's CPU with the same batch on each.

Each rank has one core and computes in one thread. Started as a module this is one of the ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mindspore_gpt4image.benchmark.measure import Comparison, comparison_of, measure_in_turns
from mindspore_gpt4image.cluster import free_port, rank_environment

NETWORK, BATCH, SIDE = "resnet50", 8, 112
ALIGNED, BASELINE = "infonce", "none"


def comparisons(quick: bool) -> Iterator[Comparison]:
    """Each arm's efficiency, the time of its step on 1 rank / on 2, and that of the aligned arm against the baseline's.

    Both arms take turns in the same processes, of which those on 1 and on 2 ranks take turns too. Quick: fewer of both.
    """
    launches, runs = (1, 5) if quick else (4, 15)
    measured = {1: [], 2: []}
    for number in range(launches):
        for ranks in (1, 2) if number % 2 == 0 else (2, 1):
            measured[ranks].append(measure(ranks, runs))
    alone, together = (np.concatenate(measured[ranks], axis=1) for ranks in (1, 2))
    of = f"{NETWORK}, {SIDE} px, batch {BATCH} a rank"
    for arm, *times in zip(("aligned", "baseline"), alone, together):
        yield comparison_of(f"{arm} step on 1 rank against 2, {of}", *times, unit="ms", better="higher")
    efficiencies = alone / together
    yield comparison_of(
        f"efficiency, aligned against baseline, {of}", *efficiencies, unit="", goal=0.98, better="higher"
    )


def measure(ranks: int, runs: int) -> np.ndarray:
    """Milliseconds of each step on that many ranks, as rank 0 sees them: [aligned, baseline] x [runs]."""
    environment = rank_environment("CPU", os.environ)
    environment["OMP_NUM_THREADS"] = "1"
    with TemporaryDirectory() as folder:
        result = Path(folder, "milliseconds.json")
        command = [
            *(sys.executable, "-m", "mindspore.parallel.cluster.run"),
            *(f"--worker_num={ranks}", f"--local_worker_num={ranks}", f"--master_port={free_port()}"),
            *(f"--log_dir={folder}", "--join=True"),
            *("python", "-m", "mindspore_gpt4image.benchmark.scaling", str(result), str(runs)),
        ]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        if done.returncode:
            logs = "".join(log.read_text(errors="replace")[-2000:] for log in sorted(Path(folder).glob("*.log")))
            raise RuntimeError(f"{ranks} ranks: exit {done.returncode}\n{logs}")
        return np.array(json.loads(result.read_text()))


def _measure_as_rank(result: Path, runs: int) -> None:
    # Before MindSpore starts threads, which go by it.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ.get("RANK_ID", 0)) % len(cores)]})

    import mindspore as ms

    from mindspore_gpt4image import distributed
    from mindspore_gpt4image.benchmark.measure import milliseconds
    from mindspore_gpt4image.benchmark.step import our_step

    ms.runtime.dispatch_threads_num(1)
    ms.device_context.cpu.op_tuning.threads_num(1)
    distributed.join_world("CPU")
    arms = [milliseconds(our_step(NETWORK, BATCH, SIDE, alignment)) for alignment in (ALIGNED, BASELINE)]
    distributed.wait_for_ranks()
    times = measure_in_turns(*arms, runs)
    if distributed.rank() == 0:
        result.write_text(json.dumps([arm.tolist() for arm in times]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("result", type=Path)
    parser.add_argument("runs", type=int)
    _measure_as_rank(**vars(parser.parse_args()))
