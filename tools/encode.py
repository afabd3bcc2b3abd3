"""Encode descriptions with a frozen text encoder into an embedding store.

A store at --output that was made from the same descriptions, text, encoder and type is left as it is; any other store
there is replaced, once the new one is complete.
"""

import argparse
from pathlib import Path

from mindspore_gpt4image.errors import UserError, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--descriptions", type=Path, required=True, metavar="FILE", help="description set (JSON Lines)")
    parser.add_argument("--text", default="short", help="which text of it: short or long (default: short)")
    parser.add_argument(
        "--encoder",
        required=True,
        metavar="NAME_OR_DIR",
        help="CLIP or BERT-like model: a folder, a name on the hub, or all-MiniLM-L6-v2 where its package is installed",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.mindrecord", help="store to write")
    parser.add_argument("--dtype", default="float16", choices=("float16", "float32"), help="default: float16")
    parser.add_argument("--batch-size", type=int, default=256, metavar="N", help="texts at a time (default: 256)")
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda|npu", help="where the encoder runs (default: cpu)")
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size {arguments.batch_size}: must be at least 1")

    from mindspore_gpt4image.offline.encode import encode_descriptions, is_encoded

    output = arguments.output
    if is_encoded(output, arguments.descriptions, arguments.text, arguments.encoder, arguments.dtype):
        print(f"{output}: is there already, from the same descriptions, text and encoder")
        return
    if output.exists():
        print(f"{output}: was made from something else or is not whole; replacing it")

    from transformers.utils import logging

    from mindspore_gpt4image.offline.text_encoder import TextEncoder

    # transformers would list the vision half of a CLIP as unexpected weights.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    encoder = TextEncoder.load(arguments.encoder, arguments.device)
    encoding = encode_descriptions(
        arguments.descriptions,
        arguments.text,
        encoder,
        output,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
    )
    store = encoding.metadata
    print(
        f"{output}: {store['count']} images, {encoding.texts} distinct texts, dim {store['dim']} ({store['dtype']}), "
        f"{encoding.texts / encoding.seconds:.0f} texts/s, "
        f"{store['truncated']:.1%} of the images have a text cut at {encoder.context_length} tokens"
    )


if __name__ == "__main__":
    run_command(main)
