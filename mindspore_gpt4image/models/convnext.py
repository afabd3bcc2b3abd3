"""ConvNeXt as its authors build it."""

from collections.abc import Sequence
from typing import Optional

from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import initializer

from mindspore_gpt4image.models.drop_path import residual
from mindspore_gpt4image.models.initialisation import dense, truncated_normal


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, group: int = 1) -> nn.Conv2d:
    """Convolution with bias; one of stride 1 keeps the size."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride,
        pad_mode="pad",
        padding=kernel // 2 if stride == 1 else 0,
        group=group,
        has_bias=True,
        weight_init=truncated_normal(),
        bias_init="zeros",
    )


class LayerNorm2d(nn.Cell):
    """Layer normalisation over the channels of [B, C, H, W]."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm((channels,), epsilon=1e-6)

    def construct(self, x: Tensor) -> Tensor:
        return ops.transpose(self.norm(ops.transpose(x, (0, 2, 3, 1))), (0, 3, 1, 2))


class Block(nn.Cell):
    """Depthwise 7x7 convolution, then normalisation and an inverted bottleneck in channels-last layout."""

    def __init__(self, dim: int):
        super().__init__()
        self.dwconv = conv(dim, dim, 7, group=dim)
        self.norm = nn.LayerNorm((dim,), epsilon=1e-6)
        self.pwconv1 = dense(dim, 4 * dim)
        # Exact; `nn.GELU()` alone would be the tanh approximation.
        self.act = nn.GELU(approximate=False)
        self.pwconv2 = dense(4 * dim, dim)
        self.gamma = Parameter(initializer(1e-6, (dim,)), name="gamma")

    def construct(self, x: Tensor, keep: Optional[Tensor] = None) -> Tensor:
        out = self.norm(ops.transpose(self.dwconv(x), (0, 2, 3, 1)))
        out = self.gamma * self.pwconv2(self.act(self.pwconv1(out)))
        return residual(x, ops.transpose(out, (0, 3, 1, 2)), None if keep is None else keep[0])


class ConvNeXt(nn.Cell):
    """ConvNeXt (Liu et al., "A ConvNet for the 2020s") up to its feature: layer scale 1e-6, head scale 1.

    Args:
        depths: blocks in each of the four stages.
        dims: channels of each stage.

    Inputs:
        images: float32 [B, 3, H, W].
        keep: what `DropPath` draws, [sum(depths), 1, B], or None.

    Outputs:
        [B, num_features], the normalised global average.
    """

    branches = 1  # residual branches a block

    def __init__(self, depths: Sequence[int], dims: Sequence[int]):
        super().__init__()
        self.num_features, self.num_blocks = dims[-1], sum(depths)
        downsample = [nn.SequentialCell(conv(3, dims[0], 4, 4), LayerNorm2d(dims[0]))]
        for before, after in zip(dims, dims[1:]):
            downsample.append(nn.SequentialCell(LayerNorm2d(before), conv(before, after, 2, 2)))
        self.downsample_layers = nn.CellList(downsample)
        self.stages = nn.CellList([nn.CellList([Block(dim) for _ in range(depth)]) for depth, dim in zip(depths, dims)])
        self.norm = nn.LayerNorm((dims[-1],), epsilon=1e-6)

    def make_classifier(self, num_classes: int) -> nn.Dense:
        return dense(self.num_features, num_classes)

    def construct(self, images: Tensor, keep: Optional[Tensor] = None) -> Tensor:
        x = images
        index = 0
        for downsample, stage in zip(self.downsample_layers, self.stages):
            x = downsample(x)
            for block in stage:
                x = block(x, None if keep is None else keep[index])
                index = index + 1
        return self.norm(x.mean((2, 3)))
