"""Measure this package against others and against itself: ratios of ours to the peer, both measured in turns."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from mindspore_gpt4image.errors import run_command

# A word on each, what it does, and what its --quick means.
COMMANDS = {
    "step": (
        "a training step (CPU)",
        "The aligned step against the baseline, MindCV's and PyTorch's; the alignment on 1 to 64 ranks.",
        "5 minutes in place of 30: ResNet-50 alone, fewer runs",
    ),
    "encode": (
        "encoding descriptions (CPU)",
        "From a description set to embeddings, against the loop of the released script, on CLIP ViT-B/32's text size.",
        "2 minutes in place of 20: fewer texts, fewer runs",
    ),
    "infer": (
        "exported classifiers (CPU)",
        "Exported aligned against exported baseline; MINDIR and ONNX against eager PyTorch on the same weights.",
        "5 minutes in place of 30: ResNet-50 alone, fewer runs",
    ),
    "pipeline": (
        "loading training images (2 workers)",
        "Our loader against MindCV's and PyTorch's DataLoader; joined with texts, packed, and packed smaller.",
        "2 minutes in place of 10: fewer images, fewer runs",
    ),
    "scaling": (
        "a training step on 2 ranks (CPU)",
        "Weak scaling from 1 to 2 ranks: the efficiency of the aligned step against the baseline's.",
        "3 minutes in place of 15: fewer runs",
    ),
    "store": (
        "embeddings of 1.28 million texts",
        "Opening a store, memory of 4 processes and 256 random rows, against torch.load of the same matrix.",
        "1 minute in place of 10: 131,072 texts",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__ + " Meant for a machine that does nothing else meanwhile.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (what, description, quick) in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=description)
        command.add_argument("--quick", action="store_true", help=quick)
        command.add_argument("--json", metavar="FILE", type=Path, help="write the rows here")
    arguments = parser.parse_args()

    from mindspore_gpt4image.benchmark.measure import HEADER
    from mindspore_gpt4image.device import use_device
    from mindspore_gpt4image.files import write_json

    rows = []

    def save() -> None:
        if arguments.json:
            write_json(arguments.json, [asdict(row) for row in rows])

    save()  # a place that cannot be written to is told now, and a run that is stopped leaves what it has
    use_device("CPU")
    print(HEADER)
    for row in comparisons(arguments.command, arguments.quick):
        print(row.line(), flush=True)
        rows.append(row)
        save()


def comparisons(command: str, quick: bool) -> Iterator:
    """The rows of a command, as they are measured."""
    if command == "encode":
        from mindspore_gpt4image.benchmark import encode

        return encode.comparisons(quick)
    if command == "infer":
        from mindspore_gpt4image.benchmark import infer

        return infer.comparisons(quick)
    if command == "pipeline":
        from mindspore_gpt4image.benchmark import pipeline

        return pipeline.comparisons(quick)
    if command == "scaling":
        from mindspore_gpt4image.benchmark import scaling

        return scaling.comparisons(quick)
    if command == "store":
        from mindspore_gpt4image.benchmark import store

        return store.comparisons(quick)
    from mindspore_gpt4image.benchmark import alignment, step

    return chain(step.comparisons(quick), alignment.comparisons(quick))


if __name__ == "__main__":
    run_command(main)
