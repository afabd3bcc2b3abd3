"""A data set small enough to train on in seconds: three classes that differ in colour, with a text for each image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mindspore_gpt4image.data.store import write_store
from mindspore_gpt4image.sources.descriptions import file_sha256, write_descriptions

CLASSES = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 40, 50)}
SIDE = 16
TEXT_DIM = 8


def make_images(root: Path, split: str, per_class: int, seed: int = 0) -> list[str]:
    """Write `root/split/<class>/<n>.png` with noise around the class's colour; returns the ids in sorted order."""
    random = np.random.default_rng([seed, len(split)])
    ids = []
    for name, colour in CLASSES.items():
        folder = root / split / name
        folder.mkdir(parents=True)
        for number in range(per_class):
            pixels = np.clip(random.normal(colour, 60, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02d}.png")
            ids.append(f"{split}/{name}/{number:02d}.png")
    return ids


def make_store(root: Path, ids: list[str], name: str = "short.mindrecord", encoder: str = "random") -> Path:
    """Write descriptions of `ids` and a store of random unit vectors. Every fourth text repeats the one before."""
    random = np.random.default_rng(1)
    text_ids = [n - (n % 4 == 3) for n in range(len(ids))]
    vectors = random.standard_normal((len(ids), TEXT_DIM))[text_ids]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_descriptions(root / "descriptions.jsonl", [{"id": id, "short": f"text {t}"} for id, t in zip(ids, text_ids)])
    metadata = {
        "encoder": encoder,
        "text": "short",
        "truncated": 0,
        "descriptions_sha256": file_sha256(root / "descriptions.jsonl"),
    }
    write_store(root / name, ids, text_ids, vectors.astype(np.float32), metadata)
    return root / name


def make_data_set(root: Path) -> Path:
    """Splits train (8 a class), val (3) and test (3), descriptions and a store for all of them."""
    ids = [id for split, count in (("train", 8), ("val", 3), ("test", 3)) for id in make_images(root, split, count)]
    make_store(root, ids)
    return root


def overrides(root: Path, output: Path, **more: object) -> list[str]:
    """`key=value` for a short aligned run on the data set at `root`; keys in `more` have __ for a dot."""
    values = {
        "output": output,
        "seed": 1,
        "epochs": 2,
        "batch_size": 6,
        "data.root": root,
        "data.embeddings": root / "short.mindrecord",
        "model.name": "resnet10_cifar_half",
        "model.image_size": SIDE,
        "augment.crop": "padded",
        "augment.eval_resize": SIDE,
        "optimizer.name": "adamw",
        "optimizer.lr": 0.003,
        **{key.replace("__", "."): value for key, value in more.items()},
    }
    return [f"{key}={value}" for key, value in values.items()]
