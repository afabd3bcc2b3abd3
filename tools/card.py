"""Make a card of descriptions and their embeddings: card.html to look at, card.json to compute with.

Several files, or short and long texts of one file, stand side by side. Needs neither MindSpore nor PyTorch.
"""

import argparse
from pathlib import Path

from mindspore_gpt4image.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--descriptions", type=Path, nargs="+", required=True, metavar="FILE", help="description sets (JSON Lines)"
    )
    parser.add_argument(
        "--embeddings",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE",
        help="stores that were made from them; each finds its set by itself",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="card.html and card.json go here")
    parser.add_argument("--text", choices=("short", "long"), help="one kind of text alone")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="root of the images (default: folder of the first description set)"
    )
    parser.add_argument(
        "--class-names",
        type=Path,
        metavar="FILE",
        help="what classes are called, where folders do not say it: lines of folder and name, several with commas "
        "(ImageNet's LOC_synset_mapping.txt)",
    )
    arguments = parser.parse_args()

    from mindspore_gpt4image.report.card import describe_sets, overview, remarks
    from mindspore_gpt4image.report.card_page import write_card
    from mindspore_gpt4image.report.pages import markdown_table

    sets, images = describe_sets(
        arguments.descriptions, arguments.embeddings, arguments.text, arguments.data, arguments.class_names
    )
    print(markdown_table(overview(sets)))
    for each in sets:
        for sentence in remarks(each):
            print(f"{each.label}: {sentence}")
    write_card(arguments.output, sets, images)
    print(f"card: {arguments.output / 'card.html'}, {arguments.output / 'card.json'}")


if __name__ == "__main__":
    run_command(main)
