"""Weights between PyTorch's state dicts and this package's networks, as NumPy arrays.

One table a layout maps a parameter's name here to its name there; both directions read the same table.
"""

import re
from collections.abc import Mapping
from typing import Callable, NamedTuple, Union

import numpy as np
from mindspore import nn

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.models import deployable
from mindspore_gpt4image.models.convnext import ConvNeXt
from mindspore_gpt4image.models.network import Network
from mindspore_gpt4image.models.resnet import ResNet
from mindspore_gpt4image.models.vit import VisionTransformer

Names = Union[str, tuple[str, ...]]


class Rule(NamedTuple):
    """Where the parameters whose name here matches a pattern are found there.

    Attributes:
        pattern: of the whole name, without `backbone.`.
        names: called with the pattern's numbers and, last, the parameter's own name there (`weight`, `running_mean`, …);
            gives its name, or those of the parts that follow one another along the first axis.
        trailing: axes of length one that it has there behind its own.
    """

    pattern: str
    names: Callable[..., Names]
    trailing: tuple[int, ...] = ()


# A parameter's own name here and there; the pattern's last group.
_OWN = {
    "weight": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_P = rf"\.({'|'.join(_OWN)})"


def _same(pattern: str) -> Rule:
    """A cell of the same name here and there; `{}` stands for each number."""
    return Rule(pattern.replace(".", r"\.").replace("{}", r"(\d+)") + _P, lambda *groups: pattern_name(pattern, groups))


def pattern_name(pattern: str, groups: tuple) -> str:
    return pattern.format(*groups[:-1]) + "." + groups[-1]
