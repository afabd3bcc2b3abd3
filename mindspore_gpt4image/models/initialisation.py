"""The initialisation that DeiT and ConvNeXt share."""

from mindspore import nn
from mindspore.common.initializer import TruncatedNormal


def truncated_normal() -> TruncatedNormal:
    """Deviation 0.02, cut at -2 and 2 as `trunc_normal_` of PyTorch and timm does."""
    return TruncatedNormal(sigma=0.02, a=-2.0, b=2.0)


def dense(in_channels: int, out_channels: int) -> nn.Dense:
    """Dense layer with truncated-normal weights and zero bias."""
    return nn.Dense(in_channels, out_channels, weight_init=truncated_normal(), bias_init="zeros")
