"""Released checkpoints: `checkpoints/manifest.yaml` names them and says what each is; found by name, and made here."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Optional

import yaml

from mindspore_gpt4image import yaml_text
from mindspore_gpt4image.download import fetch
from mindspore_gpt4image.errors import UserError, first_line, run_command
from mindspore_gpt4image.sources.descriptions import file_sha256

# Only a clone of the repository has it (pip install -e): an installed package is code alone.
FOLDER = Path(__file__).parents[1] / "checkpoints"
MANIFEST = "manifest.yaml"


@dataclass(frozen=True)
class Released:
    """An entry of the manifest; one with neither file nor URL is a slot, which waits for somebody to train it.

    Attributes:
        file: in the manifest's folder.
        url: where else the file is; it is downloaded into the user's cache.
        network: a name that `create_network` knows.
        dataset, split: what top-1 was measured on.
        top1: of this very file, in percent.
        recipe_top1: `mean`, `deviation` (sample) and `seeds` of the runs that differ by seed only, in percent.
        recipe: config file and overrides that trained it.
        classes: how many.
        preprocessing: of evaluation, in words; exact in the file's model description.
        text_encoder: what encoded the descriptions, and from which text; None: a baseline.
        licence: SPDX identifier, of the weights.
        commit: of the code that trained it.
        paper: the paper's own figures for this recipe: `baseline` and `aligned` top-1 in percent, and its `table`.
    """

    network: str
    dataset: str
    split: str
    recipe: str
    classes: int
    text_encoder: Optional[str]
    file: Optional[str] = None
    url: Optional[str] = None
    sha256: Optional[str] = None
    top1: Optional[float] = None
    recipe_top1: Optional[dict[str, Any]] = None
    preprocessing: Optional[str] = None
    licence: Optional[str] = None
    attribution: Optional[str] = None
    commit: Optional[str] = None
    paper: Optional[dict[str, Any]] = None

    @property
    def is_slot(self) -> bool:
        return self.file is None and self.url is None


# A slot has none of them, and everything that is released has all of them.
_OF_FILES = {"sha256", "top1", "recipe_top1", "preprocessing", "licence", "attribution", "commit"}
_OPTIONAL = {"file", "url", "paper"}
# Of what is no text.
_TYPES = {"classes": int, "top1": (int, float), "recipe_top1": dict, "paper": dict}


def read_manifest() -> dict[str, Released]:
    """The released checkpoints by name; none where the repository's folder is not there.

    Raises:
        UserError: an entry does not hold what `Released` lists.
    """
    path = FOLDER / MANIFEST
    if not path.is_file():
        return {}
    try:
        entries = yaml_text.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); git checkout brings it back") from error
    if not isinstance(entries, dict) or not all(
        isinstance(name, str) and isinstance(entry, dict) for name, entry in entries.items()
    ):
        raise UserError(f"{path}: must be a mapping of names to entries; git checkout brings it back")
    known = {field.name for field in fields(Released)}
    for name, entry in entries.items():
        given = set(entry)
        needed = known - _OPTIONAL - (set() if given & {"file", "url"} else _OF_FILES)
        if wrong := sorted(map(str, (needed - given) | (given - known))):
            raise UserError(f"{path}: {name}: missing or unknown: {', '.join(wrong)}")
        told = {key: value for key, value in entry.items() if value is not None}
        if wrong := [key for key, value in told.items() if not isinstance(value, _TYPES.get(key, str))]:
            raise UserError(f"{path}: {name}: of a wrong type: {', '.join(wrong)}")
        if not re.fullmatch("[0-9a-f]{64}", told.get("sha256", "0" * 64)):
            raise UserError(f"{path}: {name}: sha256 is no SHA-256 in hexadecimal")
        if not told.keys() & {"file", "url"} and not {"aligned", "table"} <= told.get("paper", {}).keys():
            raise UserError(f"{path}: {name}: a slot needs `paper`, with `aligned` and `table`")
    return {name: Released(**entry) for name, entry in entries.items()}


def locate_checkpoint(name_or_file: str) -> Path:
    """The file or run's folder of that path or, where there is none, the released checkpoint of that name.

    Raises:
        UserError: neither exists, nothing has been released under the name yet, the released file is not the one that
            was released, or it cannot be downloaded.
    """
    path = Path(name_or_file)
    if path.exists():
        return path
    released = read_manifest()
    if name_or_file not in released:
        near = difflib.get_close_matches(name_or_file, released, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        names = ", ".join(name for name, entry in released.items() if not entry.is_slot)
        names = names or f"none, {FOLDER / MANIFEST} is missing (clone, then pip install -e)"
        raise UserError(
            f"checkpoint {name_or_file}: no such file, run folder or released checkpoint; {hint}released are: {names}"
        )
    entry = released[name_or_file]
    if entry.is_slot:
        raise UserError(
            f"checkpoint {name_or_file}: nothing has been released under this name yet; the paper reports "
            f"{entry.paper['aligned']}% top-1 for it ({entry.paper['table']}), and {entry.recipe} is its recipe"
        )
    if entry.file is None:
        return fetch(entry.url, entry.sha256)
    path = FOLDER / entry.file
    if not path.is_file():
        raise UserError(f"{path}: is missing; git checkout -- {path} brings it back")
    if file_sha256(path) != entry.sha256:
        raise UserError(
            f"{path}: is not the file that was released as {name_or_file} (its SHA-256 differs from {MANIFEST}'s); "
            f"git checkout -- {path} brings it back"
        )
    return path


def release(runs: Sequence[Path], split: str, name: str) -> dict[str, Any]:
    """Write the last network of the first run, with its projection and without moments, to `checkpoints/<name>.ckpt`.

    Args:
        runs: finished runs of one experiment that differ by seed only, evaluated on `split`.

    Returns:
        What of its manifest entry is measured or read from the run.

    Raises:
        UserError: a run is not finished or not evaluated, they differ by more than the seed, or the first one has paths
            of this machine in its config.
    """
    # Here, since finding a checkpoint needs neither MindSpore nor SciPy.
    from mindspore_gpt4image.checkpoint import read_checkpoint, save_checkpoint
    from mindspore_gpt4image.runs import group_runs, read_run
    from mindspore_gpt4image.statistics import mean_and_deviation

    first, *_ = loaded = [read_run(run, split) for run in runs]
    if len(groups := group_runs(loaded)) > 1:
        raise UserError(f"{', '.join(map(str, runs))}: differ by more than the seed ({len(groups)} experiments)")
    data = first.config["data"]
    for place in (first.config["output"], data["root"], data["embeddings"], data["descriptions"]):
        if place and Path(place).is_absolute():
            raise UserError(f"{first.folder}: was trained with the path {place} of this machine; use relative ones")
    checkpoint = read_checkpoint(first.folder)
    path = FOLDER / f"{name}.ckpt"
    save_checkpoint(path, checkpoint.create_network(), checkpoint.model, checkpoint.progress)
    model = checkpoint.model
    mean, deviation = mean_and_deviation([run.evaluation["top1"] for run in loaded])
    return {
        "file": path.name,
        "sha256": file_sha256(path),
        "network": model.network,
        "split": split,
        "top1": round(first.evaluation["top1"], 2),
        "recipe_top1": {
            "mean": round(mean, 2),
            "deviation": None if deviation is None else round(deviation, 2),
            "seeds": [run.seed for run in loaded],
        },
        "classes": len(model.classes),
        "preprocessing": f"RGB, shorter side to {model.resize} ({model.interpolation}), centre crop of {model.crop}, "
        f"(x / 255 - mean) / std with mean {list(model.mean)}, std {list(model.std)}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mindspore_gpt4image.released",
        description="Write a run's network to checkpoints/NAME.ckpt and print its manifest entry, as far as the runs "
        "know it.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="runs that differ by seed; the first is it")
    parser.add_argument("--name", required=True)
    parser.add_argument("--split", default="test", help="split that RUN/eval-<split>.json is of (default: test)")
    arguments = parser.parse_args()
    entry = release(arguments.runs, arguments.split, arguments.name)
    print(yaml.safe_dump({arguments.name: entry}, sort_keys=False, width=120), end="")


if __name__ == "__main__":
    run_command(main)
