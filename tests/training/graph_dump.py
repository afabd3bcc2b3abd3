"""Compile one training step of a network; run in a process of its own, since the dump is a setting of the process."""

import sys

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindspore_gpt4image.losses import GPT4ImageLoss
from mindspore_gpt4image.models import Preprocess, create_network
from mindspore_gpt4image.training.mixing import UNMIXED
from mindspore_gpt4image.training.optimizer import create_optimizer
from mindspore_gpt4image.training.precision import create_loss_scale
from mindspore_gpt4image.training.step import TrainStep

BATCH, SIDE, TEXT_DIM = 2, 32, 8


def main(name: str) -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    drop_path = 0.1 if name.startswith(("deit", "convnext")) else 0.0
    network = create_network(name, 3, text_dim=TEXT_DIM, image_size=SIDE, drop_path=drop_path).set_train(True)
    optimizer = create_optimizer(network.trainable_params(), "adamw", lr=0.1, weight_decay=0.1)
    preprocess = Preprocess((0.5,) * 3, (0.5,) * 3)
    loss = GPT4ImageLoss("clip", label_smoothing=0.1)
    options = {"clip_norm": 1.0, "accumulate": 2, "ema_decay": 0.9, "loss_scale": create_loss_scale("O0", 8.0)}
    step = TrainStep(network, preprocess, loss, optimizer, **options)
    step(
        Tensor(0.1, ms.float32),
        Tensor([0, 0], ms.int32),
        Tensor(0, ms.float32),
        Tensor(True),
        Tensor(np.zeros((BATCH, SIDE, SIDE, 3), np.uint8)),
        Tensor(np.arange(BATCH), ms.int32),
        Tensor(np.eye(BATCH, TEXT_DIM), ms.float32),
        Tensor(np.arange(BATCH), ms.int32),
        Tensor(UNMIXED),
        Tensor(np.zeros((BATCH, 4)), ms.int32),
    )


if __name__ == "__main__":
    main(sys.argv[1])
