"""Export a trained classifier, without its projection, to a MINDIR file."""

import argparse

from mindspore_gpt4image.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="NAME_OR_FILE",
        help="released checkpoint, checkpoint file, or folder of a run (then its last.ckpt)",
    )
    parser.add_argument("--output", required=True, metavar="FILE.mindir", help="model.yaml is written beside it")
    arguments = parser.parse_args()

    from mindspore_gpt4image.checkpoint import read_checkpoint
    from mindspore_gpt4image.export import BATCHES, export_mindir
    from mindspore_gpt4image.released import locate_checkpoint

    checkpoint = read_checkpoint(locate_checkpoint(arguments.checkpoint))
    difference = export_mindir(checkpoint, arguments.output)
    model = checkpoint.model
    shape = f"[N, 3, {model.crop}, {model.crop}]"
    print(f"{arguments.output}: {model.network}, float32 {shape} -> {len(model.classes)} logits")
    print(f"read back at batches {', '.join(map(str, BATCHES))}: largest difference of logits {difference:.2g}")


if __name__ == "__main__":
    run_command(main)
