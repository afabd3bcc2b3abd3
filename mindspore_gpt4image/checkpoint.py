"""Checkpoints: written atomically, read strictly.

A checkpoint holds the network's parameters under their own names, what only training needs (moments, step counters)
under `training.…`, and two JSON texts: `model` (see `ModelInfo`) and `progress` (where training stood). The ending of
its name chooses the format: `.safetensors`, which other libraries read too, or MindSpore's own.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import replacing
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.models import create_network, deployable
from mindspore_gpt4image.models import weights as network_weights
from mindspore_gpt4image.runs import LAST

TRAINING_PREFIX = "training."
# Behind it: the moving average of a parameter, by that parameter's name.
EMA_PREFIX = "ema."
SAFETENSORS = ".safetensors"
# The last bytes of MindSpore's format, where it was saved with a checksum: this, and the number.
_CHECKSUM, _CHECKSUM_BYTES = b"crc_num", 17


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: parameters of the network, those of training, the model and the progress."""

    path: Path
    network: dict[str, Parameter]
    training: dict[str, Parameter]
    model: ModelInfo
    progress: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """The options `data.…` that the network was trained with; empty where the file does not say."""
        return self.progress.get("config", {}).get("data", {})

    def parameters(self, weights: str = "plain") -> dict[str, Parameter]:
        """The network's parameters by name: those of training ("plain"), or their moving average ("ema").

        Raises:
            UserError: the file holds no moving average.
        """
        if weights == "plain":
            return self.network
        averages = {
            name[len(EMA_PREFIX) :]: value for name, value in self.training.items() if name.startswith(EMA_PREFIX)
        }
        if not averages:
            raise UserError(f"--weights ema: {self.path} holds no moving average, it was trained without one")
        return averages

    def create_network(self, weights: str = "plain") -> nn.Cell:
        """The full network with the file's weights, projection included; see `parameters`.

        Raises:
            UserError: no such weights; missing, unexpected or mis-shaped parameters, all of them listed.
        """
        model = self.model
        network = create_network(
            model.network,
            len(model.classes),
            text_dim=model.text_dim,
            projection=model.projection,
            image_size=model.crop,
        )
        load_parameters(network_weights(network), self.parameters(weights), self.path)
        return network

    def create_classifier(self, weights: str = "plain") -> nn.Cell:
        """What is deployed: normalised images -> logits, in evaluation mode."""
        return deployable(self.create_network(weights)).set_train(False)


def save_checkpoint(
    path: str | Path,
    network: nn.Cell,
    model: ModelInfo,
    progress: dict[str, Any],
    training: dict[str, Parameter] | None = None,
) -> None:
    """Write a checkpoint; the previous one of that name stays whole until the new one is complete.

    Args:
        training: parameters that only training needs, by name; None for a checkpoint without them.

    Raises:
        UserError: a value is inf or NaN, or the file cannot be written.
    """
    parameters = network_weights(network)
    parameters.update({TRAINING_PREFIX + name: parameter for name, parameter in (training or {}).items()})
    if broken := _not_finite(parameters):
        raise UserError(
            f"{path}: not written, as {len(broken)} of the parameters are not finite ({broken[0]}, …); the file from "
            "before is as it was; lower optimizer.lr or set clip_norm"
        )
    texts = {"model": json.dumps(model.to_dict()), "progress": json.dumps(progress)}
    with replacing(path) as temporary:
        if temporary.suffix == SAFETENSORS:
            arrays = {name: parameter.asnumpy() for name, parameter in parameters.items()}
            save_file(arrays, temporary, metadata={**texts, "crc32": _checksum(arrays, texts)})
            return
        records = [{"name": name, "data": parameter} for name, parameter in parameters.items()]
        try:
            with _silent():
                # The checksum is what tells a flipped byte from a weight.
                ms.save_checkpoint(records, str(temporary), append_dict=texts, crc_check=True)
        finally:
            # MindSpore writes under a temporary name of its own, and leaves it behind when the disk is full.
            temporary.with_suffix(".tmp").unlink(missing_ok=True)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file that `save_checkpoint` wrote, or the `last.ckpt` of a run's folder.

    Raises:
        UserError: no such file, damaged, or not written by this package.
    """
    path = Path(path)
    if path.is_dir():
        path = path / LAST
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file")
    content, texts = _read_safetensors(path) if path.suffix == SAFETENSORS else _read_mindspore(path)
    try:
        model, progress = (json.loads(texts[key]) for key in ("model", "progress"))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"checkpoint {path}: was not written by this package (it lacks the model's description)"
        ) from error
    training = {name: value for name, value in content.items() if name.startswith(TRAINING_PREFIX)}
    return Checkpoint(
        path,
        network={name: value for name, value in content.items() if name not in training},
        training={name[len(TRAINING_PREFIX) :]: value for name, value in training.items()},
        model=ModelInfo.from_dict(model, f"checkpoint {path}"),
        progress=progress,
    )


def _read_mindspore(path: Path) -> tuple[dict[str, Parameter], dict[str, str]]:
    with _silent():
        try:
            # Without a checksum MindSpore would take whatever there is.
            if not _has_checksum(path):
                raise UserError(f"checkpoint {path}: damaged, or was not written by this package (it has no checksum)")
            content = ms.load_checkpoint(str(path), crc_check=True)
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            raise UserError(f"checkpoint {path}: damaged, or no MindSpore checkpoint") from error
    return content, {key: content.pop(key) for key in ("model", "progress") if key in content}


def _has_checksum(path: Path) -> bool:
    """Whether a file ends as MindSpore ends one that has a checksum."""
    with path.open("rb") as file:
        file.seek(-min(_CHECKSUM_BYTES, path.stat().st_size), os.SEEK_END)
        return file.read().startswith(_CHECKSUM)


def _read_safetensors(path: Path) -> tuple[dict[str, Parameter], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            texts = file.metadata() or {}
        arrays = load_file(path)
    except Exception as error:  # its header can ask for anything
        raise UserError(f"checkpoint {path}: damaged, or no safetensors file") from error
    texts = {key: texts[key] for key in ("model", "progress", "crc32") if key in texts}
    if texts.pop("crc32", None) != _checksum(arrays, texts):
        raise UserError(f"checkpoint {path}: damaged, or was not written by this package (its checksum is wrong)")
    return {name: Parameter(Tensor(array), name=name) for name, array in arrays.items()}, texts


def _checksum(arrays: dict[str, np.ndarray], texts: dict[str, str]) -> str:
    """CRC-32 of what a safetensors file holds: its format has none of its own."""
    total = zlib.crc32(json.dumps(sorted(texts.items())).encode())
    for name, array in sorted(arrays.items()):
        total = zlib.crc32(array.tobytes(), zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), total))
    return f"{total:08x}"


def load_parameters(target: dict[str, Parameter], values: dict[str, Parameter], source: str | Path) -> None:
    """Copy `values` into the parameters of the same names. All must match, or nothing is copied.

    Raises:
        UserError: missing, unexpected and mis-shaped names, or values that are not finite.
    """
    faults = []
    missing, unexpected = sorted(target.keys() - values.keys()), sorted(values.keys() - target.keys())
    shaped = [
        f"{name} {tuple(values[name].shape)} instead of {tuple(parameter.shape)}"
        for name, parameter in target.items()
        if name in values and tuple(values[name].shape) != tuple(parameter.shape)
    ]
    wrong = _not_finite(values)
    for title, names in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("mis-shaped", shaped),
        ("not finite", sorted(wrong)),
    ):
        if names:
            faults.append(f"{title}: {', '.join(names)}")
    if faults:
        raise UserError(f"checkpoint {source} does not fit the network; {'; '.join(faults)}")
    for name, parameter in target.items():
        parameter.set_data(values[name].astype(parameter.dtype))


def _not_finite(parameters: dict[str, Parameter]) -> list[str]:
    """Names of those that hold an inf or NaN."""
    return [name for name, parameter in parameters.items() if not np.isfinite(parameter.asnumpy()).all()]


@contextmanager
def _silent() -> Iterator[None]:
    """Keep MindSpore from logging what is raised as an error a moment later."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
