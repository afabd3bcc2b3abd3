"""Predict the classes of images: the five best with their probabilities."""

import argparse

from mindspore_gpt4image.errors import UserError, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="NAME_OR_FILE",
        help="released checkpoint, checkpoint file, folder of a run, or an exported FILE.mindir",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file, or folder with images at any depth")
    parser.add_argument("--json", metavar="FILE", help="write the predictions here as well")
    parser.add_argument("--device", default="CPU", choices=("CPU", "GPU", "Ascend"))
    arguments = parser.parse_args()

    from mindspore_gpt4image.device import use_device
    from mindspore_gpt4image.files import write_json
    from mindspore_gpt4image.predict import find_broken, find_images, open_classifier, predict_images, render_table
    from mindspore_gpt4image.released import locate_checkpoint

    use_device(arguments.device)
    images = find_images(arguments.images)
    classify, model = open_classifier(locate_checkpoint(arguments.checkpoint))
    # One broken image does not cost the predictions of all others.
    broken = find_broken(images)
    predictions = predict_images(classify, model, [image for image in images if image not in broken])
    if arguments.json:
        write_json(arguments.json, [prediction.to_dict() for prediction in predictions])
    print(render_table(predictions))
    if broken:
        raise UserError(f"not predicted, {len(broken)} of {len(images)} images: {'; '.join(broken.values())}")


if __name__ == "__main__":
    run_command(main)
