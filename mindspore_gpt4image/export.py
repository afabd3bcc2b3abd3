"""The deployable classifier as one file, proved equal to the checkpoint it came from."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from mindspore_gpt4image.checkpoint import Checkpoint
from mindspore_gpt4image.device import use_device
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import replacing
from mindspore_gpt4image.model_info import ModelInfo

# Largest difference of a logit between the exported and the original network.
TOLERANCE = 1e-4
BATCHES = (1, 2, 5)


def export_mindir(checkpoint: Checkpoint, path: str | Path) -> float:
    """Write the classifier without its projection as MINDIR with a dynamic batch, and `model.yaml` beside it.

    Input: float32 [N, 3, crop, crop], normalised as `model.yaml` says; output: logits, float32 [N, C]. The file is read
    back and run on random images at several batches before it takes its name.

    Returns:
        The largest difference of logits seen.

    Raises:
        UserError: the ending is not .mindir, another model's `model.yaml` stands there, or the logits differ by more
            than `TOLERANCE`; then nothing is left behind.
    """
    path = Path(path)
    if path.suffix != ".mindir":
        raise UserError(f"--output {path}: the ending says the format; write a name that ends in .mindir")
    info = path.with_name("model.yaml")
    if info.exists() and ModelInfo.load(info) != checkpoint.model:
        raise UserError(f"{info}: describes another model; choose another folder for {path.name}")
    use_device("CPU")
    classifier = checkpoint.create_classifier()
    size = checkpoint.model.crop
    with replacing(path) as temporary:
        inputs = Tensor(shape=[None, 3, size, size], dtype=ms.float32)
        ms.export(classifier, inputs, file_name=str(temporary), file_format="MINDIR")
        difference = largest_difference(classifier, load_mindir(temporary), size)
        if not difference <= TOLERANCE:
            raise UserError(f"{path}: exported logits differ from the checkpoint's by {difference:.2g}; not written")
    checkpoint.model.save(info)
    return difference


def load_mindir(path: str | Path) -> nn.Cell:
    """The classifier in a MINDIR file: normalised images -> logits.

    Raises:
        UserError: no such file, or no MINDIR.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return nn.GraphCell(ms.load(str(path)))
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged, or no MINDIR") from error


def largest_difference(one: nn.Cell, other: nn.Cell, image_size: int) -> float:
    """Largest absolute difference of logits over random images in batches of several sizes."""
    random = np.random.default_rng(0)
    differences = []
    for batch in BATCHES:
        images = Tensor(random.standard_normal((batch, 3, image_size, image_size)), ms.float32)
        differences.append(np.abs(one(images).asnumpy() - other(images).asnumpy()).max())
    return float(np.max(differences))
