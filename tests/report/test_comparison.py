import json

import pytest
from run_folders import IDS, make_run

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.report.comparison import compare
from mindspore_gpt4image.runs import group_runs, read_run


def comparison(tmp_path, **right):
    """Arms by name, each with how many of the twelve images its seeds 0, 1, … get right."""
    runs = [
        make_run(tmp_path / f"{arm}{seed}", arm, seed, count)
        for arm, counts in right.items()
        for seed, count in enumerate(counts)
    ]
    return compare(group_runs(read_run(run, "test") for run in runs), "test")


def test_tables_by_hand(tmp_path):
    """3, 6 and 6, 9 of 12 images are 25, 50 and 50, 75 percent: deviation 25 / sqrt(2) = 17.68."""
    found = comparison(tmp_path, baseline=(3, 6), aligned=(6, 9))
    assert found.accuracy_table(1).headers == ["arm", "seed 0", "seed 1", "mean ± deviation"]
    assert found.accuracy_table(1).rows == [
        ["baseline", "25.00", "50.00", "37.50 ± 17.68"],
        ["aligned", "50.00", "75.00", "62.50 ± 17.68"],
    ]
    assert (found.accuracy_table(1).title, found.accuracy_table(5).title) == (
        "Top-1 on test, in percent",
        "Top-3 on test, in percent",
    )
    assert found.accuracy_table(5).rows[0] == ["baseline", "100.00", "100.00", "100.00 ± 0.00"]
    assert found.retrieval_table().rows == [
        ["aligned", *(f"{value:.2f} ± 0.00" for value in (4, 20, 40, 8, 30, 50))],
        ["chance", "2.00", "10.00", "20.00", "8.00", "40.00", "80.00"],
    ]
    assert found.summary_table().headers == ["arm", "seeds", "top-1", "top-3", "R@1", "R@5", "R@10"]
    assert found.summary_table().rows == [
        ["baseline", "2", "37.50 ± 17.68", "100.00 ± 0.00", "–", "–", "–"],
        ["aligned", "2", "62.50 ± 17.68", "100.00 ± 0.00", "4.00 ± 0.00", "20.00 ± 0.00", "40.00 ± 0.00"],
    ]
    assert found.cost_table().rows[0] == ["baseline", "2", "60", "100", "1,234,567"]


def test_pairs_are_claims(tmp_path):
    found = comparison(tmp_path, control=(3, 6), baseline=(3, 4), aligned=(6, 10))
    assert [row[0] for row in found.difference_table().rows] == [
        "aligned − baseline",
        "aligned − control",
        "control − baseline",
    ]
    assert found.pair("baseline", "aligned").difference.mean == pytest.approx(100 * 4.5 / 12)
    assert [row[0] for row in found.accuracy_table(1).rows] == ["baseline", "aligned", "control"]


def test_images_are_resampled_in_pairs(tmp_path):
    """Aligned gets 3 images more of 12, in both seeds: the share of those 3 in a draw of 12 is binomial(12, 1/4) / 12.

    Its quantiles 2.5% and 97.5% are 0 and 6 of 12.
    """
    pair = comparison(tmp_path, baseline=(6, 6), aligned=(9, 9)).pair("baseline", "aligned")
    assert pair.images == pytest.approx((0, 50))


def test_only_common_seeds_are_paired(tmp_path):
    found = comparison(tmp_path, baseline=(3, 6, 6), aligned=(6,))
    assert (found.pairs[0].difference.seeds, found.pairs[0].difference.mean) == (1, 25.0)
    assert found.accuracy_table(1).rows[1] == ["aligned", "50.00", "–", "–", "50.00"]


def test_no_common_seed_is_no_verdict(tmp_path):
    runs = [make_run(tmp_path / "b", "baseline", 0, 6), make_run(tmp_path / "a", "aligned", 1, 9)]
    found = compare(group_runs(read_run(run, "test") for run in runs), "test")
    assert found.pairs[0].sentence == "No verdict: aligned and baseline have no seed in common."
    assert found.difference_table().rows == [["aligned − baseline", "0", "–", "–", "–", "–"]]


def test_worst_classes_and_what_they_are_taken_for(tmp_path):
    """The first 6 of 4 blue, 4 green, 4 red are right: green is half right, red never, and red is taken for blue."""
    rows = comparison(tmp_path, baseline=(6,), aligned=(6,)).worst_classes_table().rows
    assert rows == [
        ["red", "4", "0.0", "0.0", "blue (100%)"],
        ["green", "4", "50.0", "50.0", "red (50%)"],
        ["blue", "4", "100.0", "100.0", ""],
    ]


def test_runs_on_other_images_are_refused(tmp_path):
    runs = [
        make_run(tmp_path / "b", "baseline", 0, 6),
        make_run(tmp_path / "a", "aligned", 0, 6, ids=[*IDS[1:], "test/red/99.png"]),
    ]
    with pytest.raises(UserError) as caught:
        compare(group_runs(read_run(run, "test") for run in runs), "test")
    assert str(caught.value) == (
        f"{runs[1]}/eval-test.json: is about other images than that of {runs[0]} "
        "(2 differ, one is test/blue/00.png); evaluate both on the same data"
    )


def test_the_order_of_the_images_does_not_matter(tmp_path):
    runs = [make_run(tmp_path / arm, arm, 0, 6) for arm in ("baseline", "aligned")]
    path = runs[1] / "eval-test.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "predictions": values["predictions"][::-1]}))
    pair = compare(group_runs(read_run(run, "test") for run in runs), "test").pairs[0]
    assert pair.images == (0.0, 0.0)


def test_two_checkpoints_by_mcnemar(tmp_path):
    """Of 12 images the first 3 and the first 9 are right: 6 by the second alone, p = 2 / 2^6."""
    found = comparison(tmp_path, baseline=(3,), aligned=(9,))
    assert found.mcnemar_table().rows == [["aligned − baseline", "0", "6", "0", "0.031"]]


def test_classes_that_gain_and_lose(tmp_path):
    """The first 6 of 4 blue, 4 green, 4 red against the first 9: half of green and a quarter of red are gained."""
    rows = comparison(tmp_path, baseline=(6,), aligned=(9,)).class_difference_table().rows
    assert rows == [
        ["green", "50.0", "100.0", "+50.0"],
        ["red", "0.0", "25.0", "+25.0"],
        ["blue", "100.0", "100.0", "+0.0"],
    ]


def test_what_the_configs_differ_in(tmp_path):
    found = comparison(tmp_path, baseline=(6,), aligned=(9,), control=(6,))
    assert found.options_table().rows == [
        ["loss.alignment", "none", "infonce", "infonce"],
        ["data.shuffle_texts", "false", "false", "true"],
    ]
    assert comparison(tmp_path / "one", baseline=(6,)).options_table() is None
