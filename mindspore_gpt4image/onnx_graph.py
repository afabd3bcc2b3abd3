"""What MindSpore's ONNX writer (opset 11) lacks: the error function, and a batch size that is left open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mindspore import Tensor, nn, ops

from mindspore_gpt4image.errors import UserError

# The batch size a graph is written with before it is opened: a prime, so that what is a multiple of it is a batch.
OPEN_BATCH = 1009
# The input of an operator that may hold the batch size, and what means "all of it" there.
_SHAPE_INPUT = {"Reshape": (1, -1), "Slice": (2, 2**31 - 1)}
# An operator that the writer knows and no network uses, in the place of the error function.
_MARKER = "Softsign"


class _MarkedGelu(nn.Cell):
    """The exact GELU, x / 2 (1 + erf(x / sqrt 2)), with the marker for erf."""

    def __init__(self):
        super().__init__()
        self.marker = ops.Softsign()

    def construct(self, x: Tensor) -> Tensor:
        return x * 0.5 * (self.marker(x / 1.4142135623730951) + 1.0)


def mark_gelu(cell: nn.Cell) -> None:
    """Put the marker into every exact GELU below `cell`."""
    for _, parent in list(cell.cells_and_names()):
        for name, child in parent.name_cells().items():
            if isinstance(child, nn.GELU) and child.approximate == "none":
                setattr(parent, name, _MarkedGelu())


def finish_onnx(path: Path, is_open: bool) -> None:
    """Turn what MindSpore wrote for a cell with marks into the graph that was meant, in place.

    Its input is called `images` and its output `logits`.

    Args:
        is_open: it was written at `OPEN_BATCH` and shall take any batch.

    Raises:
        UserError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError("writing ONNX needs the package onnx; pip install 'numpy<2' onnx onnxruntime") from error

    model = onnx.load(str(path))
    graph = model.graph
    for node in graph.node:
        if node.op_type == _MARKER:
            node.op_type = "Erf"
    _rename(graph, graph.input[0].name, "images")
    _rename(graph, graph.output[0].name, "logits")
    if is_open:
        _open_batch(graph)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _rename(graph, old: str, new: str) -> None:
    for value in (*graph.input, *graph.output):
        if value.name == old:
            value.name = new
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def _open_batch(graph) -> None:
    """Take `OPEN_BATCH` out of the shapes of input and output and of the constants that operators take shapes from."""
    from onnx import numpy_helper

    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    # What was inferred for the one batch size.
    del graph.value_info[:]
    constants = {constant.name: constant for constant in graph.initializer}
    constants.update({node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"})
    for node in graph.node:
        if node.op_type not in _SHAPE_INPUT:
            continue
        position, any_size = _SHAPE_INPUT[node.op_type]
        constant = constants.get(node.input[position])
        if constant is not None:
            values = numpy_helper.to_array(constant)
            batches = (values != 0) & (values % OPEN_BATCH == 0)
            constant.CopyFrom(numpy_helper.from_array(np.where(batches, any_size, values), constant.name))
