"""Compare runs: mean and deviation over seeds, paired differences, and whether the arms differ."""

import argparse
from pathlib import Path

from mindspore_gpt4image.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__
        + " Runs that differ by seed only are put together. Needs the runs' folders and no MindSpore."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="folder of a finished and evaluated run")
    parser.add_argument("--output", required=True, metavar="DIR", type=Path, help="compare.md and compare.html go here")
    parser.add_argument(
        "--split", default="test", help="split to compare on; reads RUN/eval-<split>.json (default: test)"
    )
    arguments = parser.parse_args()

    from mindspore_gpt4image.files import atomic_write
    from mindspore_gpt4image.report.comparison import HOW_TO_READ, compare
    from mindspore_gpt4image.report.pages import render_html, render_markdown
    from mindspore_gpt4image.runs import group_runs, read_run

    comparison = compare(group_runs([read_run(run, arguments.split) for run in arguments.runs]), arguments.split)
    text = render_markdown("comparison.md.j2", comparison=comparison, how_to_read=HOW_TO_READ)
    page = render_html("comparison.html.j2", comparison, how_to_read=HOW_TO_READ)
    atomic_write(arguments.output / "compare.md", text)
    atomic_write(arguments.output / "compare.html", page)
    print(text)


if __name__ == "__main__":
    run_command(main)
