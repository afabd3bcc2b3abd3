"""Stopping a run between two steps, when SIGINT or SIGTERM asks for it, and ending with the process that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


class StopRequest:
    """Whether a signal asks the run to stop: `signum` is None, or the signal's number."""

    def __init__(self):
        self.signum: int | None = None

    def receive(self, signum: int) -> None:
        """Take note of a signal; the second one ends the process at once, which no file suffers from."""
        if self.signum is not None:
            os._exit(128 + signum)
        print(f"\n{signal.Signals(signum).name}: stopping after this step; again: at once", file=sys.stderr, flush=True)
        self.signum = signum


def listen() -> StopRequest:
    """Turn SIGINT and SIGTERM of this process into a `StopRequest`.

    To be called before MindSpore is imported. Its pipelines and executor put C++ handlers, which end the process, in
    place of Python's, over and over. So the signals are blocked instead, in this thread and all that it will start, and
    one thread waits for them.
    """
    request = StopRequest()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def wait() -> None:
        while True:
            request.receive(signal.sigwait(SIGNALS))

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return request


def end_with_parent(signum: int = signal.SIGKILL) -> None:
    """Have Linux send this process a signal as soon as its parent ends, however that comes.

    More exactly, when the parent's thread ends that has started this process. Other systems do not know this.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)


def exit_code(status: int) -> int:
    """The status of a child process (`subprocess`) as shells count: 128 + n if signal n ended it."""
    return status if status >= 0 else 128 - status
