"""Starting from the weights of another training."""

from __future__ import annotations

import sys

from mindspore import nn

from mindspore_gpt4image.checkpoint import load_parameters, read_checkpoint
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.models import weights
from mindspore_gpt4image.released import locate_checkpoint


def load_pretrained(network: nn.Cell, model: ModelInfo, source: str) -> None:
    """Give `network` the weights of a checkpoint, and print which of its parts start fresh.

    The backbone must fit. The classifier is taken only from a checkpoint with the same classes in the same order, the
    projection only from one with the same kind of projection into a space of the same dimension. Moments, averages and
    counters are left behind.

    Args:
        model: describes `network`.
        source: file, run's folder, or released name.

    Raises:
        UserError: another network, or missing, unexpected and mis-shaped parameters of the backbone.
    """
    checkpoint = read_checkpoint(locate_checkpoint(source))
    old = checkpoint.model
    if old.network != model.network:
        raise UserError(
            f"checkpoint {checkpoint.path}: holds a {old.network}; set model.name={old.network} to start from it, "
            f"not {model.network}"
        )
    fresh = []
    if old.classes != model.classes:
        fresh.append(("classifier.", f"{len(old.classes)} classes there, {len(model.classes)} other ones here"))
    if (old.projection, old.text_dim) != (model.projection, model.text_dim):
        there, here = (f"{m.projection} to {m.text_dim}" if m.text_dim else "none" for m in (old, model))
        fresh.append(("projection.", f"{there} there, {here} here"))
    prefixes = tuple(prefix for prefix, _ in fresh)
    target, values = (
        {name: value for name, value in parameters.items() if not name.startswith(prefixes)}
        for parameters in (weights(network), checkpoint.network)
    )
    load_parameters(target, values, checkpoint.path)
    print(f"{checkpoint.path}: {len(target)} parameters loaded" + ("" if fresh else ", all there are"), file=sys.stderr)
    for prefix, reason in fresh:
        names = ", ".join(name for name in weights(network) if name.startswith(prefix)) or "nothing"
        print(f"not loaded: {prefix[:-1]} ({reason}); fresh here: {names}", file=sys.stderr)
