"""Two nodes of two ranks each, with addresses of their own: losses, faults on either, and what is told where."""

import os
import signal
import subprocess
import time

import pytest
from launching import (
    SIGKILLED,
    TERMINATED,
    assert_gone,
    assert_same_run,
    descendants,
    finish,
    launcher,
    metrics,
    one_process,
    rank_pids,
    wait_for,
)
from nodes import two_nodes
from tiny_data import make_data_set, overrides
from without_randomness import STEPS

from mindspore_gpt4image.losses import ALIGNMENTS

pytestmark = pytest.mark.slow
PORT = 29413


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text("loss: {temperature: 0.2, weight: 1.0}\n")
    return path


@pytest.fixture(scope="module")
def nodes():
    with two_nodes() as found:
        yield found


def start(nodes, config, options, more=((), ()), inside=((), ())):
    """A launcher on each node, with `more` options for each, and words `inside` its namespace before the command."""
    return [
        launcher(
            2,
            config,
            [*options, *more[number]],
            {"NNODES": "2", "NODE_RANK": str(number), "MASTER_ADDR": nodes[0][1], "MASTER_PORT": str(PORT)},
            (*prefix, *inside[number]),
        )
        for number, (prefix, _) in enumerate(nodes)
    ]


def below(launchers):
    return [pid for process in launchers for pid in descendants(process.pid)]


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_two_nodes_give_the_losses_of_one_process(nodes, data, config, tmp_path, alignment):
    """Within 1e-5 of each loss: float32 sums in another order, through four updates."""
    steps = {**STEPS, "loss__alignment": alignment, "accumulate": 1, "ema": "null", "diagnostics": 0}
    one_process(config, overrides(data, tmp_path / "joined", **steps, batch_size=24))
    launchers = start(nodes, config, overrides(data, tmp_path / "run", **steps, batch_size=6))
    (output, _), (other, _) = [finish(process) for process in launchers]
    assert "ranks of all nodes meet here, at" in output and "val top-1" in output
    assert "4 ranks, 2 of them here (node 1 of 2) on CPU" in other and "rank 0 is shown on node 0" in other
    for ours, reference in zip(metrics(tmp_path / "run"), metrics(tmp_path / "joined")):
        assert ours.keys() == reference.keys()
        assert ours == pytest.approx(reference, rel=1e-5, abs=1e-6)
    assert len(metrics(tmp_path / "joined")) == STEPS["epochs"]


@pytest.mark.parametrize("victim", [1, 2])
def test_a_rank_killed_on_either_node_ends_both(nodes, data, config, tmp_path, victim):
    launchers = start(nodes, config, overrides(data, tmp_path / "run", epochs=100000))
    wait_for(tmp_path / "run" / "last.ckpt")
    processes, ranks = below(launchers), rank_pids(tmp_path / "run", 4)
    assert set(ranks) < set(processes)
    os.kill(ranks[victim], signal.SIGKILL)
    killed = time.monotonic()
    there, elsewhere = launchers if victim < 2 else reversed(launchers)
    _, error = finish(there, code=SIGKILLED, seconds=30)
    assert f"--- last lines of rank {victim}" in error
    assert f"error: rank {victim} failed with exit code 137" in error
    _, error = finish(elsewhere, code=1, seconds=30)
    assert f"error: on another node rank {victim} of " in error.splitlines()[-1] and "exit code 137" in error
    assert time.monotonic() - killed < 30
    assert_gone(processes)


@pytest.mark.parametrize("node", [0, 1])
def test_a_killed_launcher_ends_both_nodes(nodes, data, config, tmp_path, node):
    launchers = start(nodes, config, overrides(data, tmp_path / "run", epochs=100000))
    wait_for(tmp_path / "run" / "last.ckpt")
    processes = below(launchers)
    launchers[node].kill()
    killed = time.monotonic()
    launchers[node].communicate()
    launchers[1 - node].communicate(timeout=60)
    print(f"the other node ended after {time.monotonic() - killed:.0f} s")
    assert launchers[1 - node].returncode not in (0, None)
    assert time.monotonic() - killed < 30
    assert_gone(processes)


def test_a_signal_on_one_node_stops_both_and_they_go_on_bit_equal(nodes, data, config, tmp_path):
    options = overrides(data, tmp_path / "whole", epochs=15)
    for process in start(nodes, config, options):
        finish(process)
    options = overrides(data, tmp_path / "stopped", epochs=15)
    launchers = start(nodes, config, options)
    wait_for(tmp_path / "stopped" / "last.ckpt")
    processes = below(launchers)
    launchers[1].send_signal(signal.SIGTERM)
    for process in launchers:
        _, error = finish(process, code=TERMINATED)
        assert "stopped by SIGTERM; the same command goes on from last.ckpt" in error
    assert_gone(processes)
    assert len(metrics(tmp_path / "stopped")) < 15
    for process in start(nodes, config, options):
        finish(process)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_nodes_that_differ_are_told_apart_before_anything_is_trained(nodes, data, config, tmp_path):
    options = overrides(data, tmp_path / "run")
    launchers = start(nodes, config, options, more=((), ("loss.weight=0.7",)))
    for process in launchers:
        output, error = finish(process, code=1)
        assert "differs from rank 0 on " in output + error and " in loss.weight; make it the same" in output + error
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_data_that_differ_on_a_node_are_named(nodes, data, config, tmp_path):
    other = make_data_set(tmp_path / "other")
    image = sorted((other / "train" / "red").iterdir())[0]
    image.rename(image.with_name("another.png"))
    mount = ("sh", "-c", f'mount --bind {other} {data} && exec "$@"', "sh")
    options = overrides(data, tmp_path / "run", data__missing_text="skip")
    launchers = start(nodes, config, options, inside=((), mount))
    for process in launchers:
        output, error = finish(process, code=1)
        assert " in the images of train; make it the same on every node" in output + error


def test_a_run_folder_that_is_not_shared_is_named(nodes, data, config, tmp_path):
    (tmp_path / "runs").mkdir()
    mount = ("sh", "-c", f'mount -t tmpfs none {tmp_path / "runs"} && exec "$@"', "sh")
    launchers = start(nodes, config, overrides(data, tmp_path / "runs" / "run"), inside=((), mount))
    for process in launchers:
        output, error = finish(process, code=1)
        assert f"output={tmp_path / 'runs' / 'run'}: rank 2 on " in output + error
        assert "give a folder that all nodes share" in output + error


def test_mistakes_in_the_variables_are_one_line(nodes, data, config, tmp_path):
    """A busy port, and the address of the wrong node."""
    (prefix, address), (other_prefix, _) = nodes
    options = overrides(data, tmp_path / "run")
    variables = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": address, "MASTER_PORT": str(PORT)}
    code = f"import socket\ns = socket.create_server(('{address}', {PORT}))\nprint('busy', flush=True)\ns.accept()"
    with subprocess.Popen([*prefix, "python3", "-c", code], stdout=subprocess.PIPE, text=True) as busy:
        assert busy.stdout.readline() == "busy\n"
        _, error = finish(launcher(2, config, options, variables, prefix), code=1, seconds=30)
        busy.kill()
    assert error == f"error: MASTER_PORT={PORT}: is in use at {address}; give a free port, the same on every node\n"
    _, error = finish(launcher(2, config, options, variables, other_prefix), code=1, seconds=30)
    assert error.startswith(f"error: MASTER_ADDR={address}: is no address of this machine") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
