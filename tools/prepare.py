"""Prepare data sets."""

import argparse
from pathlib import Path

from mindspore_gpt4image.errors import run_command
from mindspore_gpt4image.sources import emoji
from mindspore_gpt4image.sources.formats import list_images


def prepare_emoji(output: Path) -> None:
    written = emoji.write_emoji(output)
    print(f"emoji data set {'written to' if written else 'was there already:'} {output}")
    for split in ("train", "val", "test"):
        images = list_images(output, split)
        print(f"  {split}: {len(images)} images, {len(images.classes)} classes")
    print(f"  descriptions: {output / emoji.DESCRIPTIONS}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("emoji", help="build the quickstart's data set from installed packages")
    command.add_argument("--output", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    if arguments.command == "emoji":
        prepare_emoji(arguments.output)


if __name__ == "__main__":
    run_command(main)
