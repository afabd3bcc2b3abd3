"""`--check` finds what would make training fail, all of it at once, and leaves no trace in the run's folder."""

import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from cifar_archives import write_archive
from PIL import Image
from tiny_data import CLASSES, make_images, make_store, overrides

from mindspore_gpt4image import preflight
from mindspore_gpt4image.config import load_config
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.preflight import Report, check
from mindspore_gpt4image.sources.formats import list_images
from mindspore_gpt4image.training.resume import save_last
from mindspore_gpt4image.training.setup import set_up

TRAIN = Path(__file__).parents[1] / "tools" / "train.py"


@pytest.fixture
def config_of(tmp_path):
    """A config of the data at a root, with other values where given."""
    path = tmp_path / "empty.yaml"
    path.write_text("")
    return lambda root, **more: load_config(path, overrides(root, **{"output": tmp_path / "run", **more}))


def test_all_is_well_for_an_aligned_run(data, config_of, tmp_path, capsys):
    report = check(config_of(data))
    assert report.faults == []
    report.show()
    said = capsys.readouterr().out
    for text in (
        f"train    {data}/train: 24 images, 3 classes of 8 to 8",
        f"val      {data}/val: 9 images, 3 classes of 3 to 3",
        "short.mindrecord: 42 short texts, 8 numbers each, by random",
        "join     24 of 24 training images have a text",
        "linear projection to 8",
        "alignment",
        "training can start",
    ):
        assert text in said
    assert len(said.splitlines()) < 20
    assert not (tmp_path / "run").exists()


def test_all_is_well_for_a_baseline_on_cifar(config_of, tmp_path):
    archive = write_archive(tmp_path, "cifar10", "python")
    report = check(config_of(archive, loss__alignment="none", model__image_size=32, augment__eval_resize=32))
    assert report.faults == []
    text = "\n".join(report.lines)
    assert f"train    {archive}/train: 20 images, 3 classes of 6 to 7" in text
    assert f"val      {archive}/test: 4 images" in text
    assert "texts    none: a baseline" in text
    assert not (tmp_path / "run").exists()


@pytest.fixture
def spoilt(tmp_path):
    """A data set with one of each fault."""
    root = tmp_path / "spoilt"
    ids = make_images(root, "train", 4)
    make_images(root, "val", 2)
    make_store(root, [*ids[3:], "train/blue/99.png"])
    (root / "train" / "green" / "00.png").write_bytes(b"")
    pixels = root / "train" / "red" / "00.png"
    pixels.write_bytes(pixels.read_bytes()[:100])
    (root / "train" / "red" / "notes.txt").write_text("hello")
    (root / "val" / "red").rename(root / "val" / "rot")
    return root


def test_every_fault_is_told_at_once(spoilt, config_of):
    report = check(config_of(spoilt, output=spoilt / "descriptions.jsonl" / "run"))
    broken, classes, missing, output = report.faults
    assert broken.startswith(f"2 broken images ({spoilt}/train/green/00.png: cannot be decoded: the file is empty; ")
    assert classes == "1 classes are not in train (rot)"
    assert missing.startswith("3 training images have no text in ")
    assert missing.endswith("(train/blue/00.png, train/blue/01.png, train/blue/02.png)")
    assert output.endswith(
        f"run: cannot be written, {spoilt}/descriptions.jsonl is no folder or not yours; choose output="
    )
    text = "\n".join(report.lines)
    assert "ranks    1 on CPU; data.workers=2" in text
    assert f"{spoilt}/train: files that are not read as images: 1 .txt" in text
    assert "val      lacks 1 classes of train (red)" in text
    assert "join     1 texts have no image (train/blue/99.png)" in text
    assert "step     not tried, for the faults above" in text
    with pytest.raises(UserError, match=r"^training would fail: 2 broken images .*; 1 classes are not in train"):
        report.show()


def test_broken_images_may_be_left_out(spoilt, config_of):
    report = check(config_of(spoilt, data__skip_broken=True))
    assert not any("broken images (" in fault for fault in report.faults)
    assert any(f"train    2 broken images would be left out ({spoilt}" in line for line in report.lines)


@pytest.mark.parametrize(("broken", "length"), [((), 6), ((0, 1, 20), 8), (range(20), 24)])
def test_the_step_is_tried_on_images_that_are_not_broken(data, broken, length):
    assert preflight._head(list_images(data, "train"), 6, broken).ids == list_images(data, "train").ids[:length]


def test_damage_in_the_middle_of_an_image_is_found(tmp_path, config_of):
    make_images(tmp_path, "train", 3)
    make_images(tmp_path, "val", 1)
    Image.effect_noise((64, 64), 99).save(tmp_path / "train" / "red" / "00.png")
    path = tmp_path / "train" / "red" / "00.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    report = check(config_of(tmp_path, loss__alignment="none"))
    assert [fault.split(":")[0] for fault in report.faults] == [f"1 broken images ({path}"]


def test_a_store_of_other_descriptions_and_a_missing_split(tmp_path, config_of):
    make_store(tmp_path, make_images(tmp_path, "train", 4))
    (tmp_path / "descriptions.jsonl").write_text('{"id": "train/red/00.png", "short": "another text"}\n')
    report = check(config_of(tmp_path, data__descriptions=tmp_path / "descriptions.jsonl"))
    split, descriptions = report.faults
    assert split == f"{tmp_path}: there is no split 'val'; splits there: train"
    assert "was made from other descriptions" in descriptions


def test_too_few_images_for_a_batch(data, config_of):
    (fault,) = check(config_of(data, batch_size=25, loss__alignment="none")).faults
    assert fault == "batch_size=25 on 1 rank(s) needs 25 images, the train split has 24"


def test_a_checkpoint_of_another_experiment(data, config_of):
    run = set_up(config_of(data, loss__alignment="none"))
    save_last(run)
    (fault,) = check(config_of(data, loss__alignment="none", optimizer__lr=0.5)).faults
    assert "last.ckpt: was trained with other settings (optimizer.lr was 0.003 and is 0.5)" in fault


def test_a_disk_that_is_too_small(data, config_of, monkeypatch):
    run = set_up(config_of(data, loss__alignment="none"))
    free = namedtuple("usage", "free")
    for free_bytes, faults in ((10**5, 1), (10**9, 0)):
        monkeypatch.setattr(shutil, "disk_usage", lambda place, free_bytes=free_bytes: free(free_bytes))
        report = Report()
        preflight._check_disk(run, report)
        assert len(report.faults) == faults
        assert "MB, 0.0 GB are free" in report.lines[0] or faults == 0


@pytest.mark.slow
def test_a_step_that_is_not_finite(data, config_of):
    (fault,) = check(config_of(data, optimizer__name="sgd", optimizer__lr=1e38)).faults
    assert fault.startswith("the gradient is not finite; lower optimizer.lr")


def test_the_command(spoilt, tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    result = subprocess.run(
        [sys.executable, TRAIN, "--config", tmp_path / "empty.yaml", "--check", *overrides(spoilt, tmp_path / "run")],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert f"train    {spoilt}/train: 12 images, {len(CLASSES)} classes of 4 to 4" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("error: training would fail: 2 broken images")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()
