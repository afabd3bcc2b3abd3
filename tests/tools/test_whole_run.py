"""From a folder of images to an exported classifier, through the command lines that a user types."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_data import make_data_set, make_images, make_store, overrides

ROOT = Path(__file__).parents[2]


def command(tool, *arguments):
    return [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)]


def run(tool, *arguments, code=0):
    result = subprocess.run(command(tool, *arguments), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result


def error_of(tool, *arguments):
    """The one line that a mistake is answered with."""
    lines = [line for line in run(tool, *arguments, code=1).stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text("epochs: 2\n")
    return path


@pytest.fixture(scope="module")
def trained(data, config, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "aligned"
    run("train.py", "--config", config, *overrides(data, output))
    return output


def test_a_run_s_folder_holds_what_the_design_says(trained, data):
    names = {path.name for path in trained.iterdir() if "tfevents" not in path.name}
    checkpoints = {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert names == {"config.yaml", "metrics.jsonl", "summary.json", "model.yaml", ".lock", *checkpoints}
    assert any("tfevents" in path.name for path in trained.iterdir())
    summary = json.loads((trained / "summary.json").read_text())
    assert {"top1", "top5", "best_top1", "ce", "align", "epochs", "seconds", "seed"} <= summary.keys()
    assert (summary["epochs"], summary["seed"], summary["best_is_selected_on"]) == (2, 1, "val")
    assert summary["align"] > 0
    assert len((trained / "metrics.jsonl").read_text().splitlines()) == 2
    assert str(data) in (trained / "config.yaml").read_text()


def test_the_colours_are_learnt(trained):
    assert json.loads((trained / "summary.json").read_text())["top1"] > 80


def test_a_finished_run_is_left_alone(trained, data, config):
    before = {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}
    result = run("train.py", "--config", config, *overrides(data, trained))
    assert "val top-1" in result.stdout
    assert {path.name: path.stat().st_mtime_ns for path in trained.iterdir()} == before


@pytest.mark.parametrize("batch_size", [1, 4, 128])
def test_evaluation_is_exact_for_any_batch_size_and_equals_training_s(trained, tmp_path, batch_size):
    result = tmp_path / "eval.json"
    run("eval.py", "--checkpoint", trained, "--json", result, "--batch-size", batch_size)
    values, summary = json.loads(result.read_text()), json.loads((trained / "summary.json").read_text())
    assert (values["images"], values["top1"]) == (9, summary["top1"])
    assert [row["class"] for row in values["classes"]] == ["blue", "green", "red"]
    assert len(values["predictions"]) == 9


def test_classes_are_matched_by_name_not_by_number(trained, tmp_path):
    """Without its first class the split has other numbers, and the same right answers."""
    make_images(tmp_path, "val", 3)
    for path in (tmp_path / "val" / "blue").iterdir():
        path.unlink()
    (tmp_path / "val" / "blue").rmdir()
    run("eval.py", "--checkpoint", trained, "--data", tmp_path, "--json", tmp_path / "part.json")
    run("eval.py", "--checkpoint", trained, "--json", tmp_path / "whole.json")
    part, whole = (json.loads((tmp_path / name).read_text()) for name in ("part.json", "whole.json"))
    assert [row["correct"] for row in part["classes"]] == [0, *(row["correct"] for row in whole["classes"][1:])]
    (tmp_path / "val" / "red").rename(tmp_path / "val" / "yellow")
    assert "are none of the 3 known ones (first: 'yellow')" in error_of(
        "eval.py", "--checkpoint", trained, "--data", tmp_path
    )


def test_retrieval_is_measured_where_there_are_texts(trained, data, tmp_path):
    result = run(
        "eval.py", "--checkpoint", trained, "--split", "test", "--embeddings", data / "short.mindrecord", "--json",
        tmp_path / "eval.json",
    )  # fmt: skip
    found = json.loads((tmp_path / "eval.json").read_text())["retrieval"]
    assert found["images"] == 9
    assert 0 <= found["r1"] <= found["r10"] <= 100
    assert "right text among" in result.stdout


@pytest.mark.parametrize("name", ["a.mindir", "a.onnx"])
def test_an_export_reads_back_and_evaluates_like_the_run(trained, data, tmp_path, name):
    path = tmp_path / name
    result = run("export.py", "--checkpoint", trained, "--output", path)
    assert f"on random images and on some of {data}: largest difference of logits" in result.stdout
    assert b"projection" not in path.read_bytes()
    run("eval.py", "--checkpoint", path, "--data", data, "--json", tmp_path / "eval.json")
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    exported = json.loads((tmp_path / "eval.json").read_text())
    assert (exported["top1"], exported["images"]) == (last["val_top1"], 9)
    assert exported["ce"] == pytest.approx(last["val_ce"], rel=1e-4)
    assert "name a data set's root with --data" in error_of("eval.py", "--checkpoint", path)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_saving_and_the_run_goes_on(data, config, tmp_path, signum):
    arguments = command("train.py", "--config", config, *overrides(data, tmp_path / "run", epochs=100000))
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "run" / "last.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signum)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signum
    assert "Traceback" not in error
    assert f"stopped by {signum.name}" in error
    assert not (tmp_path / "run" / "summary.json").exists()
    done = len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    run("train.py", "--config", config, *overrides(data, tmp_path / "run", epochs=done + 1))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == done + 1


class TestMistakes:
    """Each is answered with one line and exit code 1."""

    def test_missing_description_file(self, data, config, tmp_path):
        arguments = overrides(data, tmp_path / "run", data__descriptions=tmp_path / "none.jsonl")
        assert "none.jsonl" in error_of("train.py", "--config", config, *arguments)

    def test_store_made_from_other_descriptions(self, data, config, tmp_path):
        other = tmp_path / "other.jsonl"
        other.write_text('{"id": "train/red/00.png", "short": "another text"}\n')
        arguments = overrides(data, tmp_path / "run", data__descriptions=other)
        assert "was made from other descriptions" in error_of("train.py", "--config", config, *arguments)

    def test_store_that_lacks_training_images(self, data, config, tmp_path):
        ids = [f"train/{name}/{number:02d}.png" for name in ("green", "red") for number in range(8)]
        store = make_store(tmp_path, ids)
        line = error_of("train.py", "--config", config, *overrides(data, tmp_path / "run", data__embeddings=store))
        assert "lacks 8 of the 24 images" in line
        assert "train/blue/00.png, train/blue/01.png, train/blue/02.png" in line

    def test_missing_store(self, data, config, tmp_path):
        arguments = overrides(data, tmp_path / "run", data__embeddings=tmp_path / "none.mindrecord")
        assert "none.mindrecord" in error_of("train.py", "--config", config, *arguments)

    def test_unreadable_image(self, config, tmp_path):
        make_data_set(tmp_path)
        path = tmp_path / "train" / "red" / "03.png"
        path.write_bytes(path.read_bytes()[:70])
        result = run("train.py", "--config", config, *overrides(tmp_path, tmp_path / "run"), code=1)
        assert "train/red/03.png: cannot be decoded" in result.stderr.splitlines()[-1]

    def test_empty_folder(self, config, tmp_path):
        (tmp_path / "train").mkdir()
        line = error_of("train.py", "--config", config, *overrides(tmp_path, tmp_path / "run"))
        assert "holds no class folders" in line

    def test_unknown_backbone(self, data, config, tmp_path):
        line = error_of("train.py", "--config", config, *overrides(data, tmp_path / "run", model__name="resnet5O"))
        assert "'resnet5O'" in line and "resnet50" in line

    def test_wrong_key_and_type(self, data, config, tmp_path):
        line = error_of(
            "train.py", "--config", config, *overrides(data, tmp_path / "run"), "loss.temprature=1", "epochs=ten"
        )
        assert "did you mean loss.temperature?" in line and "epochs" in line

    def test_missing_config_and_checkpoint(self, tmp_path):
        assert "no.yaml" in error_of("train.py", "--config", tmp_path / "no.yaml")
        assert "no.ckpt" in error_of("eval.py", "--checkpoint", tmp_path / "no.ckpt")
        assert "no.ckpt" in error_of("export.py", "--checkpoint", tmp_path / "no.ckpt", "--output", "x.mindir")

    def test_wrong_syntax_exits_with_2(self):
        for tool in ("train.py", "eval.py", "export.py", "prepare.py", "encode.py"):
            run(tool, "--no-such-option", code=2)

    def test_missing_split(self, trained):
        line = error_of("eval.py", "--checkpoint", trained, "--split", "dev")
        assert "no split 'dev'; splits there: test, train, val" in line

    def test_retrieval_with_a_baseline(self, data, config, tmp_path):
        run("train.py", "--config", config, *overrides(data, tmp_path / "b", loss__alignment="none", epochs=1))
        line = error_of("eval.py", "--checkpoint", tmp_path / "b", "--embeddings", data / "short.mindrecord")
        assert "has no projection" in line


def test_help_lists_the_options_of_the_config():
    result = run("train.py", "--help")
    assert "loss.temperature (0.5): tau of Eq. 2" in result.stdout


def test_commands_run_from_any_folder(data, config, tmp_path):
    result = subprocess.run(
        command("eval.py", "--checkpoint", "nowhere"), cwd=tmp_path, capture_output=True, text=True, env=os.environ
    )
    assert result.returncode == 1 and "nowhere" in result.stderr
