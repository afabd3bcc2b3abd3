"""A map of the text embeddings: nearby points are texts that the encoder takes for similar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.manifold import TSNE

from mindspore_gpt4image.data.store import EmbeddingStore
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.report.pictures import contact_sheet
from mindspore_gpt4image.sources.image_set import ImageSet

MOST_POINTS = 2000
TILE = 40


def embedding_map(
    images: ImageSet, store: EmbeddingStore, texts: Mapping[str, str], most: int = MOST_POINTS
) -> dict[str, Any]:
    """What the page's script draws: t-SNE of the texts of `images`, with class, text and picture of each point.

    Of more than `most` images a random choice is drawn, the same in every report.

    Returns:
        `points`: rows of x, y in 0 … 1, position in `classes`, text and id; `classes`: names; `sheet`, `tile` and
        `columns`: the pictures in the order of the points.

    Raises:
        UserError: fewer than two of the images have an embedding.
    """
    rows = store.locate(images.ids)
    chosen = np.flatnonzero(rows >= 0)
    if len(chosen) < 2:
        raise UserError(f"{store.path}: holds no texts of the images in {images.root}; encode their descriptions")
    if len(chosen) > most:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, most, replace=False))
    embeddings, _ = store.take(rows[chosen])
    places = project(embeddings)
    sheet, columns = contact_sheet(images, chosen.tolist(), TILE)
    points = [
        [round(float(x), 4), round(float(y), 4), int(images.labels[index]), texts[images.ids[index]], images.ids[index]]
        for (x, y), index in zip(places, chosen)
    ]
    return {"points": points, "classes": list(images.classes), "sheet": sheet, "tile": TILE, "columns": columns}


def project(embeddings: np.ndarray) -> np.ndarray:
    """t-SNE of unit rows [n, k] to the unit square, [n, 2]; the same for the same rows."""
    perplexity = min(30, (len(embeddings) - 1) / 3)
    places = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=0).fit_transform(embeddings)
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.maximum(high - low, 1e-9)
