"""Whether all ranks are about to do the same: one with another config, code or data would spoil a run in silence."""

from __future__ import annotations

import hashlib
import json
import socket
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

import mindspore_gpt4image
from mindspore_gpt4image.config import Config, options, to_dict
from mindspore_gpt4image.data.texts import Texts
from mindspore_gpt4image.distributed import texts_of_ranks, world_size
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.runs import PLACES, option
from mindspore_gpt4image.sources.image_set import ImageSet

_DIGEST = 16  # characters
_NAME = 256  # bytes


def share_folder(folder: Path, logs: str) -> str:
    """The name of rank 0's folder of logs, which all ranks must see in the run's folder.

    Args:
        folder: the run's.
        logs: name of this rank's launcher's folder in `folder/logs`.

    Raises:
        UserError: a rank sees another folder under this name; on all ranks.
    """
    name = texts_of_ranks(logs, _NAME)[0]
    sees = (folder / "logs" / name / "worker_0.log").is_file()
    blind = [number for number, said in enumerate(texts_of_ranks("yes" if sees else "no", 4)) if said == "no"]
    if blind:
        raise UserError(
            f"output={folder}: rank {blind[0]} on {_hosts()[blind[0]]} does not see there what rank 0 wrote; "
            "give a folder that all nodes share"
        )
    return name


def check_code() -> None:
    """See that all ranks run the same code; to be called first, since other code may compare other things.

    Raises:
        UserError: as `check_same`.
    """
    digest = hashlib.sha256()
    package = Path(mindspore_gpt4image.__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\n".encode() + path.read_bytes())
    check_same({"the code of mindspore_gpt4image": digest.hexdigest()})


def check_experiment(config: Config, train_set: ImageSet, val_set: ImageSet, texts: Optional[Texts]) -> None:
    """See that config, libraries, images and texts are the same on all ranks. Places may differ.

    Raises:
        UserError: as `check_same`.
    """
    if world_size() == 1:
        return
    values = to_dict(config)
    facts: dict[str, Any] = {key: option(values, key) for key, _ in options() if key not in PLACES}
    facts["the version of Python's packages"] = [metadata.version(name) for name in ("mindspore", "mindcv", "numpy")]
    for images in (train_set, val_set):
        facts[f"the images of {images.split}"] = [
            *(images.classes, images.ids, list(images.broken)),
            hashlib.sha256(images.labels.tobytes()).hexdigest(),
        ]
    facts["the embeddings"] = texts.metadata if texts else None
    check_same(facts)


def check_same(facts: dict[str, Any]) -> None:
    """See that every rank has the same facts as rank 0.

    Args:
        facts: values that JSON can hold, by names that are the same on every rank.

    Raises:
        UserError: a rank differs; the same on all ranks, with the rank, its host and the names.
    """
    digests = "".join(hashlib.sha256(json.dumps(fact).encode()).hexdigest()[:_DIGEST] for fact in facts.values())
    rows = texts_of_ranks(digests, len(digests))
    if len(set(rows)) == 1:
        return
    hosts = _hosts()
    for number, row in enumerate(rows):
        differ = [
            name
            for position, name in enumerate(facts)
            if row[position * _DIGEST :][:_DIGEST] != rows[0][position * _DIGEST :][:_DIGEST]
        ]
        if differ:
            raise UserError(
                f"rank {number} on {hosts[number]} differs from rank 0 on {hosts[0]} in {', '.join(differ)}; "
                "make it the same on every node"
            )


def _hosts() -> list[str]:
    """Host names by rank."""
    return texts_of_ranks(socket.gethostname(), _NAME)
