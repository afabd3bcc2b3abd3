"""Test images with what each arm takes them for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mindspore_gpt4image.report.comparison import Comparison, correct
from mindspore_gpt4image.report.pictures import thumbnail
from mindspore_gpt4image.runs import Run
from mindspore_gpt4image.sources.image_set import ImageSet

RANDOM_IMAGES = 24
DISAGREEMENTS = 12
SIDE = 112


def gallery(comparison: Comparison, images: ImageSet, texts: Mapping[str, str]) -> dict[str, Any]:
    """Images chosen at random, and at random among those where just one of baseline and aligned is right.

    `images` is the split that the runs were evaluated on. Predictions are those of the first seed that all arms have;
    the choice is the same in every report.

    Returns:
        `seed`, and `parts`: each with a `title`, `total` (how many images it was chosen from) and `cards`.
    """
    seed = min(set.intersection(*(set(group.seeds) for group in comparison.groups)))
    runs = {group.arm: next(run for run in group.runs if run.seed == seed) for group in comparison.groups}
    baseline, aligned = (correct(runs[arm].evaluation) for arm in ("baseline", "aligned"))
    answers = {arm: _by_id(run) for arm, run in runs.items()}
    ids = sorted(answers["aligned"])
    position_of = {id: position for position, id in enumerate(images.ids)}
    random = np.random.default_rng(0)

    def part(title: str, among: np.ndarray, most: int) -> dict[str, Any]:
        positions = np.flatnonzero(among)
        chosen = np.sort(random.choice(positions, min(most, len(positions)), replace=False))
        cards = [
            {**_card(id, answers), "text": texts.get(id), "picture": thumbnail(images.rgb(position_of[id]), SIDE)}
            for id in (ids[position] for position in chosen)
        ]
        return {"title": title, "total": len(positions), "cards": cards}

    return {
        "seed": seed,
        "parts": [
            part("Picked at random", np.ones(len(ids), bool), RANDOM_IMAGES),
            part("Aligned right, baseline wrong", aligned & ~baseline, DISAGREEMENTS),
            part("Baseline right, aligned wrong", baseline & ~aligned, DISAGREEMENTS),
        ],
    }


def _by_id(run: Run) -> dict[str, dict]:
    return {image["id"]: image for image in run.evaluation["predictions"]}


def _card(id: str, answers: dict[str, dict]) -> dict[str, Any]:
    truth = answers["aligned"][id]["class"]
    guesses = [
        {
            "arm": arm,
            "class": answer[id]["predicted"][0],
            "percent": 100 * answer[id]["probabilities"][0],
            "right": answer[id]["predicted"][0] == truth,
        }
        for arm, answer in answers.items()
    ]
    return {"id": id, "class": truth, "guesses": guesses}
