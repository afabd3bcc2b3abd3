"""Describe images with a multimodal model, or import descriptions that exist, into a description set (JSON Lines).

The model runs in this process (transformers), on as many devices as torchrun starts processes, or on a server that
speaks the OpenAI chat API (--base-url; its key, if it wants one, in the environment as OPENAI_API_KEY). Stopped and
started again it goes on with the images that have no text yet. Images that get none are listed with the reason in
failures.jsonl beside the output.
"""

import argparse
import os
import sys
from pathlib import Path

from mindspore_gpt4image.errors import UserError, run_command
from mindspore_gpt4image.signals import listen
from mindspore_gpt4image.sources.descriptions import TEXTS
from mindspore_gpt4image.sources.formats import list_images


def main() -> None:
    arguments = parse()
    if arguments.import_from:
        import_descriptions(arguments)
        return

    from mindspore_gpt4image.offline.describe import PROMPTS, describe_images, missing_images
    from mindspore_gpt4image.offline.journal import Journal
    from mindspore_gpt4image.offline.ranks import Ranks

    stop = listen()
    ranks = Ranks.of_environment()
    own = {"short": arguments.prompt_short, "long": arguments.prompt_long}
    prompts = {key: PROMPTS[key] if own[key] is None else own[key] for key in arguments.text}
    image_sets = [list_images(arguments.data, split) for split in arguments.split]
    if ranks.rank == 0:
        for line in (line for images in image_sets for line in images.notes):
            print(f"note: {line}", file=sys.stderr)
    journal = Journal(arguments.output, arguments.text, ranks)
    share, missing = missing_images(image_sets, journal, ranks)
    if not missing:
        print(f"{journal.path}: all {share} images are described already")
        return
    if share > len(missing):
        print(f"{journal.path}: {share - len(missing)} of {share} images are described already", flush=True)

    tally = describe_images(missing, load_model(arguments, ranks), prompts, journal, stop)
    if not tally.described:
        raise UserError(f"{journal.failures}: none of {tally.failed} images could be described; it tells why")
    print(
        f"{journal.path}: {tally.described} images described in {tally.seconds:.0f} s "
        f"({tally.described / tally.seconds:.2f} images/s), {tally.prompt_tokens} tokens read, {tally.tokens} written"
    )
    print(f"  {tally.looped} texts cut where they began to repeat, {tally.cut} at {arguments.max_tokens} tokens")
    if tally.failed:
        print(f"  {tally.failed} images failed, listed in {journal.failures}; run again to try them again")
    if ranks.world > 1 and ranks.rank == 0:
        parts = arguments.output.with_name(f"{arguments.output.stem}.*-of-*{arguments.output.suffix}")
        print(f"  when all processes are done: cat {parts} >> {arguments.output} && rm {parts}")


def load_model(arguments: argparse.Namespace, ranks):
    if arguments.base_url:
        from mindspore_gpt4image.offline.served_model import ServedModel

        return ServedModel(
            arguments.base_url,
            arguments.model,
            key=os.environ.get("OPENAI_API_KEY"),
            workers=arguments.concurrency,
            retries=arguments.retries,
            max_tokens=arguments.max_tokens,
        )
    from transformers.utils import logging

    from mindspore_gpt4image.offline.local_model import LocalModel, pick_device

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return LocalModel.load(
        arguments.model,
        device=arguments.device or pick_device(ranks),
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
        max_tokens=arguments.max_tokens,
    )


def import_descriptions(arguments: argparse.Namespace) -> None:
    from mindspore_gpt4image.offline.import_texts import import_texts
    from mindspore_gpt4image.offline.journal import FAILURES
    from mindspore_gpt4image.sources.descriptions import write_descriptions

    output = arguments.output
    if output.exists():
        raise UserError(f"{output}: is there already; delete it or choose another name")
    ids = [id for split in arguments.split for id in list_images(arguments.data, split).ids]
    imported = import_texts(arguments.import_from, ids, arguments.text)
    write_descriptions(output, ({"id": id, **texts} for id, texts in imported.texts.items()))
    print(f"{output}: {len(imported.texts)} of {len(ids)} images have their text from {arguments.import_from}")
    failures = output.with_name(FAILURES)
    failures.unlink(missing_ok=True)
    if imported.missing:
        reason = f"no text in {arguments.import_from}"
        write_descriptions(failures, ({"id": id, "reason": reason} for id in imported.missing))
        print(f"  {len(imported.missing)} images have none, listed in {failures}")
    if imported.unknown:
        print(f"  {len(imported.unknown)} texts belong to no image (first: {imported.unknown[0]})")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="data set: image folder, CIFAR, …")
    add("--split", default="train", metavar="S[,S]", help="default: train")
    add("--output", type=Path, required=True, metavar="FILE.jsonl", help="description set to write, or to go on with")
    add("--text", default="short,long", metavar="short,long", help="which texts (default: both)")
    add("--prompt-short", metavar="TEXT", help="default: the paper's; '' for models that read images alone")
    add("--prompt-long", metavar="TEXT", help="default: the paper's")
    add("--max-tokens", type=int, default=256, metavar="N", help="where a text is cut (default: 256)")

    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--model", metavar="NAME_OR_DIR", help="a folder, a name on the hub, or the server's name of it")
    way.add_argument("--import", type=Path, dest="import_from", metavar="FILE", help=".pth, .csv, .tsv, .json, folder")

    local = parser.add_argument_group("a model in this process").add_argument
    local("--batch-size", type=int, default=8, metavar="N", help="images at a time (default: 8)")
    local("--device", metavar="cpu|cuda|npu", help="default: the accelerator, of several the process's own")
    local("--dtype", choices=("float32", "float16", "bfloat16"), help="default: half precision on an accelerator")

    served = parser.add_argument_group("a model on a server").add_argument
    served("--base-url", metavar="URL", help="of the API, for instance http://127.0.0.1:8000/v1")
    served("--concurrency", type=int, default=16, metavar="N", help="requests in flight (default: 16)")
    served("--retries", type=int, default=5, metavar="N", help="of a request, before an image fails (default: 5)")

    arguments = parser.parse_args()
    arguments.split = comma_separated(arguments.split)
    arguments.text = comma_separated(arguments.text)
    check(arguments)
    return arguments


def comma_separated(value: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


def check(arguments: argparse.Namespace) -> None:
    if not arguments.text or not set(arguments.text) <= set(TEXTS):
        raise UserError(f"--text {','.join(arguments.text)}: give short, long or short,long")
    if not arguments.split:
        raise UserError("--split: names no split")
    for option, least in (("max_tokens", 1), ("batch_size", 1), ("concurrency", 1), ("retries", 0)):
        value = getattr(arguments, option)
        if value < least:
            raise UserError(f"--{option.replace('_', '-')} {value}: must be at least {least}")
    if arguments.base_url and not arguments.base_url.startswith(("http://", "https://")):
        raise UserError(f"--base-url {arguments.base_url}: must begin with http:// or https://")


if __name__ == "__main__":
    run_command(main)
