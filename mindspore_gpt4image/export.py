"""The deployable classifier as one file, MINDIR or ONNX, proved equal to the network it came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Optional

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from mindspore_gpt4image.checkpoint import load_parameters
from mindspore_gpt4image.classifiers import load_exported
from mindspore_gpt4image.device import use_device
from mindspore_gpt4image.errors import UserError, first_line
from mindspore_gpt4image.files import replacing
from mindspore_gpt4image.model_info import PIXELS, ModelInfo, check_describable, describe_model_file
from mindspore_gpt4image.models import Classify, Preprocess, create_network, deployable
from mindspore_gpt4image.models.network import Deployable, Network
from mindspore_gpt4image.onnx_graph import OPEN_BATCH, finish_onnx, mark_gelu
from mindspore_gpt4image.sources.evaluation_batches import evaluation_batches
from mindspore_gpt4image.sources.formats import list_images, validation_split

FORMATS = {".mindir": "MINDIR", ".onnx": "ONNX"}
# Largest difference of logits between the exported and the original network, as `largest_difference` measures it.
TOLERANCE = {"float32": 1e-4, "float16": 0.05}
BATCHES = (1, 2, 5)


@dataclass(frozen=True)
class ReadBack:
    """What running the exported file showed.

    Attributes:
        model: what `model.yaml` now says.
        batches: the sizes of the batches it was run at.
        random: largest difference of a logit from the original network on random images, relative to the largest
            logit where that is above 1.
        real: likewise on real images; None without any.
    """

    model: ModelInfo
    batches: tuple[int, ...]
    random: float
    real: Optional[float]

    @property
    def largest(self) -> float:
        """Of both kinds of images; NaN if either is."""
        return float(np.max([self.random, self.real or 0.0]))


def export_classifier(
    network: nn.Cell,
    model: ModelInfo,
    path: str | Path,
    *,
    batch: Optional[int] = None,
    image_size: Optional[int] = None,
    dtype: str = "float32",
    pixels: bool = False,
    real_images: Optional[np.ndarray] = None,
) -> ReadBack:
    """Write the classifier without its projection, in evaluation mode, and `model.yaml` beside it.

    The file is read back by the runtime it is for and run before it takes its name.

    Args:
        network: a network of `create_network`, its `deployable`, or a cell that holds one, such as a training step; in
            any mode. It stays as it is.
        model: its description.
        path: the ending says the format, see `FORMATS`.
        batch: the only batch size of the graph; None: any.
        image_size: height and width of its images; None: `model.crop`.
        dtype: of the weights and of the arithmetic, float32 or float16. Images and logits stay float32.
        pixels: whether the graph takes uint8 [N, H, W, 3] and normalises by itself, in place of normalised float32
            [N, 3, H, W].
        real_images: uint8 [n, H, W, 3] to compare on, besides random ones, as `model.transform` makes them.

    Raises:
        UserError: unknown ending, another model's `model.yaml` stands there, the network cannot be exported so, or the
            logits differ by more than `TOLERANCE`; then nothing is left behind.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise UserError(
            f"--output {path}: the ending says the format; write a name that ends in {' or '.join(FORMATS)}"
        )
    size = image_size or model.crop
    described = replace(model.at_size(size), input=PIXELS if pixels else model.input)
    check_describable(path, described)
    use_device("CPU")

    original = Classify(_copy(network, described), Preprocess(model.mean, model.std)).set_train(False)
    if image_size is not None:
        _check_size(original, size)
    copy = _copy(network, described)
    with replacing(path) as temporary:
        write = _write_onnx if path.suffix == ".onnx" else _write
        write(Graph(copy, described, dtype), temporary, batch)
        logits = load_exported(temporary, described, batch)
        batches = BATCHES if batch is None else (batch,)
        random = np.random.default_rng(0).integers(0, 256, (max(batches), size, size, 3), np.uint8)
        read_back = ReadBack(
            described,
            batches,
            random=largest_difference(original.on_arrays, logits, random, batches),
            real=None if real_images is None else largest_difference(original.on_arrays, logits, real_images, batches),
        )
        # Not `>`: NaN must fail, too.
        if not read_back.largest <= TOLERANCE[dtype]:
            raise UserError(
                f"{path}: exported logits differ from the network's by {read_back.largest:.2g}; not written"
            )
    describe_model_file(path, described, batch, dtype)
    return read_back


class Graph(nn.Cell):
    """What the file holds.

    Args:
        classifier: normalised images to logits; its parameters become `dtype`.
        model: says whether the inputs are pixels.
    """

    def __init__(self, classifier: nn.Cell, model: ModelInfo, dtype: str):
        super().__init__(auto_prefix=False)
        self.size, self.pixels, self.dtype = model.crop, model.input == PIXELS, getattr(ms, dtype)
        self.preprocess = Preprocess(model.mean, model.std)
        self.classifier = classifier
        for parameter in classifier.get_parameters():
            parameter.set_dtype(self.dtype)
        self.set_train(False)

    def inputs(self, batch: Optional[int]) -> Tensor:
        """A placeholder of the images."""
        shape = [batch, self.size, self.size, 3] if self.pixels else [batch, 3, self.size, self.size]
        return Tensor(shape=shape, dtype=ms.uint8 if self.pixels else ms.float32)

    def construct(self, images: Tensor) -> Tensor:
        if self.pixels:
            images = self.preprocess(images)
        return self.classifier(images.astype(self.dtype)).astype(ms.float32)


def largest_difference(one, other, images: np.ndarray, batches: tuple[int, ...]) -> float:
    """Largest difference of logits over batches of the images, relative to the largest logit where that is above 1.

    Args:
        one: pixels uint8 [B, H, W, 3] to logits; `other` likewise.
        batches: their sizes; where there are fewer images, these come again.
    """
    differences = []
    for batch in batches:
        part = np.resize(images, (batch, *images.shape[1:]))
        expected = one(part)
        differences.append(np.abs(expected - other(part)).max() / max(1.0, np.abs(expected).max()))
    return float(np.max(differences))


def sample_pixels(root: str | Path, model: ModelInfo) -> np.ndarray:
    """uint8 [n, crop, crop, 3]: a few images of a data set's validation split, spread over it.

    Raises:
        UserError: see `list_images`; an image cannot be read.
    """
    images = list_images(root, validation_split(root))
    positions = np.linspace(0, len(images) - 1, max(BATCHES)).round().astype(int)
    ((pixels, _),) = evaluation_batches(images, positions, model.transform, len(positions), workers=1)
    return pixels


def load_mindir(path: str | Path) -> nn.Cell:
    """The graph in a MINDIR file.

    Raises:
        UserError: damaged, or no MINDIR.
    """
    try:
        return nn.GraphCell(ms.load(str(path)))
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged, or no MINDIR") from error


def _copy(network: nn.Cell, model: ModelInfo) -> nn.Cell:
    """A classifier of its own with the same weights, for images of the size of `model`."""
    cells = (cell for _, cell in network.cells_and_names() if isinstance(cell, (Network, Deployable)))
    # By their places in the cell: the parameters' own names depend on what the network was put into.
    values = {
        name: parameter
        for name, parameter in next(cells).parameters_and_names()
        if name.startswith(("backbone.", "classifier."))
    }
    copy = deployable(create_network(model.network, len(model.classes), projection="none", image_size=model.crop))
    target = dict(copy.parameters_and_names())
    position = "backbone.pos_embed"
    if position in target and target[position].shape != values[position].shape:
        raise UserError(f"--image-size {model.crop}: the position embedding of {model.network} is of another size")
    load_parameters(target, values, model.network)
    return copy


def _check_size(original: Classify, size: int) -> None:
    try:
        original.on_arrays(np.zeros((1, size, size, 3), np.uint8))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = first_line(error)
        raise UserError(f"--image-size {size}: the network cannot run at it ({reason})") from error


def _write(graph: Graph, path: Path, batch: Optional[int]) -> None:
    # Of its own, because `ms.export` takes everybody else's right to read the folder away.
    with TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder, path.name)
        try:
            ms.export(graph, graph.inputs(batch), file_name=str(whole), file_format=FORMATS[path.suffix])
        except (RuntimeError, ValueError, TypeError) as error:
            reason = first_line(error)
            raise UserError(f"MindSpore cannot write this network as {FORMATS[path.suffix]}: {reason}") from error
        whole.replace(path)


def _write_onnx(graph: Graph, path: Path, batch: Optional[int]) -> None:
    mark_gelu(graph)
    _write(graph, path, batch or OPEN_BATCH)
    finish_onnx(path, is_open=batch is None)
