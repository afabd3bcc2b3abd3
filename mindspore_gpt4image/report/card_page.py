"""Write a card: card.html, one page to show around, and card.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mindspore_gpt4image.files import atomic_write, write_json
from mindspore_gpt4image.report.card import Described, examples, lead, overview, remarks, text_map
from mindspore_gpt4image.report.card_figures import COLOURS, lengths
from mindspore_gpt4image.report.described_images import DescribedImages
from mindspore_gpt4image.report.figures import png
from mindspore_gpt4image.report.pages import render_page
from mindspore_gpt4image.report.pictures import data_uri


def write_card(folder: Path, sets: Sequence[Described], images: DescribedImages) -> None:
    """Write both files into a folder, which is made."""
    # First: a folder that cannot be written to is told before the map is computed.
    write_json(folder / "card.json", {"sets": [each.statistics for each in sets]})
    files = [each.texts.descriptions.resolve() for each in sets]
    names = list(dict.fromkeys(f"{file.parent.name}/{file.name}" for file in files))
    page = render_page(
        "card.html.j2",
        title=f"Descriptions: {' and '.join(names)}",
        lead=lead(sets),
        sets=list(sets),
        colours=COLOURS,
        remarks=[(each.label, sentence) for each in sets for sentence in remarks(each)],
        overview=overview(sets),
        figure=data_uri(png(lengths(sets)), "png"),
        maps={each.label: text_map(each, images) for each in sets if each.store and len(each.texts) > 1},
        examples={each.label: examples(each, images) for each in sets},
    )
    atomic_write(folder / "card.html", page)
