"""Prepare data sets."""

import argparse
import os
from pathlib import Path

from mindspore_gpt4image.errors import run_command
from mindspore_gpt4image.sources import emoji
from mindspore_gpt4image.sources.formats import FORMATS, list_images, validation_split


def prepare_emoji(output: Path) -> None:
    written = emoji.write_emoji(output)
    print(f"emoji data set {'written to' if written else 'was there already:'} {output}")
    for split in ("train", "val", "test"):
        images = list_images(output, split)
        print(f"  {split}: {len(images)} images, {len(images.classes)} classes")
    print(f"  descriptions: {output / emoji.DESCRIPTIONS}")


def prepare_pack(arguments: argparse.Namespace) -> None:
    # Faults of the command line are told by now: MindSpore takes seconds to load.
    from mindspore_gpt4image.data.pack import pack

    splits = arguments.splits or ("train", validation_split(arguments.data, arguments.format))
    packed = pack(
        arguments.data,
        arguments.output,
        tuple(dict.fromkeys(splits)),
        format=arguments.format,
        embeddings=arguments.embeddings,
        missing_text=arguments.missing_text,
        max_side=arguments.max_side,
        shard_images=arguments.shard_images,
        workers=arguments.workers,
    )
    texts = f"with texts encoded by {packed['texts']['encoder']}" if packed["texts"] else "without texts"
    print(f"{arguments.output}: packed and verified, {len(packed['classes'])} classes, {texts}")
    for split, content in packed["splits"].items():
        smaller = f", no side longer than {content['max_side']} pixels" if content["max_side"] else ""
        print(f"  {split}: {content['images']} images in {len(content['shards'])} shard(s){smaller}")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("emoji", help="build the quickstart's data set from installed packages")
    command.add_argument("--output", type=Path, required=True, help="folder to write")
    command = commands.add_parser(
        "pack",
        help="join images, labels and text embeddings into sharded MindRecord, which clusters read faster",
        description="Stopped and started again with the same options it goes on.",
    )
    command.add_argument("--data", type=Path, required=True, help="data set to pack")
    command.add_argument("--output", type=Path, required=True, help="folder to write; train with data.root=OUTPUT")
    command.add_argument("--format", choices=FORMATS, default="auto", help="of the data set (%(default)s)")
    command.add_argument("--splits", nargs="+", help="default: train, and val or what the data set has in its place")
    command.add_argument(
        "--embeddings", type=Path, help="store to join by id; without it only baselines can be trained"
    )
    command.add_argument(
        "--missing-text",
        choices=("error", "skip"),
        default="error",
        help="training images without a text (%(default)s)",
    )
    command.add_argument(
        "--max-side", type=positive, help="store training images with no side longer than this many pixels"
    )
    command.add_argument("--shard-images", type=positive, default=10_000, help="images in a shard (%(default)s)")
    command.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="threads (%(default)s)")
    arguments = parser.parse_args()
    if arguments.command == "emoji":
        prepare_emoji(arguments.output)
    else:
        prepare_pack(arguments)


if __name__ == "__main__":
    run_command(main)
