"""How a user's mistake is reported, and how every command ends."""

import signal
import sys
from typing import Callable


class UserError(Exception):
    """A mistake that the user can mend.

    Its text is one line: what is wrong, the file, id, key or option at fault, and the way out.
    """


class Stopped(Exception):
    """The run was stopped by a signal, after its state was saved."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


def first_line(error: BaseException) -> str:
    """What a library's error says, without the lines that follow."""
    return str(error).strip().partition("\n")[0]


def run_command(main: Callable[[], None]) -> None:
    """Run a command-line program and exit: 0 done, 1 a user's mistake, 128 + n stopped by signal n.

    A `UserError` becomes one line on standard error. Anything else is a fault of ours and keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        sys.exit("error: " + " ".join(str(error).split()))
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
