"""Start this machine's ranks of a training run through msrun, and stay with them until they end."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from mindspore_gpt4image.cluster import Cluster, check_address, check_devices, launcher_variables, rank_environment
from mindspore_gpt4image.config import Config, load_config
from mindspore_gpt4image.errors import UserError, run_command
from mindspore_gpt4image.runs import finished_summary
from mindspore_gpt4image.signals import SIGNALS, end_with_parent, exit_code

TRAIN = Path(__file__).parents[1] / "tools" / "train.py"
LAST_LINES = 15
# In rank 0's folder of logs: what failed on some node, for the launchers of the others. It is there, and empty, from
# the start: network file systems may hide a new file for a minute, but not what is added to one.
FAILURE = "failure.txt"


class Ranks:
    """The processes of one run on this machine: msrun, a worker for each rank and, on node 0, the scheduler.

    Each ends with its parent (`end_with_parent`), so none outlives this one. msrun would end its workers on SIGINT and
    leave them behind on SIGTERM; it runs in a session of its own, where no signal of the terminal reaches it, and
    signals go to the workers directly.
    """

    def __init__(self, cluster: Cluster, arguments: list[str], device: str, logs: Path):
        self.cluster, self.logs = cluster, logs
        self._failures: Path | None = None
        environment = rank_environment(device, os.environ)
        command = [
            *(sys.executable, "-m", "mindspore.parallel.cluster.run"),
            *(f"--worker_num={cluster.size}", f"--local_worker_num={cluster.local_ranks}"),
            *(f"--node_rank={cluster.node_rank}", f"--master_addr={cluster.address}"),
            *(f"--master_port={cluster.port}", f"--cluster_time_out={environment['MS_TOPO_TIMEOUT']}"),
            # No rank has the number after the last: msrun shall start no `tail -f`, which would outlive it.
            *(f"--log_dir={logs}", "--join=True", f"--tail_worker_log={cluster.size}"),
            *(["--bind_core=True"] if device != "CPU" else []),
            *(str(TRAIN), "--as-rank", logs.name, *arguments),
        ]
        with (logs / "msrun.log").open("w", encoding="utf-8") as log:
            self.msrun = subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def log(self, rank: int) -> Path:
        return self.logs / f"worker_{rank}.log"

    def pids(self) -> dict[int, int]:
        """Process id by rank, of those that have said it (`announce`)."""
        found = {}
        for rank in self.cluster.here:
            said = re.search(r"^rank \d+ of \d+ is process (\d+)$", _read(self.log(rank)), re.MULTILINE)
            if said:
                found[rank] = int(said[1])
        return found

    def failures(self) -> Path | None:
        """The file `FAILURE` in rank 0's folder of logs; None until this node's first rank has said where that is."""
        if self._failures is None and self.cluster.nodes > 1:
            said = re.search(r"^logs of rank 0: (.+)$", _read(self.log(self.cluster.here[0])), re.MULTILINE)
            self._failures = self.logs.parent / said[1] / FAILURE if said else None
        return self._failures

    def failure_elsewhere(self) -> str:
        """What has failed on another node; empty if nothing has."""
        path = self.failures()
        return "" if path is None else _read(path).strip()

    def tell_other_nodes(self, failure: str) -> None:
        """Let the other nodes' launchers know that a rank of this one has failed.

        Ranks would find it out as well, by signs of life that do not come, but late and without a reason.
        """
        path = self.failures()
        if path is not None:
            with path.open("a", encoding="utf-8") as file:
                file.write(failure + "\n")

    def send(self, signum: int) -> None:
        """Ask all ranks to stop after their step; where not all have started yet, end them."""
        pids = self.pids()
        if len(pids) < len(self.cluster.here):
            self.end()
            return
        for pid in pids.values():
            _kill(pid, signum)

    def end(self) -> None:
        """End all processes at once."""
        self.msrun.kill()
        self.msrun.wait()

    def failure(self) -> tuple[int, int] | None:
        """Process id and exit code of the worker that failed first, as msrun saw it; None if it saw no failure."""
        said = re.search(
            r"Worker process (\d+) exit with exception. Error code: (-?\d+)", _read(self.logs / "msrun.log")
        )
        return (int(said[1]), int(said[2])) if said else None


def announce(rank: int, world_size: int) -> None:
    """Say in a rank's log which process it is."""
    print(f"rank {rank} of {world_size} is process {os.getpid()}", flush=True)


def announce_logs(name: str) -> None:
    """Say in a rank's log which folder of logs is rank 0's."""
    print(f"logs of rank 0: {name}", flush=True)


def launch(cluster: Cluster, arguments: list[str], config: Config) -> int:
    """Run `tools/train.py` with `arguments` on this node's ranks, with rank 0's output on the screen of node 0.

    Returns:
        0, or the exit code of the rank that failed first, whose last lines are shown.
    """
    logs = Path(config.output) / "logs" / datetime.now().strftime("%Y-%m-%dT%H-%M-%S.%f")
    try:
        logs.mkdir(parents=True)
        (logs / FAILURE).touch()
    except OSError as error:
        raise UserError(f"{logs}: cannot be made ({error.strerror}); choose output=") from error
    received: list[int] = []
    for signum in SIGNALS:
        signal.signal(signum, lambda signum, frame: received.append(signum))
    ranks = Ranks(cluster, arguments, config.device, logs)
    elsewhere = "" if 0 in cluster.here else "; rank 0 is shown on node 0"
    print(f"{cluster} on {config.device}; logs: {logs}{elsewhere}", flush=True)
    _watch(ranks, received)
    failure = ranks.failure()
    code = exit_code(failure[1] if failure else ranks.msrun.returncode)
    if code == 0:
        return 0
    if received or code in {128 + signum for signum in SIGNALS}:
        signum = received[0] if received else code - 128
        print(f"stopped by {signal.Signals(signum).name}; the same command goes on from last.ckpt", file=sys.stderr)
        return 128 + signum
    told = ranks.failure_elsewhere()
    if failure or not told:
        _tell_failure(ranks, code)
    if told:
        print(f"error: on another node {told}; logs of this one: {logs}", file=sys.stderr)
    return code if failure else 1 if told else code


def _watch(ranks: Ranks, received: list[int]) -> None:
    """Show rank 0's output and pass signals on, until all processes have ended; end them when one has failed."""
    shown, passed, looked = 0, 0, time.monotonic()
    while ranks.msrun.poll() is None:
        if 0 in ranks.cluster.here:
            shown += _show(ranks.log(0), shown)
        if len(received) > passed:
            # The first is passed on, so that the ranks save; the next ends them.
            ranks.send(received[0]) if passed == 0 else ranks.end()
            passed = len(received)
        # msrun itself would wait for the scheduler, which waits for signs of life of the dead.
        if ranks.failure():
            ranks.end()
        if time.monotonic() - looked > 1:
            looked = time.monotonic()
            if ranks.failure_elsewhere():
                ranks.end()
        time.sleep(0.2)
    if 0 in ranks.cluster.here:
        _show(ranks.log(0), shown)


def _tell_failure(ranks: Ranks, code: int) -> None:
    """Say which of this node's ranks has failed and why, here and to the other nodes."""
    failure = ranks.failure()
    rank = next((rank for rank, pid in ranks.pids().items() if failure and pid == failure[0]), None)
    for number in ranks.cluster.here if rank is None else [rank]:
        print(f"\n--- last lines of rank {number}", *_last_lines(ranks.log(number)), sep="\n", file=sys.stderr)
    who = ("msrun" if failure is None else "a rank") if rank is None else f"rank {rank}"
    print(f"error: {who} failed with exit code {code}; logs: {ranks.logs}", file=sys.stderr)
    lines = _last_lines(ranks.log(ranks.cluster.here[0] if rank is None else rank))
    reasons = [f" ({line.removeprefix('error: ')})" for line in lines if "rror" in line]
    ranks.tell_other_nodes(f"{who} of {socket.gethostname()} failed with exit code {code}{''.join(reasons[-1:])}")


def _show(path: Path, start: int) -> int:
    """Copy what is new in a log to the screen; returns its length in bytes."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return 0
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
    return len(data)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _last_lines(path: Path) -> list[str]:
    return _read(path).replace("\r", "\n").splitlines()[-LAST_LINES:]


def _kill(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bash tools/run_distribute_train.sh",
        description="Train data-parallel on several ranks of this machine; DEVICE=Ascend|GPU|CPU says on what. On "
        "several machines, start it on each, with NNODES (how many), NODE_RANK (which one, from 0), MASTER_ADDR (the "
        "address of node 0) and MASTER_PORT (a free port there).",
    )
    parser.add_argument(
        "-n", type=int, required=True, metavar="RANKS", help="ranks on this machine: devices, or CPU processes"
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the experiment")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options that differ from the file")
    parser.add_argument("--check", action="store_true", help="only find out whether training would fail, and why")
    arguments = parser.parse_intermixed_args()
    if arguments.n < 1:
        raise UserError(f"-n {arguments.n}: there must be at least one rank")
    overrides = list(arguments.overrides)
    if device := os.environ.get("DEVICE"):
        overrides.append(f"device={device}")
    config = load_config(arguments.config, overrides)
    cluster = Cluster.from_environment(arguments.n, os.environ)
    if arguments.check:
        check_launch(cluster, config)
        return
    if finished_summary(config) is not None:
        print(f"{config.output}: is finished already")
        return
    for line in filter(None, (check_address(cluster), check_devices(cluster, config.device, os.environ))):
        print(line)
    if names := launcher_variables(os.environ):
        print(f"note: {', '.join(names)}: set by some other launcher, and ignored", file=sys.stderr)
    code = launch(cluster, ["--config", arguments.config, *overrides], config)
    if code:
        sys.exit(code)


def check_launch(cluster: Cluster, config: Config) -> None:
    """Find everything that would make the ranks of this node fail, print it, and raise `UserError` if there is any."""
    from mindspore_gpt4image.preflight import Report, check

    report = Report()
    for look in (check_address, lambda cluster: check_devices(cluster, config.device, os.environ)):
        with report.told("launch"):
            if line := look(cluster):
                report.note("launch", line)
    check(config, cluster.size, report).show()


if __name__ == "__main__":
    run_command(main)
