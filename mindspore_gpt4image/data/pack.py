"""Packing: images, labels, ids and text embeddings, joined once, into shards that MindData reads by itself."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Optional

import numpy as np
from PIL import Image
from tqdm import tqdm

from mindspore_gpt4image import __version__
from mindspore_gpt4image.data.read_ahead import read_ahead
from mindspore_gpt4image.data.store import EmbeddingStore, publish
from mindspore_gpt4image.data.texts import TextTargets, join_texts
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import write_json
from mindspore_gpt4image.sources.formats import list_images
from mindspore_gpt4image.sources.image_set import ImageSet
from mindspore_gpt4image.sources.mindrecord import index_file
from mindspore_gpt4image.sources.packed import PACK, digests

JPEG_QUALITY = 90  # of images that are stored smaller
_BLOCK_ROWS = 64
_MAX_IMAGE_BYTES = 31 << 20  # a MindRecord page holds 32 MB, and a row lies in one page


def pack(
    root: str | Path,
    output: str | Path,
    splits: Sequence[str],
    *,
    format: str = "auto",
    embeddings: str | Path | None = None,
    missing_text: str = "error",
    max_side: Optional[int] = None,
    shard_images: int = 10_000,
    workers: int = 1,
) -> dict[str, Any]:
    """Pack the splits of a data set, or go on where packing was stopped; the layout is that of `sources.packed`.

    Every image is decoded once, so that a broken one is found here. At the end every shard is read back through
    MindData and compared with what should be in it.

    Args:
        splits: their names; the classes of the first are those of all.
        format: of the data set, see `list_images`.
        embeddings: a store to join by id; None for baselines.
        missing_text: of the images of `train` that the store lacks: "error" refuses them, "skip" gives them text id -1.
            Images of other splits are never refused: they are not trained on.
        max_side: store images of `train` with no side longer than this; None: as they are. Other splits are always
            stored as they are, so that evaluation does not change.
        workers: threads.

    Returns:
        The contents of `pack.json`.

    Raises:
        UserError: a fault of the data set, of the store or of their join; an image that cannot be decoded; `output`
            holds another pack.
    """
    output = Path(output)
    store = EmbeddingStore.open(embeddings) if embeddings else None
    classes = None
    contents: list[_Split] = []
    for name in splits:
        images = list_images(root, name, format=format, classes=classes).checked()
        classes = images.classes
        is_train = name == "train"
        texts = _join(images, store, missing_text if is_train else None) if store else None
        for line in images.notes:
            print(f"note: {line}", file=sys.stderr)
        contents.append(_Split(images, texts, max_side if is_train else None))
    plan = _plan(contents, shard_images)
    _begin(output, plan)
    for split in contents:
        name, count = split.images.split, len(split.images)
        shards = _shards(output / name, count, shard_images)
        with tqdm(desc=f"pack {name}", total=count, unit="img", dynamic_ncols=True) as bar:
            for file, positions in shards:
                if index_file(file).exists():
                    bar.update(len(positions))
                else:
                    _write_shard(file, split, positions, workers, bar)
        with tqdm(desc=f"verify {name}", total=count, unit="img", dynamic_ncols=True) as bar:
            for file, positions in shards:
                _verify_shard(file, split, positions, workers, bar)
    plan["complete"] = True
    write_json(output / PACK, plan)
    return plan


def shrink(data: bytes, max_side: int) -> bytes:
    """An encoded image with no side longer than `max_side`; one that is small enough is returned as it is."""
    with Image.open(io.BytesIO(data)) as image:
        if max(image.size) <= max_side:
            return data
        format = image.format
        image.thumbnail((max_side, max_side), Image.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "PNG" if format == "PNG" else "JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue()


def _join(images: ImageSet, store: EmbeddingStore, missing_text: Optional[str]) -> TextTargets:
    """`join_texts`, or with None whatever texts there are."""
    if missing_text is None:
        return TextTargets(store, store.locate(images.ids))
    return join_texts(images, store, missing_text=missing_text)


def _plan(contents: Sequence[_Split], shard_images: int) -> dict[str, Any]:
    """What `pack.json` says; two packs with the same plan hold the same."""
    images, texts = contents[0].images, contents[0].texts
    return {
        "complete": False,
        "version": __version__,
        "source": str(images.root),
        "classes": list(images.classes),
        "splits": {
            split.images.split: {
                "images": len(split.images),
                **digests(split.images.ids, split.images.labels),
                "without_text": int((split.texts.row < 0).sum()) if split.texts else None,
                "max_side": split.max_side,
                "jpeg_quality": JPEG_QUALITY if split.max_side else None,
                "shards": [file.name for file, _ in _shards(Path(), len(split.images), shard_images)],
            }
            for split in contents
        },
        "texts": texts.metadata if texts else None,
    }


def _shards(folder: Path, count: int, shard_images: int) -> list[tuple[Path, range]]:
    """Each shard's file and the positions of its images."""
    starts = range(0, count, shard_images)
    return [
        (folder / f"{number:04d}.mindrecord", range(start, min(start + shard_images, count)))
        for number, start in enumerate(starts)
    ]


def _begin(output: Path, plan: dict[str, Any]) -> None:
    """Say what `output` will hold; refuse one that holds something else. What a killed process left is removed."""
    path = output / PACK
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: is damaged; choose another --output, or delete the folder") from error
        # The same images may be reached by another path.
        different = [key for key in plan.keys() - {"complete", "source"} if found.get(key) != plan[key]]
        if different:
            raise UserError(
                f"{output}: holds another pack (it differs in {', '.join(sorted(different))}); "
                "choose another --output, or delete the folder"
            )
        for draft in output.glob("*/.*.mindrecord.*"):
            shutil.rmtree(draft, ignore_errors=True)
        return
    if output.is_dir() and any(output.iterdir()):
        raise UserError(f"{output}: is not empty, and holds no pack; choose another --output")
    write_json(path, plan)


@dataclass(frozen=True, eq=False)
class _Split:
    """What is packed of one split."""

    images: ImageSet
    texts: Optional[TextTargets]
    max_side: Optional[int]

    @property
    def schema(self) -> dict[str, Any]:
        schema = {field: {"type": "int64"} for field in ("position", "crc32")}
        schema.update(id={"type": "string"}, label={"type": "int32"}, image={"type": "bytes"})
        if self.texts:
            # As bytes, of which every row has as many; numbers that are small would be stored in fewer.
            schema.update(text_id={"type": "int64"}, embedding={"type": "bytes"})
        return schema

    def rows(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """The fields of rows but for the image and its checksum."""
        ids, labels = self.images.ids, self.images.labels
        rows = [{"position": p, "id": ids[p], "label": int(labels[p])} for p in positions]
        if self.texts:
            embeddings, text_ids = self.texts.batch(np.array(positions))
            embeddings = embeddings.astype(self.texts.metadata["dtype"])
            for row, embedding, text_id in zip(rows, embeddings, text_ids.tolist()):
                row.update(embedding=embedding.tobytes(), text_id=text_id)
        return rows

    def image(self, position: int) -> bytes:
        """The encoded image, of which is known that it can be decoded."""
        self.images.rgb(position)
        data = self.images.encoded(position)
        data = data if self.max_side is None else shrink(data, self.max_side)
        if len(data) > _MAX_IMAGE_BYTES:
            raise UserError(
                f"{self.images.where(position)}: takes {len(data)} bytes encoded, at most {_MAX_IMAGE_BYTES} fit"
            )
        return data


def _write_shard(file: Path, split: _Split, positions: range, workers: int, bar: tqdm) -> None:
    from mindspore.mindrecord import FileWriter

    file.parent.mkdir(parents=True, exist_ok=True)
    # A MindRecord holds its own name: it can be moved, but not renamed.
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        draft = Path(folder, file.name)
        writer = FileWriter(str(draft))
        writer.add_schema(split.schema, "packed by mindspore_gpt4image")
        images = read_ahead(split.image, positions, workers, ahead=4 * workers)
        while block := list(islice(images, _BLOCK_ROWS)):
            rows = split.rows([position for position, _ in block])
            for row, (_, data) in zip(rows, block):
                row.update(image=data, crc32=zlib.crc32(data))
            writer.write_raw_data(rows)
            bar.update(len(rows))
        writer.commit()
        publish(draft, file)


def _verify_shard(file: Path, split: _Split, positions: range, workers: int, bar: tqdm) -> None:
    """Read a shard through MindData and compare it with what should be in it."""
    import mindspore.dataset as ds

    threads = min(workers, os.cpu_count() or 1)
    dataset = ds.MindDataset(str(file), num_parallel_workers=threads, shuffle=False)
    try:
        if dataset.get_dataset_size() != len(positions):
            raise UserError(f"{file}: holds another number of images than {len(positions)}; delete it and pack again")
        records = dataset.create_dict_iterator(num_epochs=1, output_numpy=True)
        for start in range(0, len(positions), _BLOCK_ROWS):
            for row, record in zip(split.rows(positions[start : start + _BLOCK_ROWS]), records):
                stored = {field: _plain(record[field]) for field in row}
                if stored != row or zlib.crc32(record["image"]) != record["crc32"]:
                    raise UserError(f"{file}: holds something else than {row['id']}; delete it and pack again")
                bar.update()
    except RuntimeError as error:
        raise UserError(f"{file}: MindSpore cannot read it, it is damaged; delete it and pack again") from error


def _plain(value: np.ndarray) -> int | str | bytes:
    """A field of a record as `_Split.rows` gives it."""
    return value.tobytes() if value.ndim else value.item()
