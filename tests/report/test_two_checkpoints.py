import json

import pytest
from run_folders import IDS, evaluation

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.report.two_checkpoints import read_two, write_two


def write(path, right, ids=IDS, arm="baseline"):
    values = {"checkpoint": f"{path.stem}.ckpt", "split": "test", **evaluation(arm, right, ids)}
    path.write_text(json.dumps(values))
    return path


def test_verdict_and_classes_by_hand(tmp_path):
    """3 and 9 of 12 are right: 6 by the second alone, p = 2 / 2^6 = 0.031; all of green and a quarter of red more."""
    two = read_two(write(tmp_path / "a.json", 3), write(tmp_path / "b.json", 9, arm="aligned"))
    assert two.table().rows == [
        ["a", "25.00", "100.00", "–", "–"],
        ["b", "75.00", "100.00", "4.00", "40.00"],
    ]
    assert two.sentence().startswith(
        "Better: b minus a is +50.00 points in top-1 (95% over images: [+25.00, +75.00]); "
    )
    assert "6 images are right by b alone, 0 by a alone, McNemar's exact p = 0.031." in two.sentence()
    assert two.class_table().rows == [
        ["green", "0.0", "100.0", "+100.0"],
        ["blue", "75.0", "100.0", "+25.0"],
        ["red", "0.0", "25.0", "+25.0"],
    ]
    text = write_two(two, tmp_path / "out")
    assert (tmp_path / "out" / "compare.md").read_text() == text
    assert two.sentence().split(";")[0] in (tmp_path / "out" / "compare.html").read_text()


def test_few_disagreements_are_no_difference(tmp_path):
    two = read_two(write(tmp_path / "a.json", 6), write(tmp_path / "b.json", 4))
    assert two.sentence().startswith("No difference measurable: b minus a is -16.67 points")


def test_other_images_and_other_files_are_refused(tmp_path):
    one = write(tmp_path / "a.json", 3)
    with pytest.raises(UserError, match="a.json: cannot be compared with itself"):
        read_two(one, one)
    with pytest.raises(UserError, match=r"b.json: is about other images than that of .*a.json \(2 differ"):
        read_two(one, write(tmp_path / "b.json", 3, ids=[*IDS[1:], "test/red/99.png"]))
    (tmp_path / "c.json").write_text('{"top1": 3}')
    with pytest.raises(UserError, match=r"c.json: was not written by tools/eval.py --json"):
        read_two(one, tmp_path / "c.json")
