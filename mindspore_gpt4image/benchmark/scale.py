"""What a training step asks of links, hosts, memory and disks on many ranks: formulas, and the README's tables of them.

Bytes are those that one rank receives (it sends as many); R ranks with B images each, texts of k numbers. Times are
those of the bytes on a link that carries its full speed, one after the other with the arithmetic: collectives have
latencies too, and overlap with the backward pass, so they are the right size and no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

FLOAT, INT, HALF = 4, 4, 2  # bytes
LONG = 8
RANKS = (8, 64, 1024)


@dataclass(frozen=True)
class Links:
    """How fast a device receives, in bytes a second, by its maker's figures.

    Attributes:
        inside: from the other devices of its node.
        between: from other nodes.
    """

    name: str
    inside: float
    between: float


# 7 HCCS links of 56 GB/s both ways together, 200 Gb/s RoCE; NVLink 4 of 900 GB/s both ways, 400 Gb/s InfiniBand.
ASCEND = Links("Ascend 910B", inside=392e9 / 2, between=200e9 / 8)
NVIDIA = Links("NVIDIA H100", inside=900e9 / 2, between=400e9 / 8)


@dataclass(frozen=True)
class Setting:
    """What the tables are made for: ImageNet, ResNet-50, SGD with momentum, nodes of 8 devices.

    Attributes:
        texts: in the store, n.
        dim: numbers in an embedding, k.
        batch: images on a rank, B.
        parameters: of the network with its projection.
        statistics: of its batch normalisation.
        moments: that the optimizer keeps for a parameter; MindSpore's SGD keeps the momentum, and whether there is one.
        flops: of a training image: 4.1e9 multiplications forward, each with an addition, and twice that backward.
        images_per_second: that one device trains; published, MindSpore's benchmarks (ResNet-50 v1.5, mixed precision,
            batch 256, one Ascend 910).
        devices: in a node.
        cores: of a node's CPU for each device.
        images_per_core: that a core loads in a second; measured, 1000 / (CPU ms an image) of `tools/benchmark.py
            pipeline`.
        id_bytes: of the longest image id.
    """

    texts: int = 1_281_167
    dim: int = 512
    batch: int = 256
    parameters: int = 25_557_032 + 2048 * 512
    statistics: int = 53_120
    moments: int = 2
    flops: float = 3 * 2 * 4.1e9
    images_per_second: float = 2115.0
    devices: int = 8
    cores: int = 12
    images_per_core: float = 430.0
    id_bytes: int = 38

    @property
    def compute_seconds(self) -> float:
        """Of the network's part of a step."""
        return self.batch / self.images_per_second


def alignment_bytes(alignment: str, ranks: int, batch: int, dim: int) -> int:
    """Gathered by the alignment in a step.

    `infonce`: the other ranks' text embeddings (float32) and text ids. `clip`: also their image embeddings and the
    denominators of their texts. `cosine` and `none` exchange nothing.
    """
    rows = (ranks - 1) * batch
    if alignment == "infonce":
        return rows * (FLOAT * dim + INT)
    if alignment == "clip":
        return rows * (2 * FLOAT * dim + INT + FLOAT)
    return 0


def gradient_bytes(parameters: int, ranks: int) -> int:
    """Of a ring all-reduce of float32 gradients: all but a rank's own part, once to sum and once to spread."""
    return round(2 * (ranks - 1) / ranks * FLOAT * parameters)


def store_bytes(texts: int, dim: int, id_bytes: int) -> int:
    """A node's page cache when every text has been read: rows as float16, ids, their order and text ids.

    It is one for all ranks of the node, and the kernel may drop any of it.
    """
    return texts * (HALF * dim + id_bytes + LONG + LONG)


def matrix_bytes(texts: int, dim: int, processes: int) -> int:
    """Of a float32 matrix that each process has loaded for itself."""
    return texts * FLOAT * dim * processes


def alignment_flops(ranks: int, batch: int, dim: int) -> int:
    """Of `infonce` on one rank: the similarity of its images with all texts, and its gradient for the images."""
    return 2 * 2 * batch * (ranks * batch) * dim


def checkpoint_bytes(parameters: int, statistics: int, moments: int = 0) -> int:
    """Of a checkpoint in float32: `moments` numbers of the optimizer for each parameter, 0 for the network alone."""
    return FLOAT * (parameters * (1 + moments) + statistics)


def link_seconds(received: int, ranks: int, setting: Setting, links: Links) -> float:
    """How long that takes on the slowest link on the way."""
    return received / (links.inside if ranks <= setting.devices else links.between)


def alignment_seconds(ranks: int, setting: Setting, links: Links) -> float:
    """Of a step: what is gathered, and the arithmetic at the speed at which the device computes the network."""
    speed = setting.flops * setting.images_per_second
    gathered = link_seconds(alignment_bytes("infonce", ranks, setting.batch, setting.dim), ranks, setting, links)
    return gathered + alignment_flops(ranks, setting.batch, setting.dim) / speed


def step_seconds(ranks: int, setting: Setting, links: Links) -> float:
    """Of a whole aligned step, nothing of which overlaps."""
    gradients = link_seconds(gradient_bytes(setting.parameters, ranks), ranks, setting, links)
    return setting.compute_seconds + gradients + alignment_seconds(ranks, setting, links)


def step_table(setting: Setting) -> str:
    """Markdown: a line for each number of ranks, with times on both makers' links."""
    both = (ASCEND, NVIDIA)
    names = " / ".join(links.name for links in both)
    lines = [
        "| ranks | gradients received (computed) | alignment received (computed) "
        f"| alignment's time, {names} (computed) "
        "| whole step (computed) | alignment's share (computed) |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for ranks in RANKS:
        gradients = gradient_bytes(setting.parameters, ranks)
        received = alignment_bytes("infonce", ranks, setting.batch, setting.dim)
        alignment = [alignment_seconds(ranks, setting, links) for links in both]
        whole = [step_seconds(ranks, setting, links) for links in both]
        share = [part / step for part, step in zip(alignment, whole)]
        lines.append(
            f"| {ranks} | {gradients / 1e6:,.0f} MB | {received / 1e6:,.1f} MB "
            f"| {_both('{:.1f}', (1e3 * seconds for seconds in alignment))} ms "
            f"| {_both('{:.0f}', (1e3 * seconds for seconds in whole))} ms "
            f"| {_both('{:.1f}', (100 * part for part in share))}% |"
        )
    return "\n".join(lines)


def _both(form: str, numbers: Iterable[float]) -> str:
    return " / ".join(form.format(number) for number in numbers)


def host_table(setting: Setting) -> str:
    """Markdown: what a node and a run's folder need, whatever the number of ranks."""
    need = setting.devices * setting.batch / setting.compute_seconds
    have = setting.devices * setting.cores * setting.images_per_core
    store = store_bytes(setting.texts, setting.dim, setting.id_bytes)
    matrix = matrix_bytes(setting.texts, setting.dim, setting.devices)
    network = checkpoint_bytes(setting.parameters, setting.statistics)
    last = checkpoint_bytes(setting.parameters, setting.statistics, setting.moments)
    rows = [
        ("images/s that a node's devices train", f"{need:,.0f}", "published, for one device"),
        ("images/s that a node's cores load", f"{have:,.0f}", "measured on one core"),
        ("store, page cache of a node", f"{store / 1e9:.1f} GB", "computed"),
        ("the same as a float32 matrix in each process", f"{matrix / 1e9:.0f} GB", "computed"),
        ("`last.ckpt`, `previous.ckpt`, each", f"{last / 1e6:,.0f} MB", "computed"),
        ("`best.ckpt`, without moments", f"{network / 1e6:,.0f} MB", "computed"),
        ("a run's folder", f"{(2 * last + network) / 1e6:,.0f} MB", "computed"),
    ]
    lines = ["| what | how much | |", "| --- | ---: | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)
