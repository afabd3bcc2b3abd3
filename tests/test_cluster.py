"""What the launcher knows of the machines, and what it checks before it starts anything."""

import socket
import sys
from pathlib import Path

import pytest

from mindspore_gpt4image.cluster import (
    Cluster,
    check_address,
    check_devices,
    free_port,
    launcher_variables,
    rank_environment,
)
from mindspore_gpt4image.errors import UserError

TWO_NODES = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "8118"}


def test_one_node_is_the_default_and_finds_a_port():
    cluster = Cluster.from_environment(3, {"MASTER_PORT": "somebody else's"})
    assert (cluster.size, cluster.here, cluster.address) == (3, range(3), "127.0.0.1")
    assert 1024 <= cluster.port <= 65535
    assert check_address(cluster) is None


def test_two_nodes_by_variables():
    cluster = Cluster.from_environment(4, TWO_NODES)
    assert cluster == Cluster(4, 2, 1, "10.0.0.1", 8118)
    assert (cluster.size, cluster.here) == (8, range(4, 8))
    assert str(cluster) == "8 ranks, 4 of them here (node 1 of 2)"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"NNODES": "two"}, "NNODES=two: must be a whole number from 1 to"),
        ({"NNODES": "0"}, "NNODES=0: must be"),
        ({"NODE_RANK": "2"}, "NODE_RANK=2: must be a whole number from 0 to 1"),
        ({"NODE_RANK": "-1"}, "NODE_RANK=-1: must be"),
        ({"NNODES": ""}, "NODE_RANK=1: must be a whole number from 0 to 0"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set: NNODES=2 needs it, the address of node 0"),
        ({"MASTER_PORT": ""}, "MASTER_PORT is not set"),
        ({"MASTER_PORT": "80"}, "MASTER_PORT=80: must be a whole number from 1024 to 65535"),
        ({"MASTER_PORT": "8²"}, "MASTER_PORT=8²: must be"),
    ],
)
def test_a_wrong_variable_is_named(changed, message):
    with pytest.raises(UserError, match=message):
        Cluster.from_environment(4, {**TWO_NODES, **changed})


def test_a_busy_port_is_found_before_it_hangs():
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(UserError, match=f"MASTER_PORT={port}: is in use at 127.0.0.1"):
            check_address(Cluster(1, 2, 0, "127.0.0.1", port))
    assert check_address(Cluster(1, 2, 0, "127.0.0.1", port)) == f"ranks of all nodes meet here, at 127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("node_rank", "address", "message"),
    [
        (0, "192.0.2.1", "MASTER_ADDR=192.0.2.1: is no address of this machine, which is node 0"),
        (1, "127.0.0.1", "MASTER_ADDR=127.0.0.1: is this machine's own, and NODE_RANK=1"),
        (1, "no.such.host.invalid", "MASTER_ADDR=no.such.host.invalid: there is no such address"),
    ],
)
def test_an_address_that_leads_nowhere_is_named(node_rank, address, message):
    with pytest.raises(UserError, match=message):
        check_address(Cluster(1, 2, node_rank, address, free_port()))


def test_another_nodes_address_is_taken_as_it_is():
    assert check_address(Cluster(1, 2, 1, "192.0.2.1", 8118)) == "ranks of all nodes meet at 192.0.2.1:8118"


def test_devices_are_counted(tmp_path, monkeypatch):
    cluster = Cluster(2, 1, 0, "127.0.0.1", 8118)
    assert check_devices(Cluster(1, 1, 0, "127.0.0.1", 8118), "CPU", {}) is None
    assert "10000 ranks share" in check_devices(Cluster(10000, 1, 0, "127.0.0.1", 8118), "CPU", {})
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    with pytest.raises(UserError, match="-n 2: needs as many devices of GPU, nvidia-smi -L has 0"):
        check_devices(cluster, "GPU", {})


@pytest.mark.parametrize(
    ("visible", "count"), [("0,2", 2), ("4-7", 4), ("", 0), ("0, 0", 1), ("GPU-8f2a1c,GPU-77aa01", 2), ("0-9", 8)]
)
def test_a_variable_may_leave_fewer_devices(visible, count):
    from mindspore_gpt4image import cluster

    assert cluster._fewer(8, "/dev/davinci*", visible, "ASCEND_RT_VISIBLE_DEVICES")[0] == count


def test_ranks_get_time_outs_and_the_users_settings_but_not_another_launchers():
    outer = {"MS_ROLE": "MS_WORKER", "RANK_ID": "3", "MS_ENABLE_NUMA": "1", "MS_NODE_TIMEOUT": "77", "PATH": "/bin"}
    assert launcher_variables(outer) == ["MS_ROLE", "RANK_ID"]
    kept = {"MS_ENABLE_NUMA": "1", "MS_NODE_TIMEOUT": "77", "PATH": f"{Path(sys.executable).parent}:/bin"}
    assert rank_environment("CPU", outer) == {**kept, "MS_TOPO_TIMEOUT": "600"}
    assert rank_environment("Ascend", {})["HCCL_CONNECT_TIMEOUT"] == "600"
