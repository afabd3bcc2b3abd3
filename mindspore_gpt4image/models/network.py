"""The network of GPT4Image: one feature, read by a classifier and by a projection into the text encoder's space."""

from typing import Optional

from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import TruncatedNormal

from mindspore_gpt4image.models.drop_path import DropPath


class Network(nn.Cell):
    """Backbone f, classifier and projection.

    Args:
        backbone: images to features [B, num_features]; with drop path also what `DropPath` draws.
        classifier: features to logits.
        projection: features to image embeddings; `nn.Identity` where nothing is aligned.
        drop_path: draws the residual branches of a training step, or None.

    Inputs:
        images: float32 [B, 3, H, W], normalised.

    Outputs:
        logits [B, C] and image embeddings [B, k], not normalised.
    """

    def __init__(self, backbone: nn.Cell, classifier: nn.Dense, projection: nn.Cell, drop_path: Optional[DropPath]):
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.projection = projection
        self.drop_path = drop_path
        self.num_features = classifier.in_channels

    def feature(self, images: Tensor) -> Tensor:
        """What classifier and projection share, [B, num_features]."""
        if self.drop_path is not None and self.training:
            return self.backbone(images, self.drop_path(images.shape[0]))
        return self.backbone(images)

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.feature(images)
        return self.classifier(feature), self.projection(feature)


class Deployable(nn.Cell):
    """Backbone and classifier of a `Network`; see `deployable`."""

    def __init__(self, net: Network):
        # The parameters already carry the names they have in the whole network.
        super().__init__(auto_prefix=False)
        self.backbone = net.backbone
        self.classifier = net.classifier

    def construct(self, images: Tensor) -> Tensor:
        return self.classifier(self.backbone(images))


def deployable(net: Network) -> nn.Cell:
    """The part of a network that is shipped: images [B, 3, H, W] to logits [B, C].

    It shares the network's parameters under the same names (`backbone.…`, `classifier.…`) and has no others.
    """
    return Deployable(net)


def weights(net: Network) -> dict[str, Parameter]:
    """What a checkpoint of a network holds, by name: all its parameters but the state that drop path draws from."""
    return {name: parameter for name, parameter in net.parameters_dict().items() if not name.startswith("drop_path.")}


def linear_projection(in_channels: int, out_channels: int, convolutional: bool) -> nn.Dense:
    """W of the paper's Eq. 2."""
    return nn.Dense(in_channels, out_channels, weight_init=_released_init(convolutional), has_bias=False)


def mlp_projection(in_channels: int, out_channels: int, convolutional: bool) -> nn.SequentialCell:
    """The released code's projection: 2k hidden units, with batch normalisation behind a convolutional backbone."""
    hidden = 2 * out_channels
    weight_init = _released_init(convolutional)
    layers = [nn.Dense(in_channels, hidden, weight_init=weight_init, has_bias=not convolutional)]
    if convolutional:
        layers.append(nn.BatchNorm1d(hidden))
    return nn.SequentialCell(*layers, nn.ReLU(), nn.Dense(hidden, out_channels, weight_init=weight_init))


def _released_init(convolutional: bool) -> TruncatedNormal:
    """Deviations of the released code: 1024^-0.5 in its ResNet's projections, 0.02 in its DeiT's."""
    return TruncatedNormal(sigma=1024**-0.5 if convolutional else 0.02)
