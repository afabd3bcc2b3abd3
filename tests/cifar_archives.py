"""The archives of CIFAR in the formats of their authors, with a few images a file."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np

CLASSES = {"cifar10": ("plane", "car", "bird"), "cifar100": ("zebra", "apple", "bear")}
FILES = {
    "cifar10": {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]},
    "cifar100": {"train": ["train"], "test": ["test"]},
}
ARCHIVES = {
    ("cifar10", "binary"): ("cifar-10-binary.tar.gz", "cifar-10-batches-bin"),
    ("cifar10", "python"): ("cifar-10-python.tar.gz", "cifar-10-batches-py"),
    ("cifar100", "binary"): ("cifar-100-binary.tar.gz", "cifar-100-binary"),
    ("cifar100", "python"): ("cifar-100-python.tar.gz", "cifar-100-python"),
}


def pixels_and_labels(data_set: str, split: str, per_file: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """What the archives hold: planes uint8 [n, 3, 32, 32], brighter for higher labels, and labels [n]."""
    count = per_file * len(FILES[data_set][split])
    random = np.random.default_rng([len(split), len(data_set)])
    labels = np.arange(count) % len(CLASSES[data_set])
    pixels = random.integers(0, 60, (count, 3, 32, 32)) + 80 * labels[:, None, None, None]
    return pixels.astype(np.uint8), labels


def archive_files(data_set: str, version: str, per_file: int = 4, protocol: int = 2) -> dict[str, bytes]:
    """Content by file name."""
    files = {}
    for split, names in FILES[data_set].items():
        pixels, labels = pixels_and_labels(data_set, split, per_file)
        for number, name in enumerate(names):
            part = slice(number * per_file, (number + 1) * per_file)
            rows, own = pixels[part].reshape(per_file, -1), labels[part]
            if version == "python":
                keys = {"cifar10": {b"labels": own.tolist()}, "cifar100": {b"fine_labels": own.tolist()}}[data_set]
                if data_set == "cifar100":
                    keys[b"coarse_labels"] = [19] * per_file
                files[name] = pickle.dumps({b"batch_label": name.encode(), b"data": rows, **keys}, protocol)
            else:
                coarse = [np.full((per_file, 1), 19)] if data_set == "cifar100" else []
                files[f"{name}.bin"] = np.hstack([*coarse, own[:, None], rows]).astype(np.uint8).tobytes()
    names = CLASSES[data_set]
    if version == "python":
        key = b"fine_label_names" if data_set == "cifar100" else b"label_names"
        files["meta" if data_set == "cifar100" else "batches.meta"] = pickle.dumps(
            {key: [name.encode() for name in names], b"num_vis": 3072}, protocol
        )
    else:
        files["fine_label_names.txt" if data_set == "cifar100" else "batches.meta.txt"] = "\n".join(
            [*names, ""]
        ).encode()
        files["readme.html"] = b"<html>"
    return files


def write_archive(folder: Path, data_set: str, version: str, files: dict[str, bytes] | None = None, **options) -> Path:
    """Write the archive, under the name its authors gave it."""
    name, inner = ARCHIVES[data_set, version]
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / name, "w:gz") as archive:
        for file, content in (files or archive_files(data_set, version, **options)).items():
            member = tarfile.TarInfo(f"{inner}/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return folder / name
