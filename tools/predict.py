"""Predict the classes of images: the five best with their probabilities."""

import argparse
import sys

from mindspore_gpt4image.errors import UserError, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="NAME_OR_FILE",
        help="released checkpoint, checkpoint file, folder of a run, or an exported FILE.mindir or FILE.onnx, which "
        "needs no MindSpore",
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image file, or folder with images at any depth; - reads such names from standard input, one a line",
    )
    parser.add_argument(
        "--weights", default="plain", choices=("plain", "ema"), help="of a checkpoint: ema is the moving average"
    )
    parser.add_argument("--csv", metavar="FILE", help="write the predictions here as well, a line an image and class")
    parser.add_argument("--json", metavar="FILE", help="write the predictions here as well")
    parser.add_argument("--device", default="CPU", choices=("CPU", "GPU", "Ascend"))
    arguments = parser.parse_args()

    from mindspore_gpt4image.classifiers import load_classifier
    from mindspore_gpt4image.files import atomic_write, write_json
    from mindspore_gpt4image.predict import (
        find_broken,
        find_images,
        predict_images,
        read_names,
        render_csv,
        render_table,
    )

    images = find_images(read_names(arguments.images, sys.stdin))
    classifier = load_classifier(arguments.checkpoint, arguments.weights, arguments.device)
    # One broken image does not cost the predictions of all others.
    broken = find_broken(images)
    predictions = predict_images(classifier, [image for image in images if image not in broken])
    if arguments.csv:
        atomic_write(arguments.csv, render_csv(predictions))
    if arguments.json:
        write_json(arguments.json, [prediction.to_dict() for prediction in predictions])
    print(render_table(predictions))
    if broken:
        raise UserError(f"not predicted, {len(broken)} of {len(images)} images: {'; '.join(broken.values())}")


if __name__ == "__main__":
    run_command(main)
