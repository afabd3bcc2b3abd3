"""What a grid of experiments found: one table, a heat map and the runs that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import atomic_write, replacing
from mindspore_gpt4image.grid import Failure, Grid, finished
from mindspore_gpt4image.report.comparison import Table, span, spread
from mindspore_gpt4image.report.figures import HeatMap, heat_map, png
from mindspore_gpt4image.report.pages import render_markdown, render_page
from mindspore_gpt4image.report.pictures import data_uri
from mindspore_gpt4image.runs import Run, shown
from mindspore_gpt4image.statistics import PairedDifference, paired_difference

HEAT_MAP = "grid.png"


@dataclass(frozen=True, eq=False)
class GridResult:
    """The finished runs of a grid, by arm and then by seed, and the failures of the last try."""

    grid: Grid
    runs: Mapping[str, Mapping[int, Run]]
    failures: Sequence[Failure]

    @property
    def splits(self) -> list[str]:
        """Those that top-1 is known of: val, on which one may choose, and the split of the comparison."""
        return list(dict.fromkeys(["val", self.grid.split]))

    @property
    def unfinished(self) -> int:
        """How many runs neither failed nor are done."""
        return len(self.grid.runs) - sum(map(len, self.runs.values())) - len(self.failures)

    def top1(self, arm: str, split: str) -> dict[int, float]:
        """Top-1 in percent by seed."""
        if split == self.grid.split:
            return {seed: run.evaluation["top1"] for seed, run in self.runs[arm].items()}
        return {seed: run.summary["top1"] for seed, run in self.runs[arm].items()}

    def difference(self, arm: str, split: str) -> PairedDifference | None:
        """The arm minus the reference; None for the reference itself, and where no seed is common."""
        reference = self.grid.reference
        return None if arm == reference else paired_difference(self.top1(reference, split), self.top1(arm, split))

    def table(self) -> Table:
        """A row an arm: seeds, top-1, differences from the reference with their 95% intervals, retrieval."""
        retrieval = self.chance() is not None
        headers = ["arm", "seeds"]
        for split in self.splits:
            headers += [f"{split} top-1", f"{split} − {self.grid.reference}"]
        headers += ["would have been seen", *(["R@1", "R@10"] if retrieval else [])]
        rows = []
        for arm in self.grid.arms:
            runs = self.runs[arm.name]
            row = [arm.name, str(len(runs))]
            for split in self.splits:
                found = self.difference(arm.name, split)
                row.append(spread(list(self.top1(arm.name, split).values())) if runs else "–")
                row.append(_with_interval(found) if found else "–")
            row.append(f"{found.detectable:.2f}" if found and found.detectable is not None else "–")
            if retrieval:
                asked = [run.evaluation["retrieval"] for run in runs.values() if "retrieval" in run.evaluation]
                row += [spread([values[key] for values in asked]) if asked else "–" for key in ("r1", "r10")]
            rows.append(row)
        return Table("Top-1 in percent, mean ± deviation over seeds; differences in points", headers, rows)

    def chance(self) -> Mapping[str, float] | None:
        """A retrieval with its chance, of any run; None where no run has one."""
        all_runs = (run for runs in self.runs.values() for run in runs.values())
        return next((run.evaluation["retrieval"] for run in all_runs if "retrieval" in run.evaluation), None)

    def sentences(self) -> list[str]:
        """The outcome of each arm against the reference, on the split of the comparison; one for all without any."""
        reference, split = self.grid.reference, self.grid.split
        found = {arm.name: self.difference(arm.name, split) for arm in self.grid.arms}
        told = [
            found[name].sentence(reference, name) for name in found if found[name] and found[name].outcome != "none"
        ]
        same = [name for name in found if found[name] and found[name].outcome == "none"]
        return told + ([f"No difference from {reference} measurable: {'; '.join(same)}."] if same else [])

    def options_table(self) -> Table:
        """What each named arm changes in the grid's config."""
        rows = [
            [arm.name, ", ".join(f"{key}={shown(value)}" for key, value in arm.options.items()) or "nothing"]
            for arm in self.grid.arms
            if not arm.in_product
        ]
        return Table("What the arms change in the config", ["arm", "options"], rows, prose=True)

    def failure_table(self) -> Table:
        rows = [[failure.run.name, failure.reason, str(failure.log)] for failure in self.failures]
        return Table("Runs that failed", ["run", "reason", "log"], rows, prose=True)

    def heat_maps(self) -> list[HeatMap]:
        """Of a product of two or more axes: the first two against each other; else the arms against the seeds.

        Colours are differences from the reference, of the means or, against the seeds, seed by seed.
        """
        split = self.grid.split
        axes = {key: values for key, values in self.grid.axes.items() if len(values) > 1}
        if len(axes) < 2:
            names = [arm.name for arm in self.grid.arms]
            columns = [f"seed {seed}" for seed in self.grid.seeds] + ["mean"]
            top1 = {name: self.top1(name, split) for name in names}
            values = [[*(top1[name].get(seed) for seed in self.grid.seeds), self._mean(name)] for name in names]
            base = values[names.index(self.grid.reference)]
            return [HeatMap("", "", names, "", columns, values, [base] * len(names))]
        base = self._mean(self.grid.reference)
        (row_key, rows), (column_key, columns), *_ = axes.items()
        maps: dict[str, HeatMap] = {}
        for arm in (arm for arm in self.grid.arms if arm.in_product):
            options = arm.options
            rest = ", ".join(f"{key}={shown(options[key])}" for key in list(axes)[2:])
            if rest not in maps:
                empty = [[None] * len(columns) for _ in rows]
                names = [[shown(value) for value in values] for values in (rows, columns)]
                references = [[base] * len(columns) for _ in rows]
                maps[rest] = HeatMap(rest, row_key, names[0], column_key, names[1], empty, references)
            place = rows.index(options[row_key]), columns.index(options[column_key])
            maps[rest].values[place[0]][place[1]] = self._mean(arm.name)
        return list(maps.values())

    def _mean(self, arm: str) -> float | None:
        values = list(self.top1(arm, self.grid.split).values())
        return sum(values) / len(values) if values else None


def _with_interval(found: PairedDifference) -> str:
    """The mean and, with more than one seed, its interval."""
    return f"{found.mean:+.2f} {span(found.interval)}" if found.interval else f"{found.mean:+.2f}"


def read_result(grid: Grid, failures: Sequence[Failure]) -> GridResult:
    """Collect the runs of a grid that are finished.

    Raises:
        UserError: none is.
    """
    runs: dict[str, dict[int, Run]] = {arm.name: {} for arm in grid.arms}
    for planned in grid.runs:
        run = finished(planned, grid.split)
        if run:
            runs[planned.arm][planned.seed] = run
    if not any(runs.values()):
        reason = f"; {failures[0].run.name}: {failures[0].reason}" if failures else ""
        raise UserError(f"{grid.path}: none of its {len(grid.runs)} runs is finished{reason}")
    return GridResult(grid, runs, failures)


def write_grid_report(result: GridResult, folder: Path) -> str:
    """Write compare.md, compare.html and grid.png into `folder`; returns the Markdown."""
    picture = png(heat_map(result.heat_maps(), result.grid.split, result.grid.reference))
    with replacing(folder / HEAT_MAP) as temporary:
        temporary.write_bytes(picture)
    text = render_markdown("grid.md.j2", result=result, heat_map=HEAT_MAP)
    atomic_write(folder / "compare.md", text)
    atomic_write(folder / "compare.html", render_page("grid.html.j2", result=result, heat_map=data_uri(picture, "png")))
    return text
