"""Networks by name: the paper's, the small ones, and whatever MindCV has."""

import difflib
from functools import partial
from typing import Optional

import mindcv
from mindspore import nn

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.models.convnext import ConvNeXt
from mindspore_gpt4image.models.drop_path import DropPath
from mindspore_gpt4image.models.network import Network, linear_projection, mlp_projection
from mindspore_gpt4image.models.resnet import BasicBlock, Bottleneck, ResNet
from mindspore_gpt4image.models.vit import VisionTransformer

_CONVOLUTIONAL = {
    # One block a stage, half as wide, for 32x32 pictures on a CPU: 1.2 million parameters.
    "resnet10_cifar_half": partial(ResNet, BasicBlock, (1, 1, 1, 1), width=32, stem=(3, 2), max_pool=False),
    "resnet18_cifar": partial(ResNet, BasicBlock, (2, 2, 2, 2), stem=(3, 1), max_pool=False),
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(ResNet, Bottleneck, (3, 4, 23, 3)),
    "convnext_tiny": partial(ConvNeXt, (3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": partial(ConvNeXt, (3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": partial(ConvNeXt, (3, 3, 27, 3), (128, 256, 512, 1024)),
}
_TRANSFORMERS = {
    "deit_tiny": partial(VisionTransformer, dim=192, heads=3),
    "deit_small": partial(VisionTransformer, dim=384, heads=6),
    "deit_base": partial(VisionTransformer, dim=768, heads=12),
}
_PROJECTIONS = {"linear": linear_projection, "mlp": mlp_projection}


def network_names() -> list[str]:
    """Every name that `create_network` takes: this package's first, then MindCV's others."""
    own = [*_CONVOLUTIONAL, *_TRANSFORMERS]
    return own + [name for name in mindcv.list_models() if name not in own]


def create_network(
    name: str,
    num_classes: int,
    text_dim: Optional[int] = None,
    projection: str = "linear",
    image_size: int = 224,
    drop_path: float = 0.0,
) -> Network:
    """Build a network with fresh weights; `net(images)` gives logits [B, C] and image embeddings [B, k].

    Backbone and classifier draw their weights first, so that under one `mindspore.set_seed` they start equal whatever
    the projection.

    Args:
        name: one of `network_names()`.
        num_classes: C.
        text_dim: k, the dimension of the text embeddings; without it `projection` must be "none".
        projection: "linear" (W of the paper's Eq. 2), "mlp" (the released code's) or "none": no parameters, and the
            second output is the feature itself, [B, d].
        image_size: height and width of the images; DeiT's position embedding depends on it, nothing else does.
        drop_path: stochastic depth's rate in the last block of a ConvNeXt or DeiT; `DropPath` says what a training step
            must do for it. MindCV's networks keep their own.

    Raises:
        UserError: unknown name or projection, an argument that does not go with the network, or a MindCV network whose
            classifier cannot be told.
    """
    if projection not in (*_PROJECTIONS, "none"):
        raise UserError(f"projection is {projection!r}; choose linear, mlp or none")
    if projection != "none" and text_dim is None:
        raise UserError(
            f"projection {projection!r} needs text_dim, the dimension of the text embeddings; "
            "without texts set projection to none"
        )
    backbone, classifier = _create_classifier_network(name, num_classes, image_size)
    in_channels = classifier.in_channels
    if projection == "none":
        projection_cell = nn.Identity()
    else:
        projection_cell = _PROJECTIONS[projection](in_channels, text_dim, _is_convolutional(backbone))
    return Network(backbone, classifier, projection_cell, _create_drop_path(name, backbone, drop_path))


def _create_classifier_network(name: str, num_classes: int, image_size: int) -> tuple[nn.Cell, nn.Dense]:
    if name in _TRANSFORMERS:
        patch = VisionTransformer.patch
        if image_size < patch or image_size % patch != 0:
            raise UserError(f"image_size is {image_size}; {name} needs a multiple of {patch}")
        backbone = _TRANSFORMERS[name](image_size)
    elif name in _CONVOLUTIONAL:
        backbone = _CONVOLUTIONAL[name]()
    elif name in mindcv.list_models():
        return _split_mindcv(name, num_classes)
    else:
        nearest = difflib.get_close_matches(name, network_names(), n=3, cutoff=0)
        raise UserError(f"unknown network {name!r}; the nearest names are {', '.join(nearest)}")
    return backbone, backbone.make_classifier(num_classes)


def _split_mindcv(name: str, num_classes: int) -> tuple[nn.Cell, nn.Dense]:
    """Build MindCV's network and take its classifier out: the one dense layer with an output for each class."""
    net = mindcv.create_model(name, num_classes=num_classes)
    found = [
        (path, cell)
        for path, cell in net.cells_and_names()
        if isinstance(cell, nn.Dense) and cell.out_channels == num_classes
    ]
    if len(found) != 1:
        raise UserError(
            f"{name} has {len(found)} dense layers with {num_classes} outputs, so which one is its classifier cannot "
            "be told; choose another network"
        )
    ((path, classifier),) = found
    parent = net
    *parents, last = path.split(".")
    for part in parents:
        parent = getattr(parent, part)
    if isinstance(parent, nn.SequentialCell):
        parent[int(last)] = nn.Identity()
    else:
        setattr(parent, last, nn.Identity())
    for parameter in classifier.get_parameters():
        parameter.name = parameter.name.rsplit(".", 1)[-1]  # `Network` gives it the prefix of its new place
    return net, classifier


def _is_convolutional(backbone: nn.Cell) -> bool:
    """Whether it has convolutions that overlap; those of a transformer only cut the image into patches."""
    convolutions = [cell for _, cell in backbone.cells_and_names() if isinstance(cell, nn.Conv2d)]
    return any(cell.kernel_size[0] > cell.stride[0] for cell in convolutions)


def _create_drop_path(name: str, backbone: nn.Cell, rate: float) -> Optional[DropPath]:
    if rate == 0:
        return None
    if not 0 < rate < 1:
        raise UserError(f"drop_path is {rate}; it must be at least 0 and below 1")
    if not isinstance(backbone, (ConvNeXt, VisionTransformer)):
        raise UserError(f"drop_path is {rate}, which {name} does not have; set it to 0")
    return DropPath(rate, backbone.num_blocks, backbone.branches)
