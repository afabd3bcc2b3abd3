"""Export a trained classifier, without its projection, to a MINDIR or ONNX file, and prove it equal."""

import argparse

from mindspore_gpt4image.errors import UserError, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="NAME_OR_FILE",
        help="released checkpoint, checkpoint file, or folder of a run (then its last.ckpt)",
    )
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="FILE.mindir or FILE.onnx; model.yaml is written beside it"
    )
    parser.add_argument("--weights", default="plain", choices=("plain", "ema"), help="ema: the moving average")
    parser.add_argument("--batch", type=positive, metavar="N", help="the only batch size (default: any)")
    parser.add_argument("--image-size", type=positive, metavar="PIXELS", help="default: that of the training")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"), help="of weights and arithmetic")
    parser.add_argument(
        "--input",
        default="float32",
        choices=("float32", "uint8"),
        help="float32: normalised, [N, 3, H, W]; uint8: pixels, [N, H, W, 3], which the graph normalises itself",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="data set on whose val split the export is compared besides random images (default: that of the training)",
    )
    arguments = parser.parse_args()

    from mindspore_gpt4image.checkpoint import read_checkpoint
    from mindspore_gpt4image.export import export_classifier, sample_pixels
    from mindspore_gpt4image.released import locate_checkpoint

    checkpoint = read_checkpoint(locate_checkpoint(arguments.checkpoint))
    model = checkpoint.model.at_size(arguments.image_size or checkpoint.model.crop)
    real_images, source = None, "random images alone, since the data set of the training is not here (see --data)"
    if root := arguments.data or checkpoint.data.get("root"):
        try:
            real_images, source = sample_pixels(root, model), f"random images and on some of {root}"
        except UserError:
            if arguments.data:
                raise
    result = export_classifier(
        checkpoint.create_network(arguments.weights),
        checkpoint.model,
        arguments.output,
        batch=arguments.batch,
        image_size=arguments.image_size,
        dtype=arguments.dtype,
        pixels=arguments.input == "uint8",
        real_images=real_images,
    )
    model = result.model
    batch, classes = arguments.batch or "any", len(model.classes)
    print(f"{arguments.output}: {model.network}, {arguments.dtype}, {arguments.weights} weights")
    print(f"takes {model.input}, N = {batch}, {model.crop} x {model.crop} pixels; gives logits float32 [N, {classes}]")
    print(
        f"read back in batches of {', '.join(map(str, result.batches))} on {source}: "
        f"largest difference of logits {result.largest:.2g}"
    )


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    run_command(main)
