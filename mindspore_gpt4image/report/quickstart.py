"""Write the report of a quickstart: report.md with its figures, and report.html, one page to show around."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindspore_gpt4image.data.store import EmbeddingStore
from mindspore_gpt4image.errors import UserError, run_command
from mindspore_gpt4image.files import atomic_write, replacing
from mindspore_gpt4image.report.comparison import HOW_TO_READ, Comparison, compare
from mindspore_gpt4image.report.embedding_map import embedding_map
from mindspore_gpt4image.report.figures import curves, png, results
from mindspore_gpt4image.report.gallery import gallery
from mindspore_gpt4image.report.pages import render_html, render_markdown
from mindspore_gpt4image.runs import ARMS, group_runs, read_run
from mindspore_gpt4image.sources.descriptions import read_descriptions
from mindspore_gpt4image.sources.emoji import ATTRIBUTION, DESCRIPTIONS
from mindspore_gpt4image.sources.formats import list_images

SPLIT = "test"
EXAMPLES = 3

_HELPS = {
    "better": "Alignment helps: aligned is better than the baseline.",
    "worse": "Alignment does not help here: aligned is worse than the baseline.",
    "none": "Alignment does not help here, as far as these seeds tell: no difference to the baseline is measurable.",
    "undecided": "Whether alignment helps cannot be told from these seeds.",
}
_CONTENT = {
    "better": "The content of the texts helps: right texts are better than shuffled ones.",
    "worse": "The content of the texts does not help: right texts are worse than shuffled ones.",
    "none": "Right texts are not measurably better than shuffled ones.",
    "undecided": "Whether the content of the texts helps cannot be told from these seeds.",
}


@dataclass(frozen=True, eq=False)
class Quickstart:
    """What a quickstart left behind.

    Attributes:
        folder: holds `export/` and the report.
        data: root of the data set.
        config: of an aligned run.
        model: the exported file.
    """

    folder: Path
    data: Path
    comparison: Comparison
    config: dict[str, Any]
    model: Path


def read_quickstart(folder: Path, data: Path, runs: Sequence[Path]) -> Quickstart:
    """Collect the runs and the exported model.

    Args:
        folder: holds `export/`; the report is written here.
        data: root of the data set.
        runs: folders of runs: one experiment an arm, any number of seeds.

    Raises:
        UserError: something is missing, unfinished or of another experiment.
    """
    groups = group_runs(read_run(run, SPLIT) for run in runs)
    if tuple(group.arm for group in groups) != ARMS:
        labels = "; ".join(group.label for group in groups)
        raise UserError(f"the report needs runs of one experiment for each of {', '.join(ARMS)}; given: {labels}")
    models = sorted((folder / "export").glob("*.mindir"))
    if not models:
        run, export = groups[1].runs[0].folder, folder / "export"
        raise UserError(
            f"{export}: holds no exported model; make it: "
            f"python tools/export.py --checkpoint {run} --output {export / 'aligned.mindir'}"
        )
    return Quickstart(folder, data, compare(groups, SPLIT), groups[1].runs[0].config, models[0])


def conclusions(comparison: Comparison) -> list[str]:
    """What the three arms say together, in sentences; the first says whether alignment helps."""
    helps, content = comparison.pair("baseline", "aligned"), comparison.pair("control", "aligned")
    sentences = [_HELPS[helps.outcome], _CONTENT[content.outcome]]
    if table := comparison.retrieval_table():
        share = {arm: r10 for arm, _, _, r10, *_ in table.rows}
        sentences.append(
            f"Shown a test picture, the aligned network has its text among its best ten in {share['aligned']}% of "
            f"cases (chance: {share['chance']}%); the baseline cannot look for texts at all."
        )
    return sentences


def write_report(quickstart: Quickstart) -> None:
    """Write report.md, its figures and report.html into the quickstart's folder."""
    folder, data, comparison, config = quickstart.folder, quickstart.data, quickstart.comparison, quickstart.config
    sets = {split: list_images(data, split) for split in ("train", "val", SPLIT)}
    train = sets["train"]
    texts = read_descriptions(data / DESCRIPTIONS, config["data"]["text"])
    store = EmbeddingStore.open(config["data"]["embeddings"])
    facts = {
        "comparison": comparison,
        "conclusions": conclusions(comparison),
        "how_to_read": HOW_TO_READ,
        "folder": folder,
        "data": data,
        "config": config,
        "images": {split: len(images) for split, images in sets.items()},
        "classes": len(train.classes),
        # Spread over the classes, and the same in every report.
        "examples": {id: texts[id] for id in train.ids[:: -(-len(train) // EXAMPLES)]},
        "encoder": store.metadata,
        "model": quickstart.model,
        "megabytes": quickstart.model.stat().st_size / 1e6,
    }
    for name, figure in (("results.png", results(comparison)), ("curves.png", curves(comparison))):
        with replacing(folder / name) as temporary:
            temporary.write_bytes(png(figure))
    atomic_write(folder / "report.md", render_markdown("quickstart.md.j2", **facts))
    page = render_html(
        "quickstart.html.j2",
        **facts,
        map=embedding_map(train, store, texts),
        gallery=gallery(comparison, sets[SPLIT], texts),
        # Its first line is a heading of its own.
        attribution=(data / ATTRIBUTION).read_text(encoding="utf-8").partition("\n")[2],
    )
    atomic_write(folder / "report.html", page)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mindspore_gpt4image.report.quickstart", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the quickstart, with export/; the report goes there")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, metavar="RUN", help="runs of the three arms")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="root of its data set")
    arguments = parser.parse_args()
    quickstart = read_quickstart(arguments.folder, arguments.data, arguments.runs)
    write_report(quickstart)
    for line in conclusions(quickstart.comparison):
        print(line)
    print(f"report: {arguments.folder / 'report.md'}, {arguments.folder / 'report.html'}")


if __name__ == "__main__":
    run_command(main)
