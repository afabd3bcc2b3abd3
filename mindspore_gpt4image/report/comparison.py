"""Groups of runs side by side: what each reached on a split, and whether they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Optional

import numpy as np

from mindspore_gpt4image.config import differences
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.runs import PLACES, Group, option, shown
from mindspore_gpt4image.statistics import (
    PairedDifference,
    bootstrap_over_images,
    mcnemar,
    mean_and_deviation,
    paired_difference,
)

WORST_CLASSES = 12
MOST_CHANGED = 8
RECALLS = ("r1", "r5", "r10")
# What runs of one experiment may differ in.
NOT_COMPARED = PLACES | {"seed"}
# In a pair the later one is the one that hopes to be better.
CLAIMS = ("baseline", "control", "aligned")
HOW_TO_READ = (
    "The interval over seeds is a paired t interval: other seeds, same images. That over images is a bootstrap: other "
    "images, same runs. The last column is the true difference that so many seeds show with a probability of "
    "80%. Each interval is for its pair alone; the verdicts go by the interval over seeds. McNemar's exact test is "
    "about two checkpoints and no recipe: p is how often images alone would split them so unevenly."
)


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row, the others hold numbers or, if `prose`, words."""

    title: str
    headers: list[str]
    rows: list[list[str]]
    prose: bool = False


@dataclass(frozen=True, eq=False)
class Pair:
    """Two groups; all numbers are top-1 of the second minus the first, in points.

    Attributes:
        difference: over the seeds that both have; None if they share none.
        images: bootstrap interval over images, of the same seeds.
    """

    first: Group
    second: Group
    difference: Optional[PairedDifference]
    images: Optional[tuple[float, float]]

    @property
    def outcome(self) -> str:
        return self.difference.outcome if self.difference else "undecided"

    @property
    def sentence(self) -> str:
        if self.difference is None:
            return f"No verdict: {self.second.label} and {self.first.label} have no seed in common."
        return self.difference.sentence(self.first.label, self.second.label)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Groups that were evaluated on the same images of one split."""

    split: str
    groups: list[Group]
    pairs: list[Pair]

    @property
    def images(self) -> int:
        return self.groups[0].runs[0].evaluation["images"]

    @property
    def k(self) -> int:
        """What top-5 looks at: with fewer than five classes, all of them."""
        return self.groups[0].runs[0].evaluation["k"]

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for group in self.groups for seed in group.seeds})

    def pair(self, first: str, second: str) -> Pair:
        """The pair of two arms, of which there must be one group each."""
        return next(pair for pair in self.pairs if (pair.first.arm, pair.second.arm) == (first, second))

    def accuracy_table(self, k: int) -> Table:
        """Top-1 or top-5 in percent: a row a group, a column a seed, then mean and deviation."""
        rows = []
        for group in self.groups:
            values = {run.seed: run.evaluation[f"top{k}"] for run in group.runs}
            cells = [f"{values[seed]:.2f}" if seed in values else "–" for seed in self.seeds]
            rows.append([group.label, *cells, spread(list(values.values()))])
        title = f"Top-{min(k, self.k)} on {self.split}, in percent"
        return Table(title, ["arm", *(f"seed {seed}" for seed in self.seeds), "mean ± deviation"], rows)

    def difference_table(self) -> Table:
        """Paired differences in top-1: a row a pair."""
        rows = []
        for pair in self.pairs:
            name = f"{pair.second.label} − {pair.first.label}"
            if pair.difference is None:
                rows.append([name, "0", "–", "–", "–", "–"])
                continue
            found = pair.difference
            detectable = "–" if found.detectable is None else f"{found.detectable:.2f}"
            rows.append(
                [name, str(found.seeds), f"{found.mean:+.2f}", span(found.interval), span(pair.images), detectable]
            )
        headers = ["pair", "common seeds", "difference", "95% over seeds", "95% over images", "would have been seen"]
        return Table(f"Differences in top-1 on {self.split}, in points", headers, rows)

    def retrieval_table(self) -> Table | None:
        """Does an image find the text that describes it, and a text its image? None where no group was asked."""
        rows = []
        for group in self.groups:
            found = [run.evaluation["retrieval"] for run in group.runs if "retrieval" in run.evaluation]
            if found:
                cells = [spread([values[key] for values in found]) for key in RECALLS]
                back = [spread([values["text_to_image"][key] for values in found]) for key in RECALLS]
                rows.append([group.label, *cells, *back])
                last = found[-1]
        if not rows:
            return None
        chances = [values[f"chance_{key}"] for values in (last, last["text_to_image"]) for key in RECALLS]
        rows.append(["chance", *(f"{chance:.2f}" for chance in chances)])
        title = (
            f"Finding the right text for a {self.split} image among {last['texts']:,} texts, and the image for a text "
            f"among {last['images']:,}, in percent"
        )
        headers = [f"{way}, R@{key[1:]}" for way in ("image to text", "text to image") for key in RECALLS]
        return Table(title, ["arm", *headers], rows)

    def summary_table(self) -> Table:
        """Top-1 and, beside it, what an aligned network can do and the baseline cannot: find the right text."""
        retrieval = self.retrieval_table()
        found = {row[0]: row[1:4] for row in retrieval.rows} if retrieval else {}
        headers = [header.partition(", ")[2] for header in retrieval.headers[1:4]] if retrieval else []
        rows = []
        for group in self.groups:
            top1, top5 = (spread([run.evaluation[key] for run in group.runs]) for key in ("top1", "top5"))
            rows.append([group.label, str(len(group.runs)), top1, top5, *found.get(group.label, ["–"] * len(headers))])
        title = f"On {self.split}, in percent, mean ± deviation over seeds; R@k: the right text is among the best k"
        return Table(title, ["arm", "seeds", "top-1", f"top-{self.k}", *headers], rows)

    def mcnemar_table(self) -> Table:
        """One run against one of the same seed: a row a pair and seed."""
        rows = []
        for pair in self.pairs:
            runs = [{run.seed: run for run in group.runs} for group in (pair.first, pair.second)]
            for seed in sorted(runs[0].keys() & runs[1].keys()):
                found = mcnemar(*(correct(by_seed[seed].evaluation) for by_seed in runs))
                name = f"{pair.second.label} − {pair.first.label}"
                p = "< 0.001" if found.p < 0.001 else f"{found.p:.3f}"
                rows.append([name, str(seed), str(found.only_second), str(found.only_first), p])
        headers = ["pair", "seed", "first alone right", "second alone right", "p"]
        return Table(f"McNemar's test on the images of {self.split}, run against run", headers, rows)

    def class_difference_table(self) -> Table | None:
        """The classes that the first pair gains and loses most in, averaged over seeds; None without a pair."""
        if not self.pairs:
            return None
        first, second = self.pairs[0].first, self.pairs[0].second
        accuracies = class_accuracy(first), class_accuracy(second)
        return class_differences(*accuracies, (first.label, second.label), self.split)

    def options_table(self) -> Table | None:
        """The options in which the groups' configs differ; None where there is one group."""
        configs = [group.runs[0].config for group in self.groups]
        keys = dict.fromkeys(
            key for config in configs[1:] for key in differences(configs[0], config) if key not in NOT_COMPARED
        )
        if not keys:
            return None
        rows = [[key, *(shown(option(config, key)) for config in configs)] for key in keys]
        return Table(
            "What the configs differ in", ["option", *(group.label for group in self.groups)], rows, prose=True
        )

    def cost_table(self) -> Table:
        """Means over the seeds of what a run took, and what is deployed."""
        rows = []
        for group in self.groups:
            summaries = [run.summary for run in group.runs]
            seconds, speed = (
                np.mean([summary[key] for summary in summaries]) for key in ("seconds", "images_per_second")
            )
            parameters = f"{summaries[0]['deployed_parameters']:,}"
            rows.append([group.label, str(summaries[0]["epochs"]), f"{seconds:.0f}", f"{speed:.0f}", parameters])
        headers = ["arm", "epochs", "seconds a run", "training images/s", "deployed parameters"]
        return Table("Cost of a run", headers, rows)

    def worst_classes_table(self) -> Table:
        """The classes with the lowest top-1, averaged over groups and seeds, and what they are taken for."""
        names = [row["class"] for row in self.groups[0].runs[0].evaluation["classes"] if row["images"]]
        accuracy = np.array([[class_accuracy(group)[name] for name in names] for group in self.groups])
        rows = []
        for position in np.argsort(accuracy.mean(axis=0), kind="stable")[:WORST_CLASSES]:
            name = names[position]
            count, wrong = self._mistakes(name)
            mistaken = ", ".join(f"{other} ({100 * n / count:.0f}%)" for other, n in wrong.most_common(2))
            images = count // sum(len(group.runs) for group in self.groups)
            rows.append([name, str(images), *(f"{value:.1f}" for value in accuracy[:, position]), mistaken])
        headers = ["class", "images", *(group.label for group in self.groups), "most often taken for"]
        return Table(f"Classes with the lowest top-1 on {self.split}, in percent", headers, rows)

    def _mistakes(self, name: str) -> tuple[int, Counter]:
        """How often images of a class were classified, over all runs, and the wrong answers."""
        answers = Counter(
            image["predicted"][0]
            for group in self.groups
            for run in group.runs
            for image in run.evaluation["predictions"]
            if image["class"] == name
        )
        total = sum(answers.values())
        del answers[name]
        return total, answers


def compare(groups: Sequence[Group], split: str) -> Comparison:
    """Compare every pair of groups on a split that all their runs were evaluated on.

    Raises:
        UserError: two runs were evaluated on different images.
    """
    runs = [run for group in groups for run in group.runs]
    for run in runs[1:]:
        place = run.folder / f"eval-{split}.json"
        check_same_images(runs[0].evaluation, runs[0].folder, run.evaluation, place)
    pairs = list(combinations(sorted(groups, key=_claim), 2))
    pairs.sort(key=lambda pair: -_claim(pair[1]))
    return Comparison(split, list(groups), [_pair(first, second) for first, second in pairs])


def class_accuracy(group: Group) -> dict[str, float]:
    """Top-1 of each class that has images, in percent, averaged over the seeds."""
    tables = [run.evaluation["classes"] for run in group.runs]
    return {
        rows[0]["class"]: float(np.mean([row["top1"] for row in rows])) for rows in zip(*tables) if rows[0]["images"]
    }


def class_differences(
    before: Mapping[str, float], after: Mapping[str, float], names: tuple[str, str], split: str
) -> Table:
    """The classes that gain most and those that lose most; `before` and `after` are top-1 in percent by class."""
    order = sorted(before, key=lambda name: before[name] - after[name])
    chosen = order if len(order) <= 2 * MOST_CHANGED else order[:MOST_CHANGED] + order[-MOST_CHANGED:]
    rows = [
        [name, f"{before[name]:.1f}", f"{after[name]:.1f}", f"{after[name] - before[name]:+.1f}"] for name in chosen
    ]
    return Table(f"Classes that differ most, top-1 on {split} in percent", ["class", *names, "difference"], rows)


def correct(evaluation: Mapping[str, Any]) -> np.ndarray:
    """Whether each image was classified rightly, in the order of the ids; bool [images]."""
    images = sorted(evaluation["predictions"], key=lambda image: image["id"])
    return np.array([image["predicted"][0] == image["class"] for image in images])


def spread(values: Sequence[float]) -> str:
    """Mean ± deviation, or the one value there is."""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"


def span(interval: tuple[float, float] | None) -> str:
    """An interval with signs, or a dash for none."""
    return "–" if interval is None else f"[{interval[0]:+.2f}, {interval[1]:+.2f}]"


def _claim(group: Group) -> int:
    return CLAIMS.index(group.arm)


def _pair(first: Group, second: Group) -> Pair:
    top1 = [{run.seed: run.evaluation["top1"] for run in group.runs} for group in (first, second)]
    difference = paired_difference(*top1)
    if difference is None:
        return Pair(first, second, None, None)
    common = set(first.seeds) & set(second.seeds)
    right = [
        np.stack([correct(run.evaluation) for run in group.runs if run.seed in common]) for group in (first, second)
    ]
    return Pair(first, second, difference, bootstrap_over_images(*right))


def check_same_images(one: Mapping[str, Any], place: object, other: Mapping[str, Any], other_place: object) -> None:
    """Refuse evaluations of different images; the places name them in the error."""
    images = [{(image["id"], image["class"]) for image in evaluation["predictions"]} for evaluation in (one, other)]
    if odd := images[0] ^ images[1]:
        raise UserError(
            f"{other_place}: is about other images than that of {place} "
            f"({len(odd)} differ, one is {min(odd)[0]}); evaluate both on the same data"
        )
