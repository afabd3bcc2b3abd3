"""Start a training run on several ranks of this machine through msrun, and stay with it until it ends."""

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

from mindspore_gpt4image.config import Config, load_config
from mindspore_gpt4image.errors import UserError, run_command
from mindspore_gpt4image.runs import finished_summary
from mindspore_gpt4image.signals import SIGNALS

TRAIN = Path(__file__).parents[1] / "tools" / "train.py"
LAST_LINES = 15
# Seconds without a sign of life after which the scheduler gives up a rank; MindSpore's own value is 30.
NODE_TIMEOUT = 10


class Ranks:
    """The processes of one run: msrun, its scheduler and a worker for each rank.

    msrun ends all workers when one exits with an error, and on SIGINT; on SIGTERM it would leave them behind. So it
    runs in a session of its own, where no signal of the terminal reaches it, and signals go to the workers directly.
    """

    def __init__(self, count: int, arguments: list[str], device: str, logs: Path):
        self.count, self.logs = count, logs
        logs.mkdir(parents=True)
        # Another launcher's variables would mislead the ranks, and msrun starts what PATH calls python.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MS_", "RANK_"))}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
        environment["MS_NODE_TIMEOUT"] = str(NODE_TIMEOUT)
        command = [
            *(sys.executable, "-m", "mindspore.parallel.cluster.run"),
            *(f"--worker_num={count}", f"--local_worker_num={count}"),
            *(f"--master_port={free_port()}", f"--log_dir={logs}", "--join=True"),
            *(["--bind_core=True"] if device != "CPU" else []),
            *(str(TRAIN), "--as-rank", *arguments),
        ]
        with (logs / "msrun.log").open("w", encoding="utf-8") as log:
            self.msrun = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def log(self, rank: int) -> Path:
        return self.logs / f"worker_{rank}.log"

    def pids(self) -> dict[int, int]:
        """Process id by rank, of those that have said it (`announce`)."""
        found = {}
        for rank in range(self.count):
            said = re.search(r"^rank \d+ of \d+ is process (\d+)$", _read(self.log(rank)), re.MULTILINE)
            if said:
                found[rank] = int(said[1])
        return found

    def send(self, signum: int) -> None:
        """Ask all ranks to stop after their step; where not all have started yet, end them."""
        pids = self.pids()
        if len(pids) < self.count:
            self.end()
            return
        for pid in pids.values():
            _kill(pid, signum)

    def end(self) -> None:
        """End all processes at once."""
        self.msrun.send_signal(signal.SIGINT)

    def failure(self) -> tuple[int | None, int]:
        """Rank and exit code of the worker that failed first, as msrun saw it; no rank where it cannot be told."""
        said = re.search(
            r"Worker process (\d+) exit with exception. Error code: (-?\d+)", _read(self.logs / "msrun.log")
        )
        if not said:
            return None, 1
        pid, code = int(said[1]), int(said[2])
        rank = next((rank for rank, known in self.pids().items() if known == pid), None)
        return rank, code if code >= 0 else 128 - code


def free_port() -> int:
    """A port that nobody listens on; a busy one would make msrun wait without a word."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def announce(rank: int, world_size: int) -> None:
    """Say in a rank's log which process it is."""
    print(f"rank {rank} of {world_size} is process {os.getpid()}", flush=True)


def launch(count: int, arguments: list[str], config: Config) -> int:
    """Run `tools/train.py` with `arguments` on `count` ranks, with rank 0's output on the screen.

    Returns:
        0, or the exit code of the rank that failed first, whose last lines are shown.
    """
    logs = Path(config.output) / "logs" / datetime.now().strftime("%Y-%m-%dT%H-%M-%S.%f")
    received: list[int] = []
    for signum in SIGNALS:
        signal.signal(signum, lambda signum, frame: received.append(signum))
    ranks = Ranks(count, arguments, config.device, logs)
    print(f"{count} ranks on {config.device}; logs of all: {logs}", flush=True)
    shown, sent = 0, 0
    while True:
        ended = ranks.msrun.poll() is not None
        shown += _show(ranks.log(0), shown)
        if ended:
            break
        if len(received) > sent:
            # The first is passed on, so that the ranks save; the next ends them.
            ranks.send(received[0]) if sent == 0 else ranks.end()
            sent = len(received)
        time.sleep(0.2)
    if received:
        print(
            f"stopped by {signal.Signals(received[0]).name}; the same command goes on from last.ckpt", file=sys.stderr
        )
        return 128 + received[0]
    if ranks.msrun.returncode == 0:
        return 0
    rank, code = ranks.failure()
    for number in [rank] if rank is not None else range(count):
        lines = _read(ranks.log(number)).replace("\r", "\n").splitlines()[-LAST_LINES:]
        print(f"\n--- last lines of rank {number}", *lines, sep="\n", file=sys.stderr)
    who = "a rank" if rank is None else f"rank {rank}"
    print(f"error: {who} failed with exit code {code}; logs: {logs}", file=sys.stderr)
    return code


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


def _kill(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bash tools/run_distribute_train.sh",
        description="Train data-parallel on several ranks of this machine; DEVICE=Ascend|GPU|CPU says on what.",
    )
    parser.add_argument(
        "-n", type=int, required=True, metavar="RANKS", help="number of ranks: devices, or CPU processes"
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the experiment")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options that differ from the file")
    arguments = parser.parse_intermixed_args()
    if arguments.n < 1:
        raise UserError(f"-n {arguments.n}: there must be at least one rank")
    overrides = list(arguments.overrides)
    if device := os.environ.get("DEVICE"):
        overrides.append(f"device={device}")
    config = load_config(arguments.config, overrides)
    if finished_summary(config) is not None:
        print(f"{config.output}: is finished already")
        return
    code = launch(arguments.n, ["--config", arguments.config, *overrides], config)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    run_command(main)
