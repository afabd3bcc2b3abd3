"""Evaluate a checkpoint on a split of a data set: top-1, top-5, cross-entropy; each class and image to a file."""

import argparse

from mindspore_gpt4image.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="checkpoint file, or folder of a run (then its last.ckpt)")
    parser.add_argument("--data", metavar="DIR", help="root of the data set (default: the one it was trained on)")
    parser.add_argument("--split", default="val", help="folder below the root (default: val)")
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

    import mindspore as ms

    from mindspore_gpt4image.checkpoint import read_checkpoint
    from mindspore_gpt4image.data.store import EmbeddingStore
    from mindspore_gpt4image.errors import UserError
    from mindspore_gpt4image.evaluation.classification import classifier_of, predict
    from mindspore_gpt4image.evaluation.retrieval import embedder_of, retrieve
    from mindspore_gpt4image.files import write_json
    from mindspore_gpt4image.sources.image_folder import list_split

    ms.set_device(arguments.device)
    ms.set_context(mode=ms.GRAPH_MODE)
    checkpoint = read_checkpoint(arguments.checkpoint)
    root = arguments.data or checkpoint.progress["config"]["data"]["root"]
    images = list_split(root, arguments.split, classes=checkpoint.model.classes)
    predictions = predict(
        classifier_of(checkpoint),
        images,
        checkpoint.model.transform,
        arguments.batch_size,
        arguments.workers,
        desc=arguments.split,
    )
    result = {"checkpoint": str(checkpoint.path), "data": str(root), "split": arguments.split, **predictions.to_dict()}
    if arguments.embeddings:
        if checkpoint.model.text_dim is None:
            raise UserError(f"--embeddings: {checkpoint.path} has no projection, a baseline cannot look for texts")
        store = EmbeddingStore.open(arguments.embeddings)
        if store.dim != checkpoint.model.text_dim:
            raise UserError(
                f"--embeddings {arguments.embeddings}: has dimension {store.dim}, "
                f"the checkpoint was aligned with {checkpoint.model.text_dim}"
            )
        retrieval = retrieve(
            embedder_of(checkpoint),
            images,
            store,
            checkpoint.model.transform,
            arguments.batch_size,
            arguments.workers,
        )
        if retrieval is None:
            raise UserError(
                f"--embeddings {arguments.embeddings}: has no text of any image in {root}/{arguments.split}"
            )
        result["retrieval"] = retrieval.to_dict()
    if arguments.json:
        write_json(arguments.json, result)
    print(
        f"{checkpoint.path} on {root}/{arguments.split}: {result['images']} images, top-1 {result['top1']:.2f}%, "
        f"top-{result['k']} {result['top5']:.2f}%, cross-entropy {result['ce']:.4f}"
    )
    if "retrieval" in result:
        found = result["retrieval"]
        print(
            f"right text among {found['texts']}: R@1 {found['r1']:.2f}% (chance {found['chance_r1']:.2f}%), "
            f"R@10 {found['r10']:.2f}% (chance {found['chance_r10']:.2f}%)"
        )


if __name__ == "__main__":
    run_command(main)
