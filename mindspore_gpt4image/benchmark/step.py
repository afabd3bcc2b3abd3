"""One training step: aligned against baseline, and the baseline against MindCV's and PyTorch's."""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Callable

import mindspore as ms
import numpy as np
from mindcv.loss import create_loss
from mindcv.utils.trainer_factory import create_trainer
from mindspore import Tensor, nn

from mindspore_gpt4image.benchmark.measure import Comparison, compare, milliseconds
from mindspore_gpt4image.device import use_device
from mindspore_gpt4image.losses import GPT4ImageLoss
from mindspore_gpt4image.models import Preprocess, create_network, deployable
from mindspore_gpt4image.training.optimizer import create_optimizer
from mindspore_gpt4image.training.step import TrainStep

BATCH, SIDE = 8, 224
CLASSES, TEXT_DIM = 1000, 512
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Small: the same batch comes again and again.
LEARNING_RATE = 1e-5
# Of the released recipes. Nothing but the work matters here.
SGD = {"name": "sgd", "lr": LEARNING_RATE, "weight_decay": 1e-4}
ADAMW = {"name": "adamw", "lr": LEARNING_RATE, "weight_decay": 0.05, "decay_norm_and_bias": False}

Step = Callable[[], Any]


def comparisons(quick: bool) -> Iterator[Comparison]:
    """Aligned against baseline, and the baseline against MindCV and PyTorch, on the paper's three kinds of network.

    Quick: on ResNet-50 alone, with fewer runs.
    """
    runs = 9 if quick else 25
    with_torch = all(importlib.util.find_spec(package) for package in ("torch", "transformers"))
    if not with_torch:
        print("note: torch or transformers is not installed, so PyTorch is left out", file=sys.stderr)
    for name in ("resnet50",) if quick else ("resnet50", "deit_small", "convnext_tiny"):
        # A process each: MindSpore keeps the memory of the networks before.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            yield from process.submit(_comparisons_of, name, runs, with_torch).result()


def _comparisons_of(name: str, runs: int, with_torch: bool) -> list[Comparison]:
    use_device("CPU")
    of = f"{name}, {SIDE} px, batch {BATCH}"
    baseline = milliseconds(our_step(name, BATCH, SIDE, "none"))
    aligned = milliseconds(our_step(name, BATCH, SIDE, "infonce"))
    rows = [compare(f"aligned against baseline step, {of}", aligned, baseline, unit="ms", runs=runs, goal=1.02)]
    del aligned
    mindcv = milliseconds(mindcv_step(name, BATCH, SIDE))
    rows.append(compare(f"baseline against MindCV's step, {of}", baseline, mindcv, unit="ms", runs=runs, goal=1.03))
    del mindcv
    if with_torch:
        pytorch = milliseconds(torch_step(name, BATCH, SIDE))
        rows.append(compare(f"baseline against PyTorch's step, {of}", baseline, pytorch, unit="ms", runs=runs))
    return rows


def random_images(batch: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 pixels [B, H, W, 3] and int32 labels [B], the same at every call."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (batch, side, side, 3), np.uint8)
    return pixels, random.integers(0, CLASSES, batch, np.int32)


def random_texts(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, normalised float32 [B, k], and text ids int32 [B], all different."""
    texts = np.random.default_rng(1).standard_normal((batch, TEXT_DIM), np.float32)
    return texts / np.linalg.norm(texts, axis=1, keepdims=True), np.arange(batch, dtype=np.int32)


def our_step(name: str, batch: int, side: int, alignment: str) -> Step:
    """A training run's step; the baseline ("none") has no projection and reads no texts, as in a run."""
    ms.set_seed(0)
    is_baseline = alignment == "none"
    network = create_network(
        name, CLASSES, text_dim=TEXT_DIM, projection="none" if is_baseline else "linear", image_size=side
    )
    optimizer = create_optimizer(network.trainable_params(), **optimizer_options(name))
    step = TrainStep(network, Preprocess(MEAN, STD), GPT4ImageLoss(alignment), optimizer)
    network.set_train(True)
    arrays = random_images(batch, side) + (() if is_baseline else random_texts(batch))
    settings = Tensor(LEARNING_RATE, ms.float32), Tensor([0, 0], ms.int32), Tensor(0, ms.float32), Tensor(True)
    inputs = [*settings, *map(Tensor, arrays)]
    return lambda: step(*inputs).asnumpy()


def mindcv_step(name: str, batch: int, side: int) -> Step:
    """What MindCV's train.py builds for the same network, optimizer and pixels, with its default options."""
    ms.set_seed(0)
    network = deployable(create_network(name, CLASSES, projection="none", image_size=side))
    network = nn.SequentialCell(Preprocess(MEAN, STD), network)
    optimizer = create_optimizer(network.trainable_params(), **optimizer_options(name))
    trainer = create_trainer(
        network, create_loss("CE"), optimizer, None, amp_level="O0", amp_cast_list=None, loss_scale_type="fixed"
    )
    step = trainer.train_network.set_train(True)
    inputs = [Tensor(array) for array in random_images(batch, side)]
    return lambda: step(*inputs).asnumpy()


def torch_step(name: str, batch: int, side: int) -> Step:
    """The same architecture from transformers, trained eagerly with PyTorch's optimizer of the same name."""
    import torch
    from torch.nn import functional

    network = torch_network(name, side).train()
    options = optimizer_options(name)
    decay = options["weight_decay"]
    if options["name"] == "sgd":
        optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=decay)
    else:
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=decay)
    pixels, labels = (torch.from_numpy(array) for array in random_images(batch, side))
    mean, std = torch.tensor(MEAN), torch.tensor(STD)

    def step() -> float:
        images = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
        loss = functional.cross_entropy(network(pixel_values=images).logits, labels.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def torch_network(name: str, side: int):
    """The network of `create_network(name, CLASSES)` in PyTorch: a ResNet-50, DeiT or ConvNeXt."""
    import transformers as hf

    if name == "resnet50":
        return hf.ResNetForImageClassification(hf.ResNetConfig(num_labels=CLASSES))
    if name == "convnext_tiny":
        return hf.ConvNextForImageClassification(hf.ConvNextConfig(num_labels=CLASSES, layer_norm_eps=1e-6))
    size = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "image_size": side}
    return hf.ViTForImageClassification(hf.ViTConfig(num_labels=CLASSES, layer_norm_eps=1e-6, **size))


def optimizer_options(name: str) -> dict[str, Any]:
    return SGD if name.startswith("resnet") else ADAMW
