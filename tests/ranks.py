"""Start a script on several real ranks of this machine's CPU, as users do: through msrun."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from mindspore_gpt4image.cluster import free_port


def run_on_ranks(script, ranks, arguments, folder, seconds=300):
    """Run a Python script on all ranks, wait for them, and return what each of them printed.

    msrun also starts the script as its scheduler, which comes as far as `init()`: no side effects before that.

    Args:
        script: the file; its folder is the first on the ranks' module path, that of the tests is there too.
        ranks: how many.
        arguments: of the script, the same for every rank.
        folder: an empty folder for the logs, a test's `tmp_path` or one in it.
        seconds: after this time all ranks are ended.

    Raises:
        RuntimeError: a rank failed, or time is up; with the end of every log.
    """
    # msrun starts PATH's "python". What an outer launcher left in the environment would mislead the ranks.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MS_", "RANK_"))}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parent), environment.get("PYTHONPATH")])
    )
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    command = [
        *(sys.executable, "-m", "mindspore.parallel.cluster.run"),
        *(f"--worker_num={ranks}", f"--local_worker_num={ranks}", f"--master_port={free_port()}"),
        *("--join=True", f"--log_dir={folder}", str(script), *map(str, arguments)),
    ]
    with Path(folder, "msrun.log").open("w", encoding="utf-8") as log:
        msrun = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = msrun.wait(seconds)
        except subprocess.TimeoutExpired:
            status = f"not finished after {seconds} s"
        finally:
            end(msrun)
    if status != 0:
        logs = [f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in Path(folder).glob("*.log")]
        raise RuntimeError("\n".join([f"{Path(script).name} on {ranks} ranks: {status}", *logs]))
    return [Path(folder, f"worker_{rank}.log").read_text(errors="replace") for rank in range(ranks)]


def end(msrun):
    """End msrun and its ranks if they still run. Each rank leads a process group of its own, which only msrun knows."""
    if msrun.poll() is not None:
        return
    msrun.send_signal(signal.SIGINT)  # the one signal on which msrun ends its ranks
    try:
        msrun.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(msrun.pid, signal.SIGKILL)
        msrun.wait()
