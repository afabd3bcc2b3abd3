"""Everything that is measured of a checkpoint on a split."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mindspore_gpt4image.classifiers import Classifier
from mindspore_gpt4image.data.store import EmbeddingStore
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.evaluation.classification import Predictions
from mindspore_gpt4image.evaluation.labels import read_label_sets, relabelled, rename_folders
from mindspore_gpt4image.evaluation.on_ranks import predict_on_ranks
from mindspore_gpt4image.evaluation.retrieval import embed_images, embedder_of, retrieve, zero_shot
from mindspore_gpt4image.sources.formats import list_images
from mindspore_gpt4image.sources.image_set import ImageSet


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured: `values` as `tools/eval.py --json` writes them, and the predictions they come from."""

    predictions: Predictions
    values: dict[str, Any]


def evaluate(
    classifier: Classifier,
    split: str,
    *,
    data: str | Path | None = None,
    embeddings: str | Path | None = None,
    class_texts: str | Path | None = None,
    folder_names: str | Path | None = None,
    label_sets: str | Path | None = None,
    only_classes_of_split: bool = False,
    batch_size: int,
    workers: int,
) -> Evaluation:
    """Classification of a split and, with a store of its texts, retrieval.

    Args:
        data: root of the data set; None: the one the checkpoint was trained on. An exported file does not know it.
        embeddings: store of the images' texts: retrieval is measured too.
        class_texts: store of the classes' texts by their names: zero-shot classification is measured too.
        folder_names: see `rename_folders`.
        label_sets: see `read_label_sets`; top-1 and top-5 by them are added to those by the folders.
        only_classes_of_split: answers are classes that have a folder in the split.

    Raises:
        UserError: no such split, folders that are no class of the classifier, an image that cannot be read, a store
            that does not go with the checkpoint, labels that do not go with the split.
    """
    images = _list_images(classifier, split, data, folder_names).checked()
    for line in images.notes:
        print(f"note: {line}", file=sys.stderr)
    stores = {option: open_store(classifier, option, path) for option, path in _stores(embeddings, class_texts)}
    sets = read_label_sets(label_sets, images) if label_sets else None
    model, checkpoint = classifier.model, classifier.checkpoint
    among = np.unique(images.labels) if only_classes_of_split else None
    predictions = predict_on_ranks(
        classifier.logits, images, model.transform, batch_size, workers, desc=split, among=among
    )
    values = {
        "checkpoint": str(classifier.path),
        "epoch": checkpoint.progress["epoch"] if checkpoint else None,
        "data": str(images.root),
        "split": split,
        **predictions.to_dict(),
    }
    if sets is not None:
        values["relabelled"] = relabelled(predictions, sets)
    if stores:
        embed = embedder_of(checkpoint, classifier.weights)
        image_emb = embed_images(embed, images, model.transform, batch_size, workers)
        if "--embeddings" in stores:
            found = retrieve(image_emb, images.ids, stores["--embeddings"])
            if found is None:
                raise UserError(f"--embeddings {embeddings}: has no text of any image in {images.root}/{split}")
            values["retrieval"] = found.to_dict()
        if "--class-texts" in stores:
            values["zero_shot"] = zero_shot(image_emb, images, stores["--class-texts"])
    return Evaluation(predictions, values)


def open_store(classifier: Classifier, option: str, path: str | Path) -> EmbeddingStore:
    """The store, if the classifier's image embeddings live in its space; `option` is what named it."""
    if classifier.checkpoint is None:
        raise UserError(f"{option}: {classifier.path} is exported, its projection is gone; name the checkpoint")
    dim = classifier.model.text_dim
    if dim is None:
        raise UserError(f"{option}: {classifier.path} has no projection, a baseline cannot look for texts")
    store = EmbeddingStore.open(path)
    if store.dim != dim:
        raise UserError(f"{option} {path}: has dimension {store.dim}, the checkpoint was aligned with {dim}")
    if aligned_with := classifier.checkpoint.progress.get("texts"):
        store.check_encoder(aligned_with["encoder"])
    return store


def _list_images(
    classifier: Classifier, split: str, data: str | Path | None, folder_names: str | Path | None
) -> ImageSet:
    trained_on = classifier.checkpoint.data if classifier.checkpoint else {}
    root, format = (data, "auto") if data else (trained_on.get("root"), trained_on.get("format", "auto"))
    if root is None:
        raise UserError(f"{classifier.path}: does not say what it was trained on; name a data set's root with --data")
    classes = classifier.model.classes
    if folder_names is None:
        return list_images(root, split, format=format, classes=classes)
    return rename_folders(list_images(root, split, format=format), folder_names, classes)


def _stores(embeddings: str | Path | None, class_texts: str | Path | None) -> list[tuple[str, str | Path]]:
    named = (("--embeddings", embeddings), ("--class-texts", class_texts))
    return [(option, path) for option, path in named if path]
