"""What a training step asks of links, hosts and memory on many ranks: formulas, and the README's table of them.

Bytes are those that one rank receives (it sends as many); R ranks with B images each, texts of k numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT, INT, HALF = 4, 4, 2  # bytes
LONG = 8
RANKS = (8, 16, 64, 256, 1024)


@dataclass(frozen=True)
class Setting:
    """What the table is made for: ImageNet, ResNet-50, nodes of 8 devices.

    Attributes:
        texts: in the store, n.
        dim: numbers in an embedding, k.
        batch: images on a rank, B.
        parameters: of the network with its projection.
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
    devices: int = 8
    cores: int = 12
    images_per_core: float = 480.0
    id_bytes: int = 38


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


def table(setting: Setting) -> str:
    """Markdown: a line for each number of ranks."""
    lines = [
        "| ranks | alignment, received a step (computed) | gradients, received a step (computed) "
        "| host, images/s per device (measured on a core) | store, memory a node (computed) |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    host = setting.images_per_core * setting.cores
    memory = store_bytes(setting.texts, setting.dim, setting.id_bytes)
    for ranks in RANKS:
        alignment = alignment_bytes("infonce", ranks, setting.batch, setting.dim)
        gradients = gradient_bytes(setting.parameters, ranks)
        lines.append(
            f"| {ranks} | {alignment / 1e6:,.1f} MB | {gradients / 1e6:,.0f} MB | {host:,.0f} | {memory / 1e9:.1f} GB |"
        )
    return "\n".join(lines)
