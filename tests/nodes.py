"""Several machines on this one: network namespaces with addresses of their own, joined by a virtual cable."""

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest


def command(*words):
    return subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)


@contextmanager
def two_nodes():
    """Yields, for each of two nodes, the words to put before a command that runs there, and its address."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2's ip")
    names = [f"node{number}-{os.getpid()}" for number in range(2)]
    addresses = ["10.213.7.1", "10.213.7.2"]
    cables = [f"veth{number}p{os.getpid()}" for number in range(2)]
    try:
        for name in names:
            try:
                command("ip", "netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        command("ip", "link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for name, address, cable in zip(names, addresses, cables):
            command("ip", "link", "set", cable, "netns", name)
            command("ip", "-n", name, "addr", "add", f"{address}/24", "dev", cable)
            command("ip", "-n", name, "link", "set", cable, "up")
            command("ip", "-n", name, "link", "set", "lo", "up")
        yield [(("ip", "netns", "exec", name), address) for name, address in zip(names, addresses)]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
