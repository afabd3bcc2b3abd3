"""Test images with what each arm takes them for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mindspore_gpt4image.report.comparison import Comparison, correct
from mindspore_gpt4image.report.pictures import thumbnail
from mindspore_gpt4image.runs import Run

RANDOM_IMAGES = 24
DISAGREEMENTS = 12
SIDE = 112


def gallery(comparison: Comparison, data: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    """Images chosen at random, and at random among those where just one of baseline and aligned is right.

    Predictions are those of the first seed that all arms have; the choice is the same in every report.

    Returns:
        `seed`, and `parts`: each with a `title`, `total` (how many images it was chosen from) and `cards`.
    """
    seed = min(set.intersection(*(set(group.seeds) for group in comparison.groups)))
    runs = {group.arm: next(run for run in group.runs if run.seed == seed) for group in comparison.groups}
    baseline, aligned = correct(runs["baseline"]), correct(runs["aligned"])
    answers = {arm: _by_id(run) for arm, run in runs.items()}
    ids = sorted(answers["aligned"])
    random = np.random.default_rng(0)

    def part(title: str, among: np.ndarray, most: int) -> dict[str, Any]:
        positions = np.flatnonzero(among)
        chosen = np.sort(random.choice(positions, min(most, len(positions)), replace=False))
        cards = [_card(ids[position], answers, data, texts) for position in chosen]
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


def _card(id: str, answers: dict[str, dict], data: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    truth = answers["aligned"][id]["class"]
    guesses = [
        {
            "arm": arm,
            "class": images[id]["predicted"][0],
            "percent": 100 * images[id]["probabilities"][0],
            "right": images[id]["predicted"][0] == truth,
        }
        for arm, images in answers.items()
    ]
    return {"id": id, "class": truth, "text": texts.get(id), "picture": thumbnail(data / id, SIDE), "guesses": guesses}
