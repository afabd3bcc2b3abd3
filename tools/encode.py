"""Encode descriptions with a frozen text encoder into an embedding store.

A store at --output that was made from the same descriptions, text, encoder and options is left as it is; any other
store there is replaced, once the new one is complete. Killed and started again, it goes on. torchrun --nproc-per-node N
tools/encode.py … shares the work among N processes, on GPUs each on its own.
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
        help="CLIP, SigLIP or BERT-like model: a folder, a name on the hub, a state dict of OpenAI's CLIP, or "
        "all-MiniLM-L6-v2 where its package is installed",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.mindrecord", help="store to write")
    parser.add_argument(
        "--overflow",
        default="truncate",
        choices=("truncate", "mean-sentences"),
        help="texts longer than the encoder reads are cut, or the mean of their sentences is taken (default: truncate)",
    )
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bf16", "fp16"), help="to compute in (default: float32)"
    )
    parser.add_argument(
        "--store-dtype", default="float16", choices=("float16", "float32"), help="of the store (default: float16)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="texts at a time (default: 32, right for a CPU)"
    )
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda|npu", help="where the encoder runs (default: cpu)")
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size {arguments.batch_size}: must be at least 1")

    from transformers.utils import logging

    from mindspore_gpt4image.offline.encode import encode_descriptions, is_encoded, made_from
    from mindspore_gpt4image.offline.ranks import Ranks
    from mindspore_gpt4image.offline.text_encoder import TextEncoder

    # transformers would list the vision half of a CLIP as unexpected weights.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    ranks = Ranks.of_environment()
    device = arguments.device
    if device in ("cuda", "npu"):
        device = f"{device}:{ranks.local}"
    encoder = TextEncoder.load(arguments.encoder, device, arguments.dtype)

    output, what = arguments.output, (arguments.descriptions, arguments.text, encoder)
    how = {"dtype": arguments.store_dtype, "overflow": arguments.overflow}

    def say(sentence: str) -> None:
        if ranks.rank == 0:
            print(f"{output}: {sentence}")

    if is_encoded(output, made_from(*what, **how)):
        say("is there already, from the same descriptions, text, encoder and options")
        return
    if output.exists():
        say("was made from something else or is not whole; replacing it")
    encoding = encode_descriptions(*what, output, **how, batch_size=arguments.batch_size, ranks=ranks)
    if encoding:
        store = encoding.metadata
        speed = f", {encoding.encoded / encoding.seconds:.0f} texts/s" if encoding.encoded else ""
        say(
            f"{store['count']} images, {encoding.texts} distinct texts, dim {store['dim']} ({store['dtype']}){speed}, "
            f"{store['truncated']:.1%} of the images have a text cut at {encoder.context_length} tokens"
        )


if __name__ == "__main__":
    run_command(main)
