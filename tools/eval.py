"""Evaluate a checkpoint on a split of a data set: top-1, top-5, cross-entropy; each class and image to a file."""

import argparse
from pathlib import Path

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
    parser.add_argument(
        "--class-texts",
        metavar="FILE",
        help="store with a text of each class, its ids the classes' names: also classify by the nearest text",
    )
    parser.add_argument(
        "--folder-names", metavar="FILE", help='JSON object of folders and their classes, {"0": "n01440764", …}'
    )
    parser.add_argument(
        "--label-sets",
        metavar="FILE",
        help="JSON list with the class numbers that are right for each image, in the order of the file names (ReaL)",
    )
    parser.add_argument(
        "--only-classes-of-split", action="store_true", help="answer no class without a folder there (ImageNet-A, -R)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results here, with each class and each image")
    parser.add_argument("--csv", metavar="FILE", help="write the best classes of each image here")
    parser.add_argument(
        "--report", metavar="DIR", type=Path, help="write eval.html: classes, confusions, most confident mistakes"
    )
    parser.add_argument("--batch-size", type=int, default=128, help="changes the speed, not the result (default: 128)")
    parser.add_argument("--workers", type=int, default=2, help="threads that read images (default: 2)")
    parser.add_argument("--device", default="CPU", choices=("CPU", "GPU", "Ascend"))
    arguments = parser.parse_args()

    from mindspore_gpt4image.classifiers import load_classifier
    from mindspore_gpt4image.evaluation.classification import write_csv
    from mindspore_gpt4image.evaluation.evaluate import evaluate
    from mindspore_gpt4image.files import write_json

    evaluation = evaluate(
        load_classifier(arguments.checkpoint, arguments.weights, arguments.device),
        arguments.split,
        data=arguments.data,
        embeddings=arguments.embeddings,
        class_texts=arguments.class_texts,
        folder_names=arguments.folder_names,
        label_sets=arguments.label_sets,
        only_classes_of_split=arguments.only_classes_of_split,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
    )
    result = evaluation.values
    if arguments.json:
        write_json(arguments.json, result)
    if arguments.csv:
        write_csv(evaluation.predictions, arguments.csv)
    if arguments.report:
        from mindspore_gpt4image.report.evaluation import write_evaluation_report

        write_evaluation_report(evaluation.predictions, result, arguments.report)
    show(result)


def show(result: dict) -> None:
    few = "" if result["k"] == 5 else f" (all {result['k']} classes)"
    print(
        f"{result['checkpoint']} on {result['data']}/{result['split']}: {result['images']} images, "
        f"top-1 {result['top1']:.2f}%, top-{result['k']}{few} {result['top5']:.2f}%, "
        f"cross-entropy {result['ce']:.4f}"
    )
    if found := result.get("relabelled"):
        print(f"by the label sets: {found['images']} images, top-1 {found['top1']:.2f}%, top-5 {found['top5']:.2f}%")
    if found := result.get("retrieval"):
        back = found["text_to_image"]
        for title, values in (
            (f"right text among {found['texts']}", found),
            (f"right image among {found['images']}", back),
        ):
            recalls = (f"R@{k} {values[f'r{k}']:.2f}% (chance {values[f'chance_r{k}']:.2f}%)" for k in (1, 5, 10))
            print(f"{title}: {', '.join(recalls)}")
        print(
            f"alignment {found['alignment']:.3f}, uniformity of images {found['uniformity']:.3f}, "
            f"of texts {found['text_uniformity']:.3f}"
        )
    if found := result.get("zero_shot"):
        print(f"nearest class text: top-1 {found['top1']:.2f}%, top-{found['k']} {found['top5']:.2f}%")


if __name__ == "__main__":
    run_command(main)
