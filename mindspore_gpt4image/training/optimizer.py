"""Optimizers with their groups of weight decay."""

from __future__ import annotations

from collections.abc import Sequence

from mindcv.optim.adamw import AdamW
from mindspore import Parameter, nn


def decay_groups(parameters: Sequence[Parameter], weight_decay: float, decay_norm_and_bias: bool) -> list[dict]:
    """Parameters by weight decay: all of them, or all but vectors, positional embeddings and class tokens.

    Biases, norms and layer scales are vectors; this is the rule of the DeiT and ConvNeXt recipes.
    """
    if decay_norm_and_bias:
        return [{"params": list(parameters), "weight_decay": weight_decay}]
    spared = [p for p in parameters if p.ndim <= 1 or p.name.endswith(("pos_embed", "cls_token"))]
    names = {p.name for p in spared}
    groups = [([p for p in parameters if p.name not in names], weight_decay), (spared, 0.0)]
    return [{"params": group, "weight_decay": decay} for group, decay in groups if group]


def create_optimizer(
    parameters: Sequence[Parameter],
    name: str,
    *,
    lr: float,
    weight_decay: float,
    decay_norm_and_bias: bool = True,
    momentum: float = 0.9,
    nesterov: bool = False,
    betas: Sequence[float] = (0.9, 0.999),
) -> nn.Optimizer:
    """SGD (weight decay added to the gradient) or AdamW (decoupled), with the update rules of PyTorch.

    The learning rate is a parameter of the optimizer that the step cell sets, so a schedule leaves no trace in
    checkpoints.
    """
    groups = decay_groups(parameters, weight_decay, decay_norm_and_bias)
    if name == "adamw":
        return AdamW(groups, learning_rate=lr, beta1=betas[0], beta2=betas[1], weight_decay=weight_decay)
    # nn.Momentum ignores Nesterov on CPU.
    return nn.SGD(groups, learning_rate=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
