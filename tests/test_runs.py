import json
from pathlib import Path

import pytest
import yaml
from run_folders import make_run

from mindspore_gpt4image.config import parse_config
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.runs import finished_summary, group_runs, read_run


def test_reads_what_a_run_left_behind(tmp_path):
    run = read_run(make_run(tmp_path / "a", "aligned", seed=3, right=6), "test")
    assert (run.seed, run.arm, run.summary["seconds"]) == (3, "aligned", 63.0)
    assert [line["val_top1"] for line in run.metrics] == [0.0, 10.0]
    assert run.evaluation["top1"] == 50.0
    assert read_run(tmp_path / "a").evaluation is None


def _break(folder: Path, fault: str) -> None:
    if fault == "no folder":
        folder.rename(folder.with_name("moved"))
    elif fault == "not finished":
        (folder / "summary.json").unlink()
    elif fault == "more epochs wanted":
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump({**config, "epochs": 5}))
    elif fault == "damaged":
        (folder / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo')
    elif fault == "empty":
        (folder / "summary.json").write_text("{}")
    else:
        (folder / fault).unlink()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no folder", "{run}: there is no such folder; give the folder of a run, its config's output"),
        ("config.yaml", "{run}: is not the folder of a run, config.yaml is missing; give a config's output"),
        (
            "not finished",
            "{run}: the run is not finished (epoch 2 of 2); start its tools/train.py command again, it will go on",
        ),
        (
            "more epochs wanted",
            "{run}: the run is not finished (epoch 2 of 5); start its tools/train.py command again, it will go on",
        ),
        ("empty", "{run}/summary.json: is empty; make it anew"),
        (
            "eval-test.json",
            "{run}/eval-test.json: there is no such file; make it: python tools/eval.py --checkpoint {run} --split "
            "test --embeddings short.mindrecord --json {run}/eval-test.json",
        ),
    ],
)
def test_says_what_is_missing_and_how_to_get_it(tmp_path, fault, message):
    folder = make_run(tmp_path / "a", "aligned", seed=0, right=6)
    _break(folder, fault)
    with pytest.raises(UserError) as caught:
        read_run(folder, "test")
    assert str(caught.value) == message.format(run=folder)


def test_names_a_damaged_file_in_one_line(tmp_path):
    folder = make_run(tmp_path / "a", "baseline", seed=0, right=6)
    _break(folder, "damaged")
    with pytest.raises(UserError, match=r"metrics\.jsonl: is damaged \(.*\); make it anew$") as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


def test_an_evaluation_of_an_earlier_version_is_to_be_made_anew(tmp_path):
    path = make_run(tmp_path / "a", "aligned", 0, 6) / "eval-test.json"
    evaluation = json.loads(path.read_text())
    del evaluation["retrieval"]["text_to_image"]
    path.write_text(json.dumps(evaluation))
    with pytest.raises(
        UserError, match="eval-test.json: was made by an earlier version; make it: python tools/eval.py"
    ):
        read_run(tmp_path / "a", "test")


def test_a_baseline_is_evaluated_without_embeddings(tmp_path):
    folder = make_run(tmp_path / "a", "baseline", seed=0, right=6)
    with pytest.raises(UserError, match=f"--split val --json {folder}/eval-val.json$"):
        read_run(folder, "val")


def test_groups_by_everything_but_seed_and_places(tmp_path):
    made = [
        make_run(tmp_path / "c0", "control", seed=0, right=6),
        make_run(tmp_path / "a1", "aligned", seed=1, right=6, root="elsewhere"),
        make_run(tmp_path / "b0", "baseline", seed=0, right=6),
        make_run(tmp_path / "a0", "aligned", seed=0, right=6),
    ]
    groups = group_runs(map(read_run, made))
    assert [(group.label, group.seeds) for group in groups] == [
        ("baseline", (0,)),
        ("aligned", (0, 1)),
        ("control", (0,)),
    ]


def test_groups_of_one_arm_are_told_apart_by_what_differs(tmp_path):
    made = [
        make_run(tmp_path / "b", "baseline", seed=0, right=6, label_smoothing=0.1),
        make_run(tmp_path / "light", "aligned", seed=0, right=6, weight=0.3),
        make_run(tmp_path / "heavy", "aligned", seed=0, right=6, weight=3.0, mask_same_text=False),
    ]
    assert [group.label for group in group_runs(map(read_run, made))] == [
        "baseline",
        "aligned, loss.weight=0.3, loss.mask_same_text=true",
        "aligned, loss.weight=3.0, loss.mask_same_text=false",
    ]


def test_one_seed_twice_in_a_group_is_refused(tmp_path):
    made = [make_run(tmp_path / name, "baseline", seed=7, right=6) for name in ("one", "two")]
    with pytest.raises(UserError) as caught:
        group_runs(map(read_run, made))
    assert str(caught.value) == (
        f"{made[0]} and {made[1]}: are the same experiment with the same seed 7; leave one of them out"
    )


def test_a_run_counts_as_finished_only_with_exactly_its_config(tmp_path):
    folder = make_run(tmp_path / "a", "aligned", seed=3, right=6)
    saved = yaml.safe_load((folder / "config.yaml").read_text())

    def summary(**changes):
        return finished_summary(parse_config({**saved, **changes}, "the test"))

    assert summary() == json.loads((folder / "summary.json").read_text())
    assert summary(data={**saved["data"], "root": "moved", "embeddings": "moved.mindrecord"}) == summary()
    assert summary(epochs=3) is None
    assert summary(seed=4) is None
    assert summary(loss={**saved["loss"], "weight": 0.9}) is None
    assert summary(output=str(tmp_path / "not yet")) is None
    (folder / "summary.json").unlink()
    assert summary() is None
