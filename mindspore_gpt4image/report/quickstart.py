"""Write the report of a quickstart: report.md with its figures."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from mindspore_gpt4image.data.store import read_metadata
from mindspore_gpt4image.errors import UserError, run_command
from mindspore_gpt4image.files import atomic_write
from mindspore_gpt4image.report.comparison import HOW_TO_READ, Comparison, compare
from mindspore_gpt4image.report.figures import curves, results, save_png
from mindspore_gpt4image.report.markdown import render_markdown
from mindspore_gpt4image.runs import ARMS, group_runs, read_run
from mindspore_gpt4image.sources.descriptions import read_descriptions
from mindspore_gpt4image.sources.image_folder import list_split

SPLIT = "test"
EXAMPLES = 3

_HELPS = {
    "better": "Alignment helps: aligned is better than the baseline.",
    "worse": "Alignment does not help here: aligned is worse than the baseline.",
    "none": "Alignment does not help here, as far as these seeds can tell: aligned and baseline do not differ measurably.",
    "undecided": "Whether alignment helps cannot be told from these seeds.",
}
_CONTENT = {
    "better": "The content of the texts helps: the right texts are better than shuffled ones.",
    "worse": "The content of the texts does not help: the right texts are worse than shuffled ones.",
    "none": "That the content of the texts matters is not measurable: right and shuffled texts do not differ measurably.",
    "undecided": "Whether the content of the texts helps cannot be told from these seeds.",
}


@dataclass(frozen=True, eq=False)
class Quickstart:
    """What the report of a quickstart is about.

    Attributes:
        folder: holds `<arm>/seed<S>/` and `export/`.
        data: root of the data set.
        texts: text by image id.
        model: the exported file.
    """

    folder: Path
    data: Path
    comparison: Comparison
    texts: dict[str, str]
    model: Path

    @property
    def config(self) -> dict:
        """Of an aligned run."""
        return next(group for group in self.comparison.groups if group.arm == "aligned").runs[0].config


def read_quickstart(folder: Path, data: Path) -> Quickstart:
    """Collect the runs, the exported model and the texts.

    Raises:
        UserError: something is missing, unfinished or of another experiment.
    """
    runs = []
    for arm in ARMS:
        folders = sorted((folder / arm).glob("seed*"))
        if not folders:
            raise UserError(f"{folder / arm}: holds no seed*/ of a run; bash tools/quickstart.sh makes them")
        runs += [read_run(run, SPLIT) for run in folders]
    groups = group_runs(runs)
    if len(groups) != len(ARMS):
        labels = "; ".join(group.label for group in groups)
        raise UserError(
            f"{folder}: holds more than one experiment an arm ({labels}); remove the runs that are out of date"
        )
    models = sorted((folder / "export").glob("*.mindir"))
    if not models:
        run, export = folder / "aligned" / f"seed{groups[1].seeds[0]}", folder / "export"
        raise UserError(
            f"{export}: holds no exported model; make it: "
            f"python tools/export.py --checkpoint {run} --output {export / 'aligned.mindir'}"
        )
    texts = read_descriptions(data / "descriptions.jsonl", groups[1].runs[0].config["data"]["text"])
    return Quickstart(folder, data, compare(groups, SPLIT), texts, models[0])


def conclusions(comparison: Comparison) -> list[str]:
    """What the three arms say together, in sentences; the first says whether alignment helps."""
    helps, content = comparison.pair("baseline", "aligned"), comparison.pair("control", "aligned")
    return [_HELPS[helps.outcome], _CONTENT[content.outcome]]


def write_report(quickstart: Quickstart) -> None:
    """Write report.md and its figures into the quickstart's folder."""
    folder, comparison = quickstart.folder, quickstart.comparison
    save_png(curves(comparison), folder / "curves.png")
    save_png(results(comparison), folder / "results.png")
    atomic_write(folder / "report.md", render_markdown("quickstart.md.j2", **facts(quickstart)))


def facts(quickstart: Quickstart) -> dict:
    """What the report's text needs to know."""
    config, data = quickstart.config, quickstart.data
    sets = {split: list_split(data, split) for split in ("train", "val", SPLIT)}
    train = sets["train"]
    # Spread over the classes, and the same in every report.
    examples = train.ids[:: len(train) // EXAMPLES][:EXAMPLES]
    return {
        "folder": quickstart.folder,
        "data": data,
        "comparison": quickstart.comparison,
        "conclusions": conclusions(quickstart.comparison),
        "how_to_read": HOW_TO_READ,
        "config": config,
        "images": {split: len(images) for split, images in sets.items()},
        "classes": len(train.classes),
        "examples": {id: quickstart.texts[id] for id in examples if id in quickstart.texts},
        "encoder": read_metadata(config["data"]["embeddings"]),
        "model": quickstart.model,
        "megabytes": quickstart.model.stat().st_size / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mindspore_gpt4image.report.quickstart", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the quickstart: <arm>/seed<S>/ and export/")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="root of its data set")
    arguments = parser.parse_args()
    quickstart = read_quickstart(arguments.folder, arguments.data)
    write_report(quickstart)
    for line in conclusions(quickstart.comparison):
        print(line)
    print(f"report: {arguments.folder / 'report.md'}")


if __name__ == "__main__":
    run_command(main)
