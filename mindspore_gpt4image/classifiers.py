"""A trained classifier from whatever holds one: checkpoint, run folder, released name, MINDIR or ONNX file.

Imports MindSpore only where a file needs it: an ONNX file does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

import numpy as np

from mindspore_gpt4image.errors import UserError, first_line
from mindspore_gpt4image.model_info import PIXELS, ModelInfo, read_model_file
from mindspore_gpt4image.released import locate_checkpoint

if TYPE_CHECKING:
    from mindspore_gpt4image.checkpoint import Checkpoint

Graph = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Classifier:
    """A classifier in evaluation mode.

    Attributes:
        path: the file it came from.
        model: classes and preprocessing.
        logits: pixels uint8 [B, crop, crop, 3], as `model.transform` makes them, to logits float32 [B, C].
        checkpoint: what the file holds besides; None for an exported one.
        weights: "plain" or "ema", those that were taken from the checkpoint.
    """

    path: Path
    model: ModelInfo
    logits: Graph
    checkpoint: Optional[Checkpoint] = None
    weights: str = "plain"


def load_classifier(name_or_file: str | Path, weights: str = "plain", device: str = "CPU") -> Classifier:
    """Load a classifier, ready to run.

    Args:
        name_or_file: released name, checkpoint, folder of a run (then its last.ckpt), or a `.mindir` or `.onnx` file
            with its `model.yaml` beside it.
        weights: "plain", or "ema" for the moving average in a checkpoint.
        device: "CPU", "GPU" or "Ascend"; an ONNX file runs on CPU alone.

    Raises:
        UserError: the file, or the description beside it, is missing, damaged or not this package's.
    """
    path = locate_checkpoint(str(name_or_file))
    if path.suffix not in (".mindir", ".onnx"):
        return _from_checkpoint(path, weights, device)
    if weights != "plain":
        raise UserError(f"--weights {weights}: {path} holds the weights that were chosen at its export")
    model, file = read_model_file(path)
    return Classifier(path, model, load_exported(path, model, file.batch, device))


def load_exported(path: Path, model: ModelInfo, batch: Optional[int], device: str = "CPU") -> Graph:
    """The graph of a `.mindir` or `.onnx` file as a function from pixels to logits, as in `Classifier`.

    Args:
        batch: the one batch size that it takes; None: any.

    Raises:
        UserError: damaged, or no such file; when called, a graph that does not fit `model`.
    """
    graph = _load_onnx(path, device) if path.suffix == ".onnx" else _load_mindir(path, device)
    return _Exported(path, graph, model, batch)


def normalise(pixels: np.ndarray, model: ModelInfo) -> np.ndarray:
    """uint8 [B, H, W, 3] to (x / 255 - mean) / std, float32 [B, 3, H, W]."""
    mean, std = np.asarray(model.mean), np.asarray(model.std)
    scaled = pixels * (1 / (255 * std)).astype(np.float32) - (mean / std).astype(np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


class _Exported:
    """From pixels to logits through an exported graph: normalised where it wants that, in batches as it takes them."""

    def __init__(self, path: Path, graph: Graph, model: ModelInfo, batch: Optional[int]):
        self.path, self.graph, self.model, self.batch = path, graph, model, batch

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        inputs = pixels if self.model.input == PIXELS else normalise(pixels, self.model)
        if self.batch is None:
            return self._run(inputs)
        missing = -len(inputs) % self.batch
        filled = np.concatenate([inputs, np.zeros((missing, *inputs.shape[1:]), inputs.dtype)])
        parts = [self._run(part) for part in np.split(filled, len(filled) // self.batch)]
        return np.concatenate(parts)[: len(inputs)]

    def _run(self, inputs: np.ndarray) -> np.ndarray:
        described = f"{inputs.dtype} {list(inputs.shape)}"
        try:
            logits = self.graph(inputs)
        except Exception as error:  # either runtime has kinds of its own for a graph that wants other inputs
            reason = first_line(error)
            raise UserError(
                f"{self.path}: cannot be run on {described}, which its model.yaml asks for ({reason})"
            ) from error
        if logits.shape != (len(inputs), len(self.model.classes)):
            raise UserError(
                f"{self.path}: gives {list(logits.shape)} for {described}, but its model.yaml names "
                f"{len(self.model.classes)} classes"
            )
        return logits


def _load_onnx(path: Path, device: str) -> Graph:
    if device != "CPU":
        raise UserError(f"--device {device}: {path} is run by onnxruntime on CPU; choose CPU, or export a .mindir")
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: needs onnxruntime; pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, too
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes, one a kind of damage
        raise UserError(f"{path}: damaged, or no ONNX model") from error
    name = session.get_inputs()[0].name
    return lambda inputs: session.run(None, {name: inputs})[0]


def _load_mindir(path: Path, device: str) -> Graph:
    from mindspore import Tensor

    from mindspore_gpt4image.device import use_device
    from mindspore_gpt4image.export import load_mindir

    use_device(device)
    cell = load_mindir(path)
    return lambda inputs: cell(Tensor(inputs)).asnumpy()


def _from_checkpoint(path: Path, weights: str, device: str) -> Classifier:
    from mindspore_gpt4image.checkpoint import read_checkpoint
    from mindspore_gpt4image.device import use_device
    from mindspore_gpt4image.models import Classify, Preprocess

    use_device(device)
    checkpoint = read_checkpoint(path)
    model = checkpoint.model
    cell = Classify(checkpoint.create_classifier(weights), Preprocess(model.mean, model.std)).set_train(False)
    return Classifier(checkpoint.path, model, cell.on_arrays, checkpoint, weights)
