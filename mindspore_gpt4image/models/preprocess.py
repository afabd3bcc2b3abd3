"""From the pixels that the host ships to what a network reads, in the graph."""

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype


class Preprocess(nn.Cell):
    """(x / 255 - mean) / std, and channels first.

    Args:
        mean: one number a channel, of pixels scaled to 0..1.
        std: likewise.

    Inputs:
        images: uint8 [B, H, W, 3].

    Outputs:
        float32 [B, 3, H, W].
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        # One multiplication and one subtraction a pixel.
        mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        self.scale = Tensor(1 / (255 * std), mstype.float32)
        self.shift = Tensor(mean / std, mstype.float32)

    def construct(self, images: Tensor) -> Tensor:
        normalised = images.astype(mstype.float32) * self.scale - self.shift
        return ops.transpose(normalised, (0, 3, 1, 2))


class Classify(nn.Cell):
    """Pixels uint8 [B, H, W, 3] to logits float32 [B, C].

    Args:
        classifier: normalised images to logits.
        preprocess: a `Preprocess`.
    """

    def __init__(self, classifier: nn.Cell, preprocess: nn.Cell):
        super().__init__(auto_prefix=False)
        self.classifier = classifier
        self.preprocess = preprocess

    def construct(self, images: Tensor) -> Tensor:
        return self.classifier(self.preprocess(images))

    def on_arrays(self, images: np.ndarray) -> np.ndarray:
        """The same from array to array."""
        return self(Tensor(images)).asnumpy()
