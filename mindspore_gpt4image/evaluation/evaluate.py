"""Everything that is measured of a checkpoint on a split."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mindspore_gpt4image.checkpoint import Checkpoint
from mindspore_gpt4image.classifiers import Classifier
from mindspore_gpt4image.data.store import EmbeddingStore
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.evaluation.on_ranks import predict_on_ranks
from mindspore_gpt4image.evaluation.retrieval import embedder_of, retrieve
from mindspore_gpt4image.sources.formats import list_images


def evaluate(
    classifier: Classifier,
    split: str,
    *,
    data: str | Path | None = None,
    embeddings: str | Path | None = None,
    batch_size: int,
    workers: int,
) -> dict[str, Any]:
    """Classification of a split and, with a store of its texts, retrieval; as `tools/eval.py --json` writes it.

    Args:
        data: root of the data set; None: the one the checkpoint was trained on. An exported file does not know it.

    Raises:
        UserError: no such split, folders that are no class of the classifier, an image that cannot be read, a store
            that does not go with the checkpoint.
    """
    model, checkpoint = classifier.model, classifier.checkpoint
    trained_on = checkpoint.data if checkpoint else {}
    root, format = (data, "auto") if data else (trained_on.get("root"), trained_on.get("format", "auto"))
    if root is None:
        raise UserError(f"{classifier.path}: does not say what it was trained on; name a data set's root with --data")
    images = list_images(root, split, format=format, classes=model.classes).checked()
    for line in images.left_out:
        print(f"note: {line}", file=sys.stderr)
    if embeddings and checkpoint is None:
        raise UserError(f"--embeddings: {classifier.path} is exported, its projection is gone; name the checkpoint")
    store = open_store(checkpoint, embeddings) if embeddings else None
    predictions = predict_on_ranks(classifier.logits, images, model.transform, batch_size, workers, desc=split)
    result = {
        "checkpoint": str(classifier.path),
        "epoch": checkpoint.progress["epoch"] if checkpoint else None,
        "data": str(root),
        "split": split,
        **predictions.to_dict(),
    }
    if store is not None:
        retrieval = retrieve(embedder_of(checkpoint), images, store, model.transform, batch_size, workers)
        if retrieval is None:
            raise UserError(f"--embeddings {embeddings}: has no text of any image in {root}/{split}")
        result["retrieval"] = retrieval.to_dict()
    return result


def open_store(checkpoint: Checkpoint, path: str | Path) -> EmbeddingStore:
    """The store, if the checkpoint's image embeddings live in its space."""
    if checkpoint.model.text_dim is None:
        raise UserError(f"--embeddings: {checkpoint.path} has no projection, a baseline cannot look for texts")
    store = EmbeddingStore.open(path)
    if store.dim != checkpoint.model.text_dim:
        raise UserError(
            f"--embeddings {path}: has dimension {store.dim}, "
            f"the checkpoint was aligned with {checkpoint.model.text_dim}"
        )
    return store
