import io

import numpy as np
import pytest
from PIL import Image
from run_folders import make_run

from mindspore_gpt4image.report.comparison import compare
from mindspore_gpt4image.report.figures import colours, curves, png, results
from mindspore_gpt4image.runs import group_runs, read_run


@pytest.fixture
def comparison(tmp_path):
    runs = [
        make_run(tmp_path / f"{arm}{seed}", arm, seed, right)
        for arm, right in (("baseline", 6), ("aligned", 9), ("control", 3))
        for seed in range(2)
    ]
    return compare(group_runs(read_run(run, "test") for run in runs), "test")


def test_curves_show_the_metrics_of_each_arm(comparison):
    losses, top1, alignment = curves(comparison).axes
    assert [len(axes.lines) for axes in (losses, top1, alignment)] == [6, 3, 2]
    np.testing.assert_array_equal(losses.lines[0].get_xydata(), [[1, 2.0], [2, 1.0]])
    np.testing.assert_array_equal(alignment.lines[0].get_xydata(), [[1, 1.0], [2, 0.5]])
    np.testing.assert_array_equal(top1.lines[0].get_xydata(), [[1, 0.0], [2, 10.0]])


def test_baselines_alone_have_no_alignment_curve(tmp_path):
    runs = [make_run(tmp_path / str(seed), "baseline", seed, 6) for seed in range(2)]
    alone = compare(group_runs(read_run(run, "test") for run in runs), "test")
    assert len(curves(alone).axes) == 2
    assert len(results(alone).axes) == 1


def test_results_show_every_run_and_every_interval(comparison):
    dots, intervals = results(comparison).axes
    shown = sorted(tuple(point) for group in dots.collections[::2] for point in group.get_offsets())
    assert shown == [(0, 50.0), (0, 50.0), (1, 75.0), (1, 75.0), (2, 25.0), (2, 25.0)]
    assert [label.get_text() for label in intervals.get_yticklabels()] == [
        "aligned\n− baseline",
        "aligned\n− control",
        "control\n− baseline",
    ]


def test_groups_of_one_arm_get_different_colours(tmp_path):
    runs = [make_run(tmp_path / str(weight), "aligned", 0, 6, weight=weight) for weight in (0.1, 0.3, 1.0)]
    found = colours(group_runs(map(read_run, runs)))
    assert len(set(found.values())) == 3


def test_png_is_a_picture_with_something_on_it(comparison):
    image = np.asarray(Image.open(io.BytesIO(png(results(comparison)))).convert("L"))
    assert image.shape[1] == 11 * 160
    assert image.std() > 5
