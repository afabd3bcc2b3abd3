"""Two checkpoints on the same images, whatever made them: which is better, and at which classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import atomic_write
from mindspore_gpt4image.report.comparison import Table, check_same_images, class_differences, correct, span
from mindspore_gpt4image.report.pages import render_markdown, render_page
from mindspore_gpt4image.runs import read_evaluation
from mindspore_gpt4image.statistics import CONFIDENCE, bootstrap_over_images, mcnemar


@dataclass(frozen=True, eq=False)
class TwoCheckpoints:
    """What to call them, and their evaluations as `tools/eval.py --json` wrote them."""

    names: tuple[str, str]
    evaluations: tuple[Mapping[str, Any], Mapping[str, Any]]

    @property
    def split(self) -> str:
        return self.evaluations[0]["split"]

    def table(self) -> Table:
        """Top-1, top-5 and, where it was asked for, retrieval."""
        retrieval = [evaluation.get("retrieval", {}) for evaluation in self.evaluations]
        keys = ["r1", "r10"] if any(retrieval) else []
        rows = [
            [
                name,
                *(f"{evaluation[key]:.2f}" for key in ("top1", "top5")),
                *(f"{found[key]:.2f}" if found else "–" for key in keys),
            ]
            for name, evaluation, found in zip(self.names, self.evaluations, retrieval)
        ]
        k = self.evaluations[0]["k"]
        headers = ["checkpoint", "top-1", f"top-{k}", *(["R@1", "R@10"] if keys else [])]
        return Table(
            f"On {len(self.evaluations[0]['predictions']):,} images of {self.split}, in percent", headers, rows
        )

    def sentence(self) -> str:
        """McNemar's verdict, with a bootstrap interval over the images."""
        right = [correct(evaluation) for evaluation in self.evaluations]
        found, interval = mcnemar(*right), bootstrap_over_images(right[0][None], right[1][None])
        difference = self.evaluations[1]["top1"] - self.evaluations[0]["top1"]
        verdict = "No difference measurable"
        if found.p < 1 - CONFIDENCE:
            verdict = "Better" if difference > 0 else "Worse"
        return (
            f"{verdict}: {self.names[1]} minus {self.names[0]} is {difference:+.2f} points in top-1 (95% over images: "
            f"{span(interval)}); {found.only_second} images are right by {self.names[1]} alone, {found.only_first} by "
            f"{self.names[0]} alone, McNemar's exact p = {found.p:.2g}. This is about these two files: what a recipe "
            "is worth takes several seeds."
        )

    def class_table(self) -> Table:
        """The classes that the second gains and loses most in."""
        before, after = (
            {row["class"]: row["top1"] for row in evaluation["classes"] if row["images"]}
            for evaluation in self.evaluations
        )
        return class_differences(before, after, self.names, self.split)


def read_two(first: Path, second: Path) -> TwoCheckpoints:
    """Read two evaluations.

    They are called by their checkpoints where these names differ, or else by the evaluations'.

    Raises:
        UserError: a file is none, or they are about different images, or they are one file.
    """
    if first == second:
        raise UserError(f"{first}: cannot be compared with itself")
    evaluations = read_evaluation(first), read_evaluation(second)
    check_same_images(evaluations[0], first, evaluations[1], second)
    candidates = (
        tuple(Path(evaluation["checkpoint"]).stem for evaluation in evaluations),
        (first.stem, second.stem),
        (str(first), str(second)),
    )
    return TwoCheckpoints(next(names for names in candidates if names[0] != names[1]), evaluations)


def write_two(two: TwoCheckpoints, folder: Path) -> str:
    """Write compare.md and compare.html into `folder`; returns the Markdown."""
    text = render_markdown("two_checkpoints.md.j2", two=two)
    atomic_write(folder / "compare.md", text)
    atomic_write(folder / "compare.html", render_page("two_checkpoints.html.j2", two=two))
    return text
