"""Grids: what a file asks for, and runs that are made, stopped, resumed and reported."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from run_folders import make_run
from tiny_data import make_data_set, overrides

from mindspore_gpt4image.config import load_config
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.grid import read_grid, run_grid
from mindspore_gpt4image.report.grid import read_result, write_grid_report
from mindspore_gpt4image.runs import read_run

ROOT = Path(__file__).parents[1]
BASE = "data: {root: data, embeddings: short.mindrecord}\nepochs: 2\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a grid file beside its config; runs go below the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "base.yaml").write_text(BASE)

    def write(text: str) -> Path:
        path = tmp_path / "configs" / "grid.yaml"
        path.write_text("config: base.yaml\noutput: out\nseeds: [5, 6]\nsplit: test\n" + text)
        return path

    return write


ARMS = """
options: {loss.temperature: 0.1}
arms:
  baseline: {loss.alignment: none}
  aligned: {}
  control:
    data: {shuffle_texts: true}
"""


def test_arms_and_seeds_make_the_runs_that_train_would_make(write):
    grid = read_grid(write(ARMS))
    assert [run.name for run in grid.runs[:4]] == [
        "baseline, seed 5",
        "aligned, seed 5",
        "control, seed 5",
        "baseline, seed 6",
    ]
    assert (grid.reference, grid.split) == ("baseline", "test")
    last = grid.runs[-1]
    assert (last.folder, last.config.data.shuffle_texts, last.config.loss.temperature) == (
        Path("out/control/seed6"),
        True,
        0.1,
    )
    for run in grid.runs:
        _, config, *typed = run.arguments
        assert load_config(config, typed) == run.config


def test_a_product_runs_all_combinations(write):
    grid = read_grid(write("grid:\n  loss.weight: [0.1, 1]\n  optimizer: {lr: [1e-3, 5e-4, 1e-4]}\n"))
    assert [arm.name for arm in grid.arms][:2] == [
        "loss.weight=0.1, optimizer.lr=1e-3",
        "loss.weight=0.1, optimizer.lr=5e-4",
    ]
    assert [(run.config.loss.weight, run.config.optimizer.lr) for run in grid.runs[:6]] == [
        (weight, lr) for weight in (0.1, 1) for lr in (1e-3, 5e-4, 1e-4)
    ]
    assert len({run.folder for run in grid.runs}) == 12
    assert grid.runs[0].folder == Path("out/loss.weight=0.1_optimizer.lr=1e-3/seed5")


def test_all_faults_are_told_at_once_and_once(write):
    path = write(
        "sed: 1\narms:\n  a: {loss.temprature: 1}\n  b: {epochs: 0}\n  c: {loss.alignment: none, seed: 1}\n"
        "  d: 3\ngrid: {loss.weight: 0.1}\nreference: z\n"
    )
    with pytest.raises(UserError) as caught:
        read_grid(path)
    text = str(caught.value)
    for fault in (
        f"{path}:5: unknown key sed, did you mean seeds?",
        f"{path}:9: seed is set by the grid's own `seeds` and `output`",
        f"{path}:10: arm d must be a mapping of options",
        f"{path}:11: loss.weight must be a list of values",
        f"{path}: reference: there is no arm 'z'; arms are a, b, c",
    ):
        assert text.count(fault) == 1
    path = write("arms:\n  a: {loss.temprature: 1}\n  b: {epochs: 0}\n  c: {schedule.warmup_epochs: 3}\n")
    with pytest.raises(UserError) as caught:
        read_grid(path)
    assert str(caught.value).split("; ") == [
        f"{path}:6: unknown key loss.temprature, did you mean loss.temperature?",
        f"{path}:7: epochs: must be at least 1, not 0",
        f"{path}: c: schedule.warmup_epochs=3.0 is more than epochs=2",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "arms or grid is required: what is to be compared"),
        ("arms: {'..': {}}", "arm '..' needs a name with a letter or digit, it names a folder"),
        ("arms: {a: {}}\nranks: 0", "ranks: must be a whole number above 0, not 0"),
        ("arms: {a b: {}, a_b: {}}", "arms 'a b' and 'a_b' would have the same folder, rename one"),
        ("arms: {a: {}, a: {}}", ":5: arms.a stands here for the second time"),
        ("arms: {a: !!python/object:os.system {}}", "no valid YAML"),
    ],
)
def test_what_makes_no_grid_is_refused(write, text, fault):
    with pytest.raises(UserError, match="grid.yaml") as caught:
        read_grid(write(text + "\n"))
    assert fault in str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "ablation").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_grid_resolves(path):
    grid = read_grid(path)
    assert len(grid.runs) == len(grid.arms) * len(grid.seeds) > 1


@pytest.fixture
def finished(write):
    """A grid whose runs are done but for one: 3, 6 and 6, 9 and 8, - of 12 images right."""
    grid = read_grid(write(ARMS.replace("options: {loss.temperature: 0.1}", "")))
    right = {"baseline": (3, 6), "aligned": (6, 9), "control": (8,)}
    for arm, counts in right.items():
        for seed, count in zip((5, 6), counts):
            folder = make_run(Path(f"out/{arm}/seed{seed}"), arm, seed, count)
            summary = json.loads((folder / "summary.json").read_text())
            (folder / "summary.json").write_text(json.dumps({**summary, "top1": 10.0 * count}))
    return grid


def test_the_table_by_hand(finished):
    result = read_result(finished, [])
    assert result.unfinished == 1
    assert result.table().headers == [
        *("arm", "seeds", "val top-1", "val − baseline", "test top-1", "test − baseline", "would have been seen"),
        *("R@1", "R@10"),
    ]
    # 25, 50 and 50, 75 percent: differences of 25 twice, which leave nothing to tell chance from.
    assert result.table().rows == [
        ["baseline", "2", "45.00 ± 21.21", "–", "37.50 ± 17.68", "–", "–", "–", "–"],
        [
            *("aligned", "2", "75.00 ± 21.21", "+30.00 [+30.00, +30.00]", "62.50 ± 17.68", "+25.00 [+25.00, +25.00]"),
            *("0.00", "4.00 ± 0.00", "40.00 ± 0.00"),
        ],
        ["control", "1", "80.00", "+50.00", "66.67", "+41.67", "–", "4.00", "40.00"],
    ]


def test_the_heat_map_of_arms_is_against_the_seeds(finished):
    (panel,) = read_result(finished, []).heat_maps()
    assert panel.rows == ["baseline", "aligned", "control"]
    assert panel.columns == ["seed 5", "seed 6", "mean"]
    assert panel.values[0] == [25.0, 50.0, 37.5]
    assert panel.values[2] == [pytest.approx(200 / 3), None, pytest.approx(200 / 3)]
    assert panel.references == [[25.0, 50.0, 37.5]] * 3


def test_the_heat_map_of_a_product_has_its_axes(write):
    path = write(
        "arms: {baseline: {loss.alignment: none}}\ngrid: {loss.weight: [1, 3], loss.temperature: [0.1, 0.2]}\n"
    )
    grid = read_grid(path)
    for place, run in enumerate(grid.runs[:4]):
        loss = {} if run.arm == "baseline" else {"weight": run.config.loss.weight}
        if loss:
            loss["temperature"] = run.config.loss.temperature
        make_run(run.folder, "baseline" if run.arm == "baseline" else "aligned", 5, 3 * (place + 1), **loss)
        summary = json.loads((run.folder / "summary.json").read_text())
        (run.folder / "summary.json").write_text(json.dumps({**summary, "top1": 1.0}))
    (panel,) = read_result(grid, []).heat_maps()
    assert (panel.row_name, panel.rows) == ("loss.weight", ["1", "3"])
    assert (panel.column_name, panel.columns) == ("loss.temperature", ["0.1", "0.2"])
    assert panel.values == [[50.0, 75.0], [100.0, None]]
    assert panel.references == [[25.0, 25.0]] * 2


def test_the_report_is_written(finished, tmp_path):
    text = write_grid_report(read_result(finished, []), tmp_path / "report")
    assert "| aligned" in text and "1 of 6 runs are still to be done." in text
    assert (tmp_path / "report" / "compare.md").read_text() == text
    assert (tmp_path / "report" / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64," in (tmp_path / "report" / "compare.html").read_text()


def test_nothing_finished_is_an_error(write):
    path = write(ARMS)
    with pytest.raises(UserError, match="none of its 6 runs is finished"):
        read_result(read_grid(path), [])


def test_a_failed_run_is_told_with_its_reason(write):
    """There is no such data set; the process is real."""
    path = write("options: {loss.alignment: none}\narms: {only: {}}\n")
    path.write_text(path.read_text().replace("[5, 6]", "[5]"))
    (failure,) = run_grid(read_grid(path))
    assert failure.reason.startswith("data: there is no such folder; give the data set's root")
    assert failure.reason.endswith("(exit 1)")
    assert failure.log == Path("out/only/seed5/log.txt")


def config_of(root, **more):
    """A config file of a short aligned run."""
    values = dict(text.split("=", 1) for text in overrides(root, "unused", **more))
    values = {key: yaml.safe_load(value) for key, value in values.items() if key not in ("output", "seed")}
    return yaml.safe_dump(values)


@pytest.mark.slow
def test_a_run_may_have_several_ranks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = make_data_set(tmp_path / "data")
    (tmp_path / "base.yaml").write_text(config_of(root, epochs=1, batch_size=3))
    (tmp_path / "grid.yaml").write_text(
        "config: base.yaml\noutput: out\nseeds: [5]\nranks: 2\narms: {baseline: {loss.alignment: none}}\n"
    )
    assert run_grid(read_grid("grid.yaml")) == []
    assert read_run("out/baseline/seed5", "val").summary["world_size"] == 2


@pytest.mark.slow
def test_a_grid_is_stopped_goes_on_and_skips_what_is_done(tmp_path):
    """Two arms that train and one that fails; SIGTERM in the first, SIGKILL later, then to the end."""
    root = make_data_set(tmp_path / "data")
    (tmp_path / "base.yaml").write_text(config_of(root, epochs=15))
    (tmp_path / "grid.yaml").write_text(
        f"config: base.yaml\noutput: {tmp_path / 'out'}\nseeds: [5]\nsplit: test\n"
        "arms: {baseline: {loss.alignment: none}, aligned: {}, broken: {data.embeddings: nowhere.mindrecord}}\n"
    )

    def start():
        command = [sys.executable, str(ROOT / "tools" / "compare.py"), str(tmp_path / "grid.yaml")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for(path):
        deadline = time.monotonic() + 600
        while not path.exists():
            assert time.monotonic() < deadline, path
            time.sleep(0.02)

    baseline, aligned = tmp_path / "out/baseline/seed5", tmp_path / "out/aligned/seed5"
    process = start()
    wait_for(baseline / "metrics.jsonl")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143 and errors.splitlines()[-1] == "stopped by SIGTERM"
    assert (baseline / "last.ckpt").exists() and not (baseline / "summary.json").exists()

    process = start()
    wait_for(aligned / "metrics.jsonl")
    process.kill()
    process.communicate(timeout=120)
    done = read_run(baseline, "test")
    made = (baseline / "eval-test.json").stat().st_mtime_ns

    process = start()
    output, errors = process.communicate(timeout=900)
    assert process.returncode == 1
    assert errors.splitlines()[-1].endswith("grid.yaml: 1 of 3 runs failed; started again, it tries them again")
    assert (baseline / "eval-test.json").stat().st_mtime_ns == made
    assert len(read_run(aligned, "test").metrics) == 15
    assert "retrieval" in read_run(aligned, "test").evaluation and "retrieval" not in done.evaluation
    assert "nowhere.mindrecord" in output and "aligned" in output
    assert (tmp_path / "out" / "grid.png").exists()
