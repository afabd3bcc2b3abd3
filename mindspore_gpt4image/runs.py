"""The folders that training runs leave behind, read without any framework."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Optional

import yaml

from mindspore_gpt4image import yaml_text
from mindspore_gpt4image.config import Config, differences, to_dict
from mindspore_gpt4image.errors import UserError

CONFIG, METRICS, SUMMARY = "config.yaml", "metrics.jsonl", "summary.json"
# The one before `LAST` is kept for the day that `LAST` is found damaged.
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
# Held by the process that trains in the folder.
LOCK = ".lock"
# Where a run lies, reads from and runs: no part of the experiment.
PLACES = {"output", "device", "data.root", "data.format", "data.embeddings", "data.descriptions"}
# In the order in which a comparison shows them.
ARMS = ("baseline", "aligned", "control")


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        config: the resolved experiment, nested.
        summary: `summary.json`.
        metrics: the lines of `metrics.jsonl`, one an epoch.
        evaluation: what `tools/eval.py` wrote about a split, if a split was asked for.
    """

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluation: Optional[dict[str, Any]] = None

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def arm(self) -> str:
        """`baseline` (no alignment), `control` (aligned with texts dealt to the wrong images) or `aligned`."""
        if self.config["loss"]["alignment"] == "none":
            return "baseline"
        return "control" if self.config["data"]["shuffle_texts"] else "aligned"


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one experiment that differ by seed only, in the order of their seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def arm(self) -> str:
        return self.runs[0].arm

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)


def read_run(folder: str | Path, split: str | None = None) -> Run:
    """Read a finished run and, if a split is named, its `eval-<split>.json`.

    Raises:
        UserError: no such folder, no run, a run that is not finished, a file that is damaged, or a split that was not
            evaluated; then with the command that does it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give the folder of a run, its config's output")
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: is not the folder of a run, {CONFIG} is missing; give a config's output")
    config = _parse_mapping(folder / CONFIG, yaml_text.load, ("seed", "epochs", "loss.alignment", "data.shuffle_texts"))
    metrics = read_metrics(folder / METRICS) if (folder / METRICS).is_file() else []
    summary = _parse_mapping(folder / SUMMARY, json.loads, ("epochs",)) if (folder / SUMMARY).is_file() else None
    # A run that was finished once and then given more epochs still has its old summary.
    if summary is None or summary["epochs"] != config["epochs"]:
        raise UserError(
            f"{folder}: the run is not finished (epoch {len(metrics)} of {config['epochs']}); "
            "start its tools/train.py command again, it will go on"
        )
    return Run(folder, config, summary, metrics, _read_evaluation(folder, config, split) if split else None)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, one an epoch; `UserError` where the file is damaged or empty."""
    return _parse(Path(path), lambda text: [json.loads(line) for line in text.splitlines()])


def read_evaluation(path: str | Path) -> dict[str, Any]:
    """A file that `tools/eval.py --json` wrote; `UserError` where it is none."""
    evaluation = _parse(Path(path), json.loads)
    if not isinstance(evaluation, dict) or not {"top1", "k", "classes", "predictions"} <= evaluation.keys():
        raise UserError(f"{path}: was not written by tools/eval.py --json")
    return evaluation


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Put runs together whose configs differ by seed and `PLACES` only; baselines first, then aligned, then control.

    A group is labelled by its arm and, where groups share an arm, by the options in which these differ:
    `aligned, loss.weight=0.3`.

    Raises:
        UserError: two runs of a group have the same seed.
    """
    alike: list[list[Run]] = []
    for run in runs:
        for group in alike:
            if not _changed(group[0].config, run.config):
                group.append(run)
                break
        else:
            alike.append([run])
    alike.sort(key=lambda group: ARMS.index(group[0].arm))
    groups = []
    for group in alike:
        group.sort(key=lambda run: run.seed)
        for one, other in zip(group, group[1:]):
            if one.seed == other.seed:
                raise UserError(
                    f"{one.folder} and {other.folder}: are the same experiment with the same seed {one.seed}; "
                    "leave one of them out"
                )
        peers = [other[0].config for other in alike if other[0].arm == group[0].arm]
        groups.append(Group(_label(group[0], peers), tuple(group)))
    return groups


def finished_summary(config: Config) -> dict[str, Any] | None:
    """The summary of the run in `config.output`, if it is finished and was exactly this experiment; else None."""
    try:
        run = read_run(config.output)
    except UserError:
        # Training will find out what is wrong there, and say it or go on.
        return None
    return None if differences(run.config, to_dict(config)).keys() - PLACES else run.summary


def _changed(old: dict, new: dict) -> list[str]:
    return [key for key in differences(old, new) if key not in PLACES and key != "seed"]


def _label(run: Run, peers: list[dict]) -> str:
    keys = dict.fromkeys(key for peer in peers for key in _changed(run.config, peer))
    return ", ".join([run.arm, *(f"{key}={shown(option(run.config, key))}" for key in keys)])


def option(config: dict[str, Any], key: str) -> Any:
    """The value of a dotted key in a nested config."""
    return reduce(dict.__getitem__, key.split("."), config)


def shown(value: Any) -> str:
    """An option's value as one types it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _read_evaluation(folder: Path, config: dict, split: str) -> dict[str, Any]:
    path = folder / f"eval-{split}.json"
    evaluation = _parse(path, json.loads) if path.is_file() else None
    fault = None
    if evaluation is None:
        fault = "there is no such file"
    elif evaluation["epoch"] != config["epochs"]:
        fault = f"was made after epoch {evaluation['epoch']}"
    elif "retrieval" in evaluation and "text_to_image" not in evaluation["retrieval"]:
        fault = "was made by an earlier version"
    if fault:
        embeddings = "" if config["loss"]["alignment"] == "none" else f" --embeddings {config['data']['embeddings']}"
        raise UserError(
            f"{path}: {fault}; make it: "
            f"python tools/eval.py --checkpoint {folder} --split {split}{embeddings} --json {path}"
        )
    return evaluation


def _parse_mapping(path: Path, parse: Any, keys: Iterable[str]) -> dict[str, Any]:
    value = _parse(path, parse)
    try:
        for key in keys:
            option(value, key)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged (it must hold {', '.join(keys)}); make it anew") from error
    return value


def _parse(path: Path, parse: Any) -> Any:
    try:
        value = parse(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: is damaged ({' '.join(str(error).split())}); make it anew") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not value:
        raise UserError(f"{path}: is empty; make it anew")
    return value
