"""Classification shared between the ranks of a training run."""

from __future__ import annotations

from typing import Callable

import numpy as np

from mindspore_gpt4image import distributed
from mindspore_gpt4image.evaluation.classification import Predictions, predict
from mindspore_gpt4image.sources.image_set import ImageSet
from mindspore_gpt4image.sources.preprocessing import EvalTransform


def predict_on_ranks(
    classify: Callable[[np.ndarray], np.ndarray],
    images: ImageSet,
    transform: EvalTransform,
    batch_size: int,
    workers: int,
    desc: str | None = None,
    among: np.ndarray | None = None,
) -> Predictions:
    """`predict`, of which each rank does every R-th image and all get the predictions of all."""
    mine = range(distributed.rank(), len(images), distributed.world_size())
    part = predict(classify, images, transform, batch_size, workers, desc, positions=mine, among=among)
    arrays = part.classes, part.probabilities, part.true_log_probability
    return Predictions(images, *map(distributed.sum_over_ranks, arrays))
