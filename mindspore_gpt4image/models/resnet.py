"""ResNet as torchvision builds it, with its stem for ImageNet or one for small pictures."""

from collections.abc import Sequence

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Convolution without bias that keeps the size at stride 1, initialised for a ReLU behind it (He et al., 2015)."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride,
        pad_mode="pad",
        padding=kernel // 2,
        weight_init=HeNormal(mode="fan_out", nonlinearity="relu"),
    )


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Cell:
    """The identity, or a projection where the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.SequentialCell(conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Cell):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = conv(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.downsample = shortcut(in_channels, channels, stride)

    def construct(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.downsample(x))


class Bottleneck(nn.Cell):
    """1x1, 3x3 and 1x1 convolutions; the 3x3 one has the stride (ResNet v1.5)."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = conv(in_channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = conv(channels, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = shortcut(in_channels, out_channels, stride)

    def construct(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + self.downsample(x))


class MaxPool(nn.Cell):
    """3x3 maximum at stride 2 with one row of padding on each side.

    Zeros pad what a ReLU left, so they never win; `nn.MaxPool2d` with padding is a 3-d operator that ONNX lacks.
    """

    def __init__(self):
        super().__init__()
        self.pad = ops.Pad(((0, 0), (0, 0), (1, 1), (1, 1)))
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)

    def construct(self, x: Tensor) -> Tensor:
        return self.pool(self.pad(x))


class ResNet(nn.Cell):
    """ResNet (He et al., "Deep Residual Learning for Image Recognition") up to its pooled feature.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        depths: blocks in each stage.
        width: channels of the stem and of the first stage's blocks; they double from stage to stage.
        stem: kernel size and stride of the first convolution.
        max_pool: whether a pooling follows it.

    Inputs:
        images: float32 [B, 3, H, W].

    Outputs:
        [B, num_features], the global average.
    """

    def __init__(
        self,
        block: type[nn.Cell],
        depths: Sequence[int],
        width: int = 64,
        stem: tuple[int, int] = (7, 2),
        max_pool: bool = True,
    ):
        super().__init__()
        kernel, stride = stem
        self.conv1 = conv(3, width, kernel, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = MaxPool() if max_pool else nn.Identity()
        stages = []
        in_channels = width
        for stage, depth in enumerate(depths):
            channels = width * 2**stage
            blocks = []
            for index in range(depth):
                blocks.append(block(in_channels, channels, stride=2 if stage > 0 and index == 0 else 1))
                in_channels = channels * block.expansion
            stages.append(nn.SequentialCell(blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.num_features = in_channels

    def make_classifier(self, num_classes: int) -> nn.Dense:
        return nn.Dense(self.num_features, num_classes)

    def construct(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))
