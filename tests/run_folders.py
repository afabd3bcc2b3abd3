"""Folders as training and evaluation leave them, without training."""

from __future__ import annotations

import json
from pathlib import Path

from mindspore_gpt4image.config import parse_config, save_config

CLASSES = ("blue", "green", "red")
IDS = [f"test/{name}/{number:02d}.png" for name in CLASSES for number in range(4)]
ARMS = {
    "baseline": {"loss": {"alignment": "none"}},
    "aligned": {"loss": {"alignment": "infonce"}, "data": {"embeddings": "short.mindrecord"}},
    "control": {"loss": {"alignment": "infonce"}, "data": {"embeddings": "short.mindrecord", "shuffle_texts": True}},
}


def make_run(folder: Path, arm: str, seed: int, right: int, ids=IDS, epochs: int = 2, root="data", **loss) -> Path:
    """A finished run, and its eval-test.json with the first `right` of `ids` classified rightly."""
    folder.mkdir(parents=True)
    own = ARMS[arm]
    config = {
        "output": str(folder),
        "seed": seed,
        "epochs": epochs,
        "data": {"root": str(root), **own.get("data", {})},
        "loss": {**own["loss"], **loss},
    }
    save_config(parse_config(config, "the test"), folder / "config.yaml")
    lines = [
        {"epoch": n + 1, "train_ce": 2.0 - n, "train_align": 1.0 - n / 2, "val_ce": 2.1 - n, "val_top1": 10.0 * n}
        for n in range(epochs)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {"epochs": epochs, "seconds": 60.0 + seed, "images_per_second": 100.0, "deployed_parameters": 1234567}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "eval-test.json").write_text(json.dumps(evaluation(arm, right, ids, epochs)))
    return folder


def evaluation(arm: str, right: int, ids, epoch: int = 2) -> dict:
    predictions = []
    for position, id in enumerate(ids):
        truth = CLASSES.index(id.split("/")[1])
        best = truth if position < right else (truth + 1) % 3
        predicted = [CLASSES[(best + n) % 3] for n in range(3)]
        predictions.append(
            {"id": id, "class": CLASSES[truth], "predicted": predicted, "probabilities": [0.6, 0.3, 0.1]}
        )
    found = [image["predicted"][0] == image["class"] for image in predictions]
    classes = []
    for name in CLASSES:
        hits = [hit for hit, image in zip(found, predictions) if image["class"] == name]
        classes.append({"class": name, "images": len(hits), "correct": sum(hits), "top1": 100 * sum(hits) / len(hits)})
    result = {
        "epoch": epoch,
        "images": len(ids),
        "top1": 100 * sum(found) / len(ids),
        "top5": 100.0,
        "k": 3,
        "classes": classes,
        "predictions": predictions,
    }
    if arm != "baseline":
        recalls = {"r1": 4.0, "r5": 20.0, "r10": 40.0, "chance_r1": 2.0, "chance_r5": 10.0, "chance_r10": 20.0}
        back = {"r1": 8.0, "r5": 30.0, "r10": 50.0, "chance_r1": 8.0, "chance_r5": 40.0, "chance_r10": 80.0}
        result["retrieval"] = {"images": len(ids), "texts": 50, **recalls, "text_to_image": back}
    return result
