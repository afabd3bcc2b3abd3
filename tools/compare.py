"""Compare runs: mean and deviation over seeds, paired differences, whether the arms differ; or run a grid of them."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from mindspore_gpt4image.errors import Stopped, UserError, run_command


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__
        + " Runs that differ by seed only are put together. Needs the runs' folders and no MindSpore. A grid file "
        "(configs/ablation/) is trained and evaluated first, as far as it is not yet; stopped, it goes on when it is "
        "started again. Two files of tools/eval.py --json are compared as two checkpoints, by McNemar's test."
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN|GRID.yaml|EVAL.json",
        type=Path,
        help="folders of finished, evaluated runs; or one grid; or two evaluations",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="compare.md and compare.html go here (a grid's: its own output)"
    )
    parser.add_argument("--split", help="split to compare on; reads RUN/eval-<split>.json (default: test)")
    arguments = parser.parse_args()
    if arguments.runs[0].suffix in (".yaml", ".yml"):
        if len(arguments.runs) > 1 or arguments.split:
            parser.error("a grid is compared alone, on the split that it names")
        compare_grid(arguments.runs[0], arguments.output)
    elif not arguments.output:
        parser.error("--output is needed")
    elif all(path.suffix == ".json" for path in arguments.runs):
        if len(arguments.runs) != 2 or arguments.split:
            parser.error("two evaluations are compared, on the split that they are of")
        compare_two(*arguments.runs, arguments.output)
    else:
        compare_runs(arguments.runs, arguments.split or "test", arguments.output)


def compare_runs(folders: list[Path], split: str, output: Path) -> None:
    from mindspore_gpt4image.files import atomic_write
    from mindspore_gpt4image.report.comparison import HOW_TO_READ, compare
    from mindspore_gpt4image.report.pages import render_html, render_markdown
    from mindspore_gpt4image.runs import group_runs, read_run

    comparison = compare(group_runs([read_run(folder, split) for folder in folders]), split)
    text = render_markdown("comparison.md.j2", comparison=comparison, how_to_read=HOW_TO_READ)
    page = render_html("comparison.html.j2", comparison, how_to_read=HOW_TO_READ)
    atomic_write(output / "compare.md", text)
    atomic_write(output / "compare.html", page)
    print(text)


def compare_two(first: Path, second: Path, output: Path) -> None:
    from mindspore_gpt4image.report.two_checkpoints import read_two, write_two

    print(write_two(read_two(first, second), output))


def compare_grid(path: Path, output: Path | None) -> None:
    from mindspore_gpt4image.grid import read_grid, run_grid
    from mindspore_gpt4image.report.grid import read_result, write_grid_report

    grid = read_grid(path)
    output = output or grid.output
    try:
        failures = run_grid(grid)
    except Stopped:
        with suppress(UserError):  # nothing to show yet
            write_grid_report(read_result(grid, []), output)
        raise
    print(write_grid_report(read_result(grid, failures), output))
    if failures:
        raise UserError(f"{path}: {len(failures)} of {len(grid.runs)} runs failed; started again, it tries them again")


if __name__ == "__main__":
    run_command(main)
