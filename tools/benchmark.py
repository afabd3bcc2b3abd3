"""Measure this package against others and against itself: ratios of ours to the peer, both measured in turns."""

import argparse
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from mindspore_gpt4image.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__ + " Meant for a machine that does nothing else meanwhile.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "step",
        help="a training step (CPU)",
        description="The aligned step against the baseline, MindCV's and PyTorch's; the alignment on 1 to 64 ranks.",
    )
    command.add_argument("--quick", action="store_true", help="5 minutes in place of 30: ResNet-50 alone, fewer runs")
    command.add_argument("--json", metavar="FILE", type=Path, help="write the rows here")
    arguments = parser.parse_args()

    from mindspore_gpt4image.benchmark import alignment, step
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
    for row in chain(step.comparisons(arguments.quick), alignment.comparisons(arguments.quick)):
        print(row.line(), flush=True)
        rows.append(row)
        save()


if __name__ == "__main__":
    run_command(main)
