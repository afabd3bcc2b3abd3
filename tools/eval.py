"""Evaluate a checkpoint on a split of a data set: top-1, top-5, cross-entropy; each class and image to a file."""

import argparse

from mindspore_gpt4image.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="NAME_OR_FILE",
        help="released checkpoint, checkpoint file, folder of a run (then its last.ckpt), or an exported FILE.mindir "
        "or FILE.onnx",
    )
    parser.add_argument(
        "--weights", default="plain", choices=("plain", "ema"), help="of a checkpoint: ema is the moving average"
    )
    parser.add_argument("--data", metavar="DIR", help="the data set (default: the one it was trained on)")
    parser.add_argument("--split", default="val", help="part of the data set (default: val)")
    parser.add_argument(
        "--embeddings",
        metavar="FILE",
        help="store with texts of these images: also measure how well an aligned network finds the right text",
    )
    parser.add_argument("--json", metavar="FILE", help="write the results here, with each class and each image")
    parser.add_argument("--batch-size", type=int, default=128, help="changes the speed, not the result (default: 128)")
    parser.add_argument("--workers", type=int, default=2, help="threads that read images (default: 2)")
    parser.add_argument("--device", default="CPU", choices=("CPU", "GPU", "Ascend"))
    arguments = parser.parse_args()

    from mindspore_gpt4image.classifiers import load_classifier
    from mindspore_gpt4image.evaluation.evaluate import evaluate
    from mindspore_gpt4image.files import write_json

    result = evaluate(
        load_classifier(arguments.checkpoint, arguments.weights, arguments.device),
        arguments.split,
        data=arguments.data,
        embeddings=arguments.embeddings,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
    )
    if arguments.json:
        write_json(arguments.json, result)
    print(
        f"{result['checkpoint']} on {result['data']}/{result['split']}: {result['images']} images, "
        f"top-1 {result['top1']:.2f}%, top-{result['k']} {result['top5']:.2f}%, cross-entropy {result['ce']:.4f}"
    )
    if found := result.get("retrieval"):
        print(
            f"right text among {found['texts']}: R@1 {found['r1']:.2f}% (chance {found['chance_r1']:.2f}%), "
            f"R@10 {found['r10']:.2f}% (chance {found['chance_r10']:.2f}%)"
        )


if __name__ == "__main__":
    run_command(main)
