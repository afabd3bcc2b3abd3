"""The machines of a run on several ranks, and what must hold on this one before its ranks start.

Nothing here needs MindSpore: faults are told before it is loaded.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mindspore_gpt4image.errors import UserError

# By which launchers tell a process who it is. Those of another launcher would mislead ours, and some make a single
# process believe that it is a rank. Other MS_ variables are settings of the user's.
LAUNCHER_VARIABLES = (
    *("MS_ROLE", "MS_SCHED_HOST", "MS_SCHED_PORT", "MS_WORKER_NUM", "MS_SERVER_NUM", "MS_NODE_ID"),
    *("MSRUN_CPU_LIST", "RANK_ID", "RANK_SIZE", "RANK_TABLE_FILE"),
    *("OMPI_COMMAND", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"),
)
# In seconds, where the user's environment says nothing; README's "Several devices" has the reasons.
TIME_OUTS = {
    "CPU": {"MS_TOPO_TIMEOUT": 600, "MS_NODE_TIMEOUT": 10},
    "GPU": {"MS_TOPO_TIMEOUT": 600},
    "Ascend": {"MS_TOPO_TIMEOUT": 600, "HCCL_CONNECT_TIMEOUT": 600},
}


@dataclass(frozen=True)
class Cluster:
    """All machines (nodes) of a run, and this one's place among them.

    Attributes:
        local_ranks: ranks on each node.
        nodes: how many there are.
        node_rank: this node, 0 … nodes - 1; node 0 has rank 0 and the scheduler.
        address, port: of the scheduler.
    """

    local_ranks: int
    nodes: int
    node_rank: int
    address: str
    port: int

    @classmethod
    def from_environment(cls, local_ranks: int, environment: Mapping[str, str]) -> Cluster:
        """Of NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT; on one node the port is chosen.

        Raises:
            UserError: a variable is missing or no number in its range.
        """
        nodes = _whole_number(environment, "NNODES", 1, 1, 100_000)
        node_rank = _whole_number(environment, "NODE_RANK", 0, 0, nodes - 1)
        if nodes == 1:
            return cls(local_ranks, 1, 0, "127.0.0.1", free_port())
        for name, what in (("MASTER_ADDR", "the address of node 0"), ("MASTER_PORT", "a free port there")):
            if not environment.get(name):
                raise UserError(f"{name} is not set: NNODES={nodes} needs it, {what}, the same on every node")
        port = _whole_number(environment, "MASTER_PORT", None, 1024, 65535)
        return cls(local_ranks, nodes, node_rank, environment["MASTER_ADDR"], port)

    @property
    def size(self) -> int:
        """Number of ranks on all nodes."""
        return self.local_ranks * self.nodes

    @property
    def here(self) -> range:
        """The ranks of this node."""
        first = self.node_rank * self.local_ranks
        return range(first, first + self.local_ranks)

    def __str__(self) -> str:
        if self.nodes == 1:
            return f"{self.size} ranks"
        return f"{self.size} ranks, {self.local_ranks} of them here (node {self.node_rank} of {self.nodes})"


def free_port() -> int:
    """A port that nobody listens on; a busy one would make msrun wait without a word."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launcher_variables(environment: Mapping[str, str]) -> list[str]:
    """Names of the variables that some launcher left in the environment."""
    return [name for name in LAUNCHER_VARIABLES if name in environment]


def rank_environment(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for ranks on `device`: without the variables of other launchers, with `TIME_OUTS`.

    Its PATH begins with this interpreter's folder, since msrun starts what PATH calls python.
    """
    kept = {name: value for name, value in environment.items() if name not in LAUNCHER_VARIABLES}
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    return {**{name: str(seconds) for name, seconds in TIME_OUTS[device].items()}, **kept, "PATH": path}


def check_address(cluster: Cluster) -> str | None:
    """Whether the scheduler can listen where all nodes will look for it; a line for the user.

    msrun starts a scheduler on every machine that has the address, so no other may.

    Raises:
        UserError: the address is unknown or another machine's, or the port is in use.
    """
    if cluster.nodes == 1:
        return None
    address, port = f"MASTER_ADDR={cluster.address}", f"MASTER_PORT={cluster.port}"
    try:
        ip = socket.gethostbyname(cluster.address)
    except OSError as error:
        raise UserError(f"{address}: there is no such address ({error}); give that of node 0") from error
    is_here = _can_bind(ip, 0)
    if cluster.node_rank > 0:
        if is_here:
            raise UserError(f"{address}: is this machine's own, and NODE_RANK={cluster.node_rank}; give that of node 0")
        return f"ranks of all nodes meet at {cluster.address}:{cluster.port}"
    if not is_here:
        raise UserError(f"{address}: is no address of this machine, which is node 0; give one that all nodes can reach")
    if not _can_bind(ip, cluster.port):
        raise UserError(f"{port}: is in use at {cluster.address}; give a free port, the same on every node")
    return f"ranks of all nodes meet here, at {cluster.address}:{cluster.port}"


def check_devices(cluster: Cluster, device: str, environment: Mapping[str, str]) -> str | None:
    """Whether this node has a device for each of its ranks; a line for the user.

    Raises:
        UserError: there are too few, or they cannot be counted.
    """
    if device == "CPU":
        cores = len(os.sched_getaffinity(0))
        if cluster.local_ranks > cores:
            return f"{cluster.local_ranks} ranks share {cores} cores of this machine, and will be slow"
        return None
    count, where = _ascend_devices(environment) if device == "Ascend" else _gpu_devices(environment)
    if count < cluster.local_ranks:
        raise UserError(f"-n {cluster.local_ranks}: needs as many devices of {device}, {where} has {count}")
    return f"{count} devices of {device} by {where}"


def _ascend_devices(environment: Mapping[str, str]) -> tuple[int, str]:
    """How many devices of Ascend a process may use, and what says so."""
    present = [path for path in Path("/dev").glob("davinci*") if re.fullmatch(r"davinci\d+", path.name)]
    visible = environment.get("ASCEND_RT_VISIBLE_DEVICES")
    return _fewer(len(present), "/dev/davinci*", visible, "ASCEND_RT_VISIBLE_DEVICES")


def _gpu_devices(environment: Mapping[str, str]) -> tuple[int, str]:
    """How many GPUs a process may use, and what says so."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        listed = ""
    present = len(re.findall(r"^GPU \d+:", listed, re.MULTILINE))
    return _fewer(present, "nvidia-smi -L", environment.get("CUDA_VISIBLE_DEVICES"), "CUDA_VISIBLE_DEVICES")


def _fewer(present: int, place: str, visible: str | None, variable: str) -> tuple[int, str]:
    """The devices of a machine, or those that a variable leaves of them: "0,2", "GPU-8f2a", "4-7"."""
    if visible is None:
        return present, place
    names: list[str] = []
    for part in filter(None, (part.strip() for part in visible.split(","))):
        first, dash, last = part.partition("-")
        is_range = dash and first.isdecimal() and last.isdecimal()
        names += map(str, range(int(first), int(last) + 1)) if is_range else [part]
    chosen = len(dict.fromkeys(names))
    return (chosen, f"{variable}={visible}") if chosen <= present else (present, place)


def _can_bind(address: str, port: int) -> bool:
    with socket.socket() as probe:
        # A port of a run that has just ended is free, although the kernel still remembers its connections.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _whole_number(environment: Mapping[str, str], name: str, default: int | None, lowest: int, highest: int) -> int:
    text = environment.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and lowest <= int(text[:9]) <= highest):
        raise UserError(f"{name}={text}: must be a whole number from {lowest} to {highest}")
    return int(text)
