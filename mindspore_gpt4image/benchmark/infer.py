"""Exported classifiers: aligned against baseline, and MINDIR and ONNX against PyTorch on the same weights."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Callable

import mindspore as ms
import numpy as np
from mindspore import nn

from mindspore_gpt4image.benchmark.measure import (
    Comparison,
    compare,
    comparison_of,
    measure_in_turns,
    milliseconds,
    percentile_of,
)
from mindspore_gpt4image.benchmark.step import CLASSES, MEAN, SIDE, STD, TEXT_DIM, random_images, torch_network
from mindspore_gpt4image.classifiers import load_exported
from mindspore_gpt4image.conversion import to_pytorch
from mindspore_gpt4image.export import FORMATS, export_classifier
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.models import create_network

# Batch sizes and how often each is measured.
RUNS = {1: 100, 16: 30}
QUICK_RUNS = {1: 30, 16: 10}

Logits = Callable[[np.ndarray], np.ndarray]


def comparisons(quick: bool) -> Iterator[Comparison]:
    """From uint8 pixels to logits on CPU, all with their default numbers of threads.

    Quick: ResNet-50 alone, with fewer runs.
    """
    with_torch = all(importlib.util.find_spec(package) for package in ("torch", "transformers"))
    if not with_torch:
        print("note: torch or transformers is not installed, so PyTorch is left out", file=sys.stderr)
    for name in ("resnet50",) if quick else ("resnet50", "deit_small", "convnext_tiny"):
        network = random_network(name, "none")
        pytorch = torch_logits(name, network) if with_torch else None
        for ending, format in FORMATS.items():
            with TemporaryDirectory() as folder:
                baseline = exported(network, name, Path(folder, "baseline", f"a{ending}"))
                aligned = exported(random_network(name, "linear"), name, Path(folder, "aligned", f"a{ending}"))
            for batch, runs in (QUICK_RUNS if quick else RUNS).items():
                pixels, _ = random_images(batch, SIDE)
                of = f"{name}, {SIDE} px, {format}, batch {batch}"
                times = [milliseconds(partial(logits, pixels)) for logits in (aligned, baseline)]
                yield compare(f"exported aligned against baseline, {of}", *times, unit="ms", runs=runs, goal=1.02)
                if pytorch is not None:
                    yield from latencies(f"against eager PyTorch, {of}", baseline, pytorch, pixels, runs)


def latencies(name: str, ours: Logits, peer: Logits, pixels: np.ndarray, runs: int) -> Iterator[Comparison]:
    """Percentiles of the time for a batch, and images/s."""
    measured = measure_in_turns(milliseconds(partial(ours, pixels)), milliseconds(partial(peer, pixels)), runs)
    yield comparison_of(name, *measured, unit="ms")
    for percent in (90, 99):
        yield percentile_of(f"{name}, {percent}th percentile", *measured, percent=percent, unit="ms")
    speeds = (1000 * len(pixels) / times for times in measured)
    yield comparison_of(name, *speeds, unit="img/s", better="higher")


def random_network(name: str, projection: str) -> nn.Cell:
    """Backbone and classifier have the same weights whatever the projection."""
    ms.set_seed(0)
    text_dim = None if projection == "none" else TEXT_DIM
    return create_network(name, CLASSES, text_dim=text_dim, projection=projection, image_size=SIDE)


def exported(network: nn.Cell, name: str, path: Path) -> Logits:
    """The network as a runtime runs its file; it may be gone afterwards."""
    classes = tuple(map(str, range(CLASSES)))
    model = ModelInfo(name, classes, resize=256, crop=SIDE, interpolation="bilinear", mean=MEAN, std=STD)
    result = export_classifier(network, model, path, pixels=True)
    return load_exported(path, result.model, batch=None)


def torch_logits(name: str, network: nn.Cell) -> Logits:
    """The same architecture from transformers with the same weights, run eagerly."""
    import torch

    peer = torch_network(name, SIDE).eval()
    names = peer.state_dict().keys()
    layouts = (to_pytorch(network, layout) for layout in layouts_of(name))
    arrays = next(arrays for arrays in layouts if arrays.keys() <= names)
    peer.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in arrays.items()}, strict=False)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)

    @torch.inference_mode()
    def logits(pixels: np.ndarray) -> np.ndarray:
        images = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
        return peer(pixel_values=images).logits.numpy()

    return logits


def layouts_of(name: str) -> tuple[str, ...]:
    """How transformers may name the weights; its version 5 names a ViT anew."""
    return ("transformers", "transformers5") if name.startswith("deit") else ("transformers",)
