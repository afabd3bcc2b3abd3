"""Weights from PyTorch's state dicts into this package's networks, and back.

A layout is a table of names: a cell here (without `backbone.`) to the module there, or a whole parameter to a whole
parameter. A tuple names the parts that follow one another along the first axis. Both directions read the same table.
`released` is the layout of GPT4Image's own files, which hold the projection too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Optional, Union

import numpy as np
from mindspore import Parameter, Tensor, nn

from mindspore_gpt4image.checkpoint import load_parameters, save_checkpoint
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.models import create_network, weights
from mindspore_gpt4image.models.convnext import ConvNeXt
from mindspore_gpt4image.models.network import Network
from mindspore_gpt4image.models.resnet import ResNet
from mindspore_gpt4image.models.vit import VisionTransformer

Layout = dict[str, Union[str, tuple[str, ...]]]

_STAGES = range(4)
_BLOCKS = range(40)  # more than any network here has in a stage

# The last part of a name here and there; layer and batch normalisation call their weights gamma and beta here.
_OWN_NAMES = {
    "weight": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _resnet_torchvision() -> Layout:
    """timm's names are the same."""
    table = {"conv1": "conv1", "bn1": "bn1", "classifier": "fc"}
    for stage in _STAGES:
        for block in _BLOCKS:
            cell = f"layer{stage + 1}.{block}"
            parts = [f"{kind}{index}" for kind in ("conv", "bn") for index in (1, 2, 3)]
            for part in [*parts, "downsample.0", "downsample.1"]:
                table[f"{cell}.{part}"] = f"{cell}.{part}"
    return table


def _released(layout: Layout, prefix: str = "") -> Layout:
    """GPT4Image's files: a layout of others, behind `model.` for ResNet, and the projection (linear, or an MLP)."""
    table = {here: f"{prefix}{there}" for here, there in layout.items()}
    for part in ("", ".0", ".1", ".2", ".3"):
        table[f"projection{part}"] = f"proj_layer{part}"
    return table


def _resnet_transformers() -> Layout:
    stem = "resnet.embedder.embedder"
    table = {"conv1": f"{stem}.convolution", "bn1": f"{stem}.normalization", "classifier": "classifier.1"}
    for stage in _STAGES:
        for block in _BLOCKS:
            here, there = f"layer{stage + 1}.{block}", f"resnet.encoder.stages.{stage}.layers.{block}"
            for index in range(3):
                table[f"{here}.conv{index + 1}"] = f"{there}.layer.{index}.convolution"
                table[f"{here}.bn{index + 1}"] = f"{there}.layer.{index}.normalization"
            table[f"{here}.downsample.0"] = f"{there}.shortcut.convolution"
            table[f"{here}.downsample.1"] = f"{there}.shortcut.normalization"
    return table


def _convnext(
    stem: tuple[str, str], downsample: str, block: str, parts: tuple[str, ...], head: tuple[str, str]
) -> Layout:
    """`downsample` and `block` are templates of a stage's and a block's number; `parts` are the names inside a block of
    the depthwise convolution, the normalisation, the two dense layers and the layer scale."""
    table = {"downsample_layers.0.0": stem[0], "downsample_layers.0.1.norm": stem[1]}
    for stage in _STAGES[1:]:
        there = downsample.format(stage=stage, features=2 * stage)
        table[f"downsample_layers.{stage}.0.norm"] = f"{there}.0"
        table[f"downsample_layers.{stage}.1"] = f"{there}.1"
    for stage in _STAGES:
        for index in _BLOCKS:
            there = block.format(stage=stage, features=2 * stage + 1, block=index)
            for here, part in zip(("dwconv", "norm", "pwconv1", "pwconv2", "gamma"), parts):
                table[f"stages.{stage}.{index}.{here}"] = f"{there}.{part}"
    table["norm"], table["classifier"] = head
    return table


def _convnext_official() -> Layout:
    return _convnext(
        stem=("downsample_layers.0.0", "downsample_layers.0.1"),
        downsample="downsample_layers.{stage}",
        block="stages.{stage}.{block}",
        parts=("dwconv", "norm", "pwconv1", "pwconv2", "gamma"),
        head=("norm", "head"),
    )


def _convnext_timm() -> Layout:
    return _convnext(
        stem=("stem.0", "stem.1"),
        downsample="stages.{stage}.downsample",
        block="stages.{stage}.blocks.{block}",
        parts=("conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma"),
        head=("head.norm", "head.fc"),
    )


def _convnext_torchvision() -> Layout:
    return _convnext(
        stem=("features.0.0", "features.0.1"),
        downsample="features.{features}",
        block="features.{features}.{block}",
        parts=("block.0", "block.2", "block.3", "block.5", "layer_scale"),
        head=("classifier.0", "classifier.2"),
    )


def _convnext_transformers() -> Layout:
    return _convnext(
        stem=("convnext.embeddings.patch_embeddings", "convnext.embeddings.layernorm"),
        downsample="convnext.encoder.stages.{stage}.downsampling_layer",
        block="convnext.encoder.stages.{stage}.layers.{block}",
        parts=("dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter"),
        head=("convnext.layernorm", "classifier"),
    )


def _vit_timm() -> Layout:
    """The names of DeiT's own code and of GPT4Image's."""
    names = ["cls_token", "pos_embed", "patch_embed.proj", "norm"]
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    names += [f"blocks.{block}.{part}" for block in _BLOCKS for part in parts]
    return {**{name: name for name in names}, "classifier": "head"}


def _vit_torchvision() -> Layout:
    table = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "patch_embed.proj": "conv_proj",
        "norm": "encoder.ln",
        "classifier": "heads.head",
    }
    for block in _BLOCKS:
        here, there = f"blocks.{block}", f"encoder.layers.encoder_layer_{block}"
        table[f"{here}.norm1"] = f"{there}.ln_1"
        table[f"{here}.attn.qkv.weight"] = f"{there}.self_attention.in_proj_weight"
        table[f"{here}.attn.qkv.bias"] = f"{there}.self_attention.in_proj_bias"
        table[f"{here}.attn.proj"] = f"{there}.self_attention.out_proj"
        table[f"{here}.norm2"] = f"{there}.ln_2"
        table[f"{here}.mlp.fc1"] = f"{there}.mlp.0"
        table[f"{here}.mlp.fc2"] = f"{there}.mlp.3"
    return table


def _vit_transformers_style(block: str, qkv: tuple[str, str, str], parts: tuple[str, str, str]) -> Layout:
    """`block` is a template of a block's number; `parts` are the dense layers after the attention and in the MLP."""
    table = {
        "cls_token": "vit.embeddings.cls_token",
        "pos_embed": "vit.embeddings.position_embeddings",
        "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "norm": "vit.layernorm",
        "classifier": "classifier",
    }
    for index in _BLOCKS:
        here, there = f"blocks.{index}", block.format(index)
        table[f"{here}.norm1"] = f"{there}.layernorm_before"
        table[f"{here}.attn.qkv"] = tuple(f"{there}.{part}" for part in qkv)
        table[f"{here}.norm2"] = f"{there}.layernorm_after"
        for cell, part in zip(("attn.proj", "mlp.fc1", "mlp.fc2"), parts):
            table[f"{here}.{cell}"] = f"{there}.{part}"
    return table


def _vit_transformers() -> Layout:
    """As the files are written, by version 5 too."""
    return _vit_transformers_style(
        block="vit.encoder.layer.{}",
        qkv=("attention.attention.query", "attention.attention.key", "attention.attention.value"),
        parts=("attention.output.dense", "intermediate.dense", "output.dense"),
    )


def _vit_transformers5() -> Layout:
    """As version 5 names a model in memory."""
    return _vit_transformers_style(
        block="vit.layers.{}",
        qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
        parts=("attention.o_proj", "mlp.fc1", "mlp.fc2"),
    )


_LAYOUTS: dict[type[nn.Cell], dict[str, Layout]] = {
    ResNet: {
        "torchvision": _resnet_torchvision(),
        "timm": _resnet_torchvision(),
        "transformers": _resnet_transformers(),
        "released": _released(_resnet_torchvision(), "model."),
    },
    ConvNeXt: {
        "official": _convnext_official(),
        "timm": _convnext_timm(),
        "torchvision": _convnext_torchvision(),
        "transformers": _convnext_transformers(),
    },
    VisionTransformer: {
        "timm": _vit_timm(),
        "torchvision": _vit_torchvision(),
        "transformers": _vit_transformers(),
        "transformers5": _vit_transformers5(),
        "released": _released(_vit_timm()),
    },
}


def projection_of(state_dict: Mapping[str, np.ndarray]) -> tuple[str, Optional[int]]:
    """Kind ("linear", "mlp" or "none") and output dimension of the projection in a state dict of GPT4Image's code."""
    weights = {name: value for name, value in state_dict.items() if name.startswith("proj_layer.") and value.ndim == 2}
    if not weights:
        return "none", None
    last = max(weights)  # they end in `weight`, `0.weight`, `2.weight` or `3.weight`
    return ("linear" if last == "proj_layer.weight" else "mlp"), weights[last].shape[0]


def from_pytorch(state_dict: Mapping[str, np.ndarray], net: Network) -> dict[str, np.ndarray]:
    """Values for the parameters of `net`, by name, float32; the layout is recognised by its names.

    Args:
        state_dict: name to array, as `{name: tensor.numpy() for name, tensor in model.state_dict().items()}`.
        net: a network of this package's ResNets, ConvNeXts or DeiTs, with a projection where the state dict has one
            (`projection_of`); its own values play no part.

    Raises:
        UserError: no table for this network, a name that is not in the table or is missing, or a shape that differs.
    """
    given = {name: value for name, value in state_dict.items() if not name.endswith(".num_batches_tracked")}
    names = max(
        (_names(net, layout) for layout in _layouts(net).values()),
        key=lambda names: len(given.keys() & _flatten(names)),
    )
    expected = _flatten(names)
    _refuse(sorted(given.keys() - expected), "not in the table")
    _refuse(sorted(expected - given.keys()), "missing from the state dict")

    values = {}
    parameters = weights(net)
    for own_name, parts_there in names.items():
        parameter = parameters[own_name]
        parts = [np.asarray(given[name], np.float32) for name in parts_there]
        value = np.concatenate(parts) if len(parts) > 1 else parts[0]
        # torchvision keeps a ConvNeXt's layer scale as [C, 1, 1].
        if [n for n in value.shape if n > 1] != [n for n in parameter.shape if n > 1]:
            raise UserError(f"{parts_there[0]} has shape {value.shape}; {parameter.shape} fits the network")
        values[own_name] = value.reshape(parameter.shape)
    return values


def to_pytorch(net: Network, layout: str) -> dict[str, np.ndarray]:
    """The parameters of `net` as a state dict, float32; the projection in the layout `released` only.

    Args:
        net: as in `from_pytorch`.
        layout: "torchvision", "timm" or "transformers"; "official" for ConvNeXt; "released" for ResNet and DeiT.

    Raises:
        UserError: no table for this network, or not in this layout.
    """
    layouts = _layouts(net)
    if layout not in layouts:
        raise UserError(f"layout is {layout!r}; this network has {', '.join(layouts)}")
    parameters, state_dict = weights(net), {}
    for own_name, parts in _names(net, layouts[layout]).items():
        for name, value in zip(parts, np.split(parameters[own_name].asnumpy(), len(parts))):
            state_dict[name] = value[:, None, None] if name.endswith(".layer_scale") else value
    return state_dict


def convert(
    state_dict: Mapping[str, np.ndarray], model: ModelInfo, source: str | Path, output: str | Path
) -> ModelInfo:
    """Write a checkpoint of this package from a state dict; its projection is taken along.

    Args:
        model: network, classes and preprocessing; its projection is found out.
        source: the state dict's file.

    Returns:
        The model with its projection.

    Raises:
        UserError: as `from_pytorch`, and for values that are not finite.
    """
    projection, text_dim = projection_of(state_dict)
    model = replace(model, projection=projection, text_dim=text_dim)
    network = create_network(
        model.network, len(model.classes), text_dim=text_dim, projection=projection, image_size=model.crop
    )
    try:
        values = from_pytorch(state_dict, network)
    except UserError as error:
        raise UserError(f"{source}: does not fit {model.network} with {len(model.classes)} classes: {error}") from error
    parameters = {name: Parameter(Tensor(value), name=name) for name, value in values.items()}
    load_parameters(weights(network), parameters, source)
    save_checkpoint(output, network, model, {"epoch": 0, "converted_from": Path(source).name})
    return model


def _layouts(net: Network) -> dict[str, Layout]:
    family = type(net.backbone)
    if family not in _LAYOUTS:
        raise UserError(f"no table of names for {family.__name__}; ResNet, ConvNeXt and DeiT have one")
    return _LAYOUTS[family]


def _names(net: Network, layout: Layout) -> dict[str, tuple[str, ...]]:
    """Each parameter's names there: one, or one a part. Layouts of others have no projection."""
    with_projection = any(here.startswith("projection") for here in layout)
    return {
        name: _lookup(layout, name) for name in weights(net) if with_projection or not name.startswith("projection.")
    }


def _lookup(layout: Layout, parameter: str) -> tuple[str, ...]:
    name = parameter[len("backbone.") :] if parameter.startswith("backbone.") else parameter
    if name in layout:
        there, ending = layout[name], ""
    else:
        cell, own_name = name.rsplit(".", 1)
        there, ending = layout[cell], "." + _OWN_NAMES[own_name]
    return tuple(part + ending for part in ((there,) if isinstance(there, str) else there))


def _flatten(names: dict[str, tuple[str, ...]]) -> set[str]:
    return {name for parts in names.values() for name in parts}


def _refuse(names: list[str], what: str) -> None:
    if names:
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise UserError(f"names {what} ({len(names)}): {shown}")
