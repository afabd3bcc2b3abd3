"""Locks that do not outlive their owner."""

import signal
import subprocess
import sys

import pytest

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import claimed

# A child that lives on inherits its parent's open files, as those of compilers do.
OWNER = """
import os, sys, time
from pathlib import Path
from mindspore_gpt4image.files import claimed
with claimed(Path(sys.argv[1])):
    if os.fork() == 0:
        os.close(1)
    else:
        print("claimed", flush=True)
    time.sleep(20)
"""


@pytest.fixture
def owner(tmp_path):
    command = [sys.executable, "-c", OWNER, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_who_the_first_is(owner, tmp_path):
    with pytest.raises(UserError, match=rf"run: process {owner.pid} on .+ works there; wait for it, stop it"):
        claimed(tmp_path / "run" / ".lock").__enter__()


def test_a_lock_does_not_outlive_its_owner(owner, tmp_path):
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    for _ in range(2):
        with claimed(tmp_path / "run" / ".lock"):
            pass


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match="run: cannot be written"):
        claimed(tmp_path / "run" / ".lock").__enter__()
