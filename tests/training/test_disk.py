"""What a disk, a kill and a second process do to a run: the last good checkpoint is whole, and the run goes on."""

import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from mindspore import Parameter, Tensor
from tiny_data import overrides

from mindspore_gpt4image.checkpoint import read_checkpoint, save_checkpoint
from mindspore_gpt4image.config import load_config
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import claimed
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.models import create_network
from mindspore_gpt4image.training.loop import train
from mindspore_gpt4image.training.resume import keep_previous, read_whole, remove_rubbish

TRAIN = Path(__file__).parents[2] / "tools" / "train.py"
INFO = ModelInfo("resnet10_cifar_half", ("a", "b"), 16, 16, "bilinear", (0.5,) * 3, (0.25,) * 3, "none", None)
PROGRESS = {"config": {}, "train_images": 24, "world_size": 1}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text("schedule: {warmup_epochs: 1}\n")
    return path


@pytest.fixture(scope="module")
def network():
    return create_network("resnet10_cifar_half", 2, projection="none")


@pytest.fixture
def run(tmp_path):
    return SimpleNamespace(folder=tmp_path, is_main=True, last_is_whole=False)


def save(folder, network, epoch):
    save_checkpoint(folder / "last.ckpt", network, INFO, {**PROGRESS, "epoch": epoch})


def test_a_second_run_on_one_folder_is_refused(data, config_file, tmp_path):
    """The other process holds the lock, not this one: a lock of one's own is no obstacle."""
    holder = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path / "run" / ".lock",))
    holder.start()
    try:
        while not (tmp_path / "run" / ".lock").exists() or not (tmp_path / "run" / ".lock").read_text():
            time.sleep(0.05)
        with pytest.raises(UserError, match=rf"run: process {holder.pid} on .+ works there"):
            train(load_config(config_file, overrides(data, tmp_path / "run")))
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    finally:
        holder.kill()
        holder.join()


def hold(path):
    with claimed(path):
        time.sleep(60)


@pytest.mark.parametrize("damage", ["flipped", "empty", "foreign", "converted"])
def test_where_the_last_checkpoint_is_damaged_the_one_before_is_taken(run, network, damage, capsys):
    save(run.folder, network, 1)
    keep_previous(run.folder)
    save(run.folder, network, 2)
    assert read_whole(run).progress["epoch"] == 2 and run.last_is_whole

    path = run.folder / "last.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "converted":
        save_checkpoint(path, network, INFO, {})
    else:
        path.write_bytes({"flipped": content, "empty": b"", "foreign": b"PK\x03\x04 not ours"}[damage])
    run.last_is_whole = False
    assert read_whole(run).progress["epoch"] == 1
    note = capsys.readouterr().err
    assert note.startswith(f"note: checkpoint {path}: d")
    assert note.endswith("; going on from previous.ckpt, the one before\n") and note.count("\n") == 1
    # The damaged one must never become the one before.
    assert not run.last_is_whole


def test_two_damaged_checkpoints_are_both_named(run):
    for name in ("last.ckpt", "previous.ckpt"):
        (run.folder / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"last\.ckpt: damaged.*previous\.ckpt: damaged.*to begin again remove"):
        read_whole(run)


def test_a_file_system_that_is_full_in_mid_save(network, tmp_path, capfd):
    """The limit on a file's size fails the write itself, half way, as a full disk does."""
    save(tmp_path, network, 1)
    before = (tmp_path / "last.ckpt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(UserError, match="last.ckpt: cannot be written"):
            save(tmp_path, network, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert "CRITICAL" not in capfd.readouterr().err


def test_what_is_not_finite_is_not_saved(network, tmp_path):
    save(tmp_path, network, 1)
    before = (tmp_path / "last.ckpt").read_bytes()
    moment = Parameter(Tensor(np.array([1, np.inf], np.float32)), name="moment")
    with pytest.raises(UserError, match=r"last.ckpt: not written, .* \(training.moment, …\).*lower optimizer.lr"):
        save_checkpoint(tmp_path / "last.ckpt", network, INFO, {"epoch": 2}, {"moment": moment})
    assert (tmp_path / "last.ckpt").read_bytes() == before


@pytest.mark.slow
def test_a_hundred_kills_during_saves_leave_a_checkpoint_each(network, tmp_path):
    """Each process saves again and again, as a run does, and is killed at a random moment."""
    save(tmp_path, network, 0)
    moments = random.Random(0)
    epoch = 0
    for _ in range(100):
        process = multiprocessing.get_context("fork").Process(target=save_for_ever, args=(tmp_path, network, epoch))
        process.start()
        time.sleep(moments.uniform(0.0, 0.3))
        process.kill()
        process.join()
        last = read_checkpoint(tmp_path / "last.ckpt").progress["epoch"]
        assert last >= epoch
        epoch = last
    assert epoch > 100
    assert read_checkpoint(tmp_path / "previous.ckpt").progress["epoch"] in (epoch - 1, epoch)
    remove_rubbish(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


def save_for_ever(folder, network, epoch):
    while True:
        epoch += 1
        keep_previous(folder)
        save(folder, network, epoch)


def in_own_mounts(script, *arguments):
    """Run a shell script in which mounts are its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting needs root and unshare")
    command = ["unshare", "--mount", "bash", "-ec", script, "bash", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def assert_one_line(result, message):
    assert result.returncode == 1, result.stderr
    errors = [line for line in result.stderr.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0], result.stderr
    assert "Traceback" not in result.stderr and "Exception" not in result.stderr


@pytest.mark.slow
def test_a_full_disk_ends_a_run_in_one_line_and_space_lets_it_go_on(data, config_file, tmp_path):
    options = overrides(data, tmp_path / "disk" / "run", epochs=6)
    (tmp_path / "disk").mkdir()
    script = """
    disk=$1; saved=$2; shift 2
    mount -t tmpfs -o size=24m tmpfs "$disk"
    code=0
    "$@" || code=$?
    cp -r "$disk/run" "$saved"
    exit $code
    """
    command = (sys.executable, TRAIN, "--config", config_file, *options)
    result = in_own_mounts(script, tmp_path / "disk", tmp_path / "saved", *command)
    assert_one_line(result, "cannot be written (No space left on device)")
    saved = read_checkpoint(tmp_path / "saved")
    assert 1 <= saved.progress["epoch"] < 6
    assert not [path.name for path in (tmp_path / "saved").glob(".*.ckpt")]

    (tmp_path / "saved").rename(tmp_path / "disk" / "run")
    train(load_config(config_file, options))
    train(load_config(config_file, overrides(data, tmp_path / "whole", epochs=6)))
    whole, resumed = read_checkpoint(tmp_path / "whole"), read_checkpoint(tmp_path / "disk" / "run")
    for name, value in {**whole.network, **whole.training}.items():
        assert (value.asnumpy() == {**resumed.network, **resumed.training}[name].asnumpy()).all(), name


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_ends_a_run_in_one_line(data, config_file, tmp_path):
    (tmp_path / "disk").mkdir()
    script = 'disk=$1; shift; mount -t tmpfs -o ro tmpfs "$disk"; "$@"'
    options = overrides(data, tmp_path / "disk" / "run")
    result = in_own_mounts(script, tmp_path / "disk", sys.executable, TRAIN, "--config", config_file, *options)
    assert_one_line(result, "cannot be written (Read-only file system)")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_memory_and_open_files_do_not_grow(data, config_file, tmp_path):
    """From 50 epochs on, of 4 steps and an evaluation each: less than 10 kB an epoch, and no file."""
    options = overrides(data, tmp_path / "run", epochs=100000)
    command = [sys.executable, str(TRAIN), "--config", str(config_file), *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as training:
        process = psutil.Process(training.pid)
        looks = []
        try:
            for epochs in (50, 150, 350):
                while count(tmp_path / "run" / "metrics.jsonl") < epochs:
                    assert training.poll() is None
                    time.sleep(0.5)
                looks.append((count(tmp_path / "run" / "metrics.jsonl"), process.memory_info().rss, process.num_fds()))
        finally:
            training.kill()
    (_, _, files), (start, before, _), (end, after, files_later) = looks
    assert abs(files_later - files) <= 2
    assert (after - before) / (end - start) < 10_000, looks


def count(path):
    return path.read_text().count("\n") if path.exists() else 0
