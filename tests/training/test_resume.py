"""A run that is stopped and started again gives, bit for bit, what it gives uninterrupted."""

import json
import shutil
import signal

import pytest
from tiny_data import make_store, overrides

from mindspore_gpt4image.checkpoint import read_checkpoint
from mindspore_gpt4image.config import load_config
from mindspore_gpt4image.data.pack import pack
from mindspore_gpt4image.data.store import EmbeddingStore
from mindspore_gpt4image.errors import Stopped, UserError
from mindspore_gpt4image.signals import StopRequest
from mindspore_gpt4image.training import loop
from mindspore_gpt4image.training.loop import train

# 24 images in batches of 6: 4 steps an epoch.
TIMES = {"images_per_second"}


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("schedule: {warmup_epochs: 1}\n")
    return path


class StopAfter(StopRequest):
    """A SIGTERM that comes in the given step of this process."""

    def __init__(self, steps):
        self.steps_left = steps  # the loop looks once a step

    @property
    def signum(self):
        self.steps_left -= 1
        return signal.SIGTERM if self.steps_left <= 0 else None


def run(config_file, data, output, stop_after=None, **more):
    stop = None if stop_after is None else StopAfter(stop_after)
    return train(load_config(config_file, overrides(data, output, **more)), stop)


def read_metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def assert_same_state(one, other):
    a, b = read_checkpoint(one), read_checkpoint(other)
    for left, right in ((a.network, b.network), (a.training, b.training)):
        assert left.keys() == right.keys()
        different = [name for name in left if (left[name].asnumpy() != right[name].asnumpy()).any()]
        assert different == []


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    config_file = folder / "config.yaml"
    config_file.write_text("schedule: {warmup_epochs: 1}\n")
    run(config_file, data, folder / "run")
    return folder / "run"


# Within an epoch, and at its last step, before its evaluation.
@pytest.mark.parametrize("stop_after", [3, 4])
def test_stopped_and_resumed_is_bit_equal(data, config_file, uninterrupted, tmp_path, stop_after):
    with pytest.raises(Stopped) as stopped:
        run(config_file, data, tmp_path / "run", stop_after)
    assert stopped.value.signum == signal.SIGTERM
    assert not (tmp_path / "run" / "summary.json").exists()
    run(config_file, data, tmp_path / "run")
    assert_same_state(tmp_path / "run", uninterrupted)
    assert read_metrics(tmp_path / "run") == read_metrics(uninterrupted)
    assert (tmp_path / "run" / "best.ckpt").exists()


# 4 steps an epoch of two micro-batches of 3 images: 100 steps.
EVERYTHING = {
    "epochs": 25,
    "batch_size": 3,
    "accumulate": 2,
    "schedule__warmup_epochs": 5,
    "amp": "O2",
    "ema": 0.9,
    "clip_norm": 1.0,
    "diagnostics": 3,
    "augment__mixup": 0.8,
    "augment__cutmix": 1.0,
    "augment__erasing": 0.25,
    "augment__rand_augment": "rand-m9-mstd0.5-inc1",
    "augment__repeats": 3,
    "augment__mix_off_epoch": 20,
    "model__projection": "mlp",
}


@pytest.mark.slow
def test_stopped_at_step_37_of_100_with_everything_on_is_bit_equal(data, config_file, tmp_path):
    whole = run(config_file, data, tmp_path / "whole", **EVERYTHING)
    with pytest.raises(Stopped):
        run(config_file, data, tmp_path / "run", 37, **EVERYTHING)
    progress = read_checkpoint(tmp_path / "run").progress
    assert (progress["epoch"], progress["step"]) == (9, 1)
    run(config_file, data, tmp_path / "run", **EVERYTHING)
    assert_same_state(tmp_path / "run", tmp_path / "whole")
    metrics = read_metrics(tmp_path / "run")
    assert metrics == read_metrics(tmp_path / "whole")
    assert {"val_top1_ema", "val_ce_ema", "loss_scale", "batch_r_at_1", "gradient_cosine"} <= metrics[0].keys()
    # Both move, and the average settles more slowly.
    for name in ("val_ce", "val_ce_ema"):
        assert len({line[name] for line in metrics}) == len(metrics)
    assert 0 <= whole["top1_ema"] <= 100


def test_accumulation_and_moving_average_are_resumed_bit_equal(data, config_file, tmp_path):
    options = {"epochs": 3, "batch_size": 3, "accumulate": 2, "ema": 0.5, "augment__mixup": 0.8}
    run(config_file, data, tmp_path / "whole", **options)
    with pytest.raises(Stopped):
        run(config_file, data, tmp_path / "run", 6, **options)
    run(config_file, data, tmp_path / "run", **options)
    assert_same_state(tmp_path / "run", tmp_path / "whole")
    metrics = read_metrics(tmp_path / "run")
    assert metrics == read_metrics(tmp_path / "whole")
    assert len({line["val_ce_ema"] for line in metrics}) == 3


def test_a_line_of_metrics_without_its_checkpoint_is_repeated_once(data, config_file, uninterrupted, tmp_path):
    with pytest.raises(Stopped):
        run(config_file, data, tmp_path / "run", 6)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": 2, "written": "before a kill"}) + "\n")
    run(config_file, data, tmp_path / "run")
    assert read_metrics(tmp_path / "run") == read_metrics(uninterrupted)


def test_other_settings_are_refused_by_name(data, config_file, uninterrupted):
    before = (uninterrupted / "last.ckpt").read_bytes()
    with pytest.raises(UserError) as error:
        run(config_file, data, uninterrupted, loss__weight=0.7, seed=3)
    text = str(error.value)
    assert "seed was 1 and is 3" in text and "loss.weight was 0.3 and is 0.7" in text and "output=" in text
    assert (uninterrupted / "last.ckpt").read_bytes() == before


def test_another_encoder_is_refused(data, config_file, uninterrupted):
    ids = EmbeddingStore.open(data / "short.mindrecord").ids
    other = make_store(data, ids, "other.mindrecord", encoder="another")
    with pytest.raises(UserError, match="the embedding store's encoder was random and is another"):
        run(config_file, data, uninterrupted, epochs=3, data__embeddings=other)


def test_a_packed_data_set_trains_alike(data, config_file, uninterrupted, tmp_path):
    """From the start, and from a checkpoint of the folder on; the texts come from the shards."""
    pack(data, tmp_path / "packed", ("train", "val"), embeddings=data / "short.mindrecord", shard_images=10)
    packed = {"data__root": tmp_path / "packed", "data__embeddings": "null"}
    run(config_file, data, tmp_path / "run", **packed)
    assert_same_state(tmp_path / "run", uninterrupted)
    assert read_metrics(tmp_path / "run") == read_metrics(uninterrupted)
    with pytest.raises(Stopped):
        run(config_file, data, tmp_path / "moved", 3)
    run(config_file, data, tmp_path / "moved", **packed)
    assert_same_state(tmp_path / "moved", uninterrupted)


def test_an_image_that_breaks_during_a_run_is_left_out_and_counted(data, config_file, tmp_path, monkeypatch, capsys):
    """It breaks after the set was listed, and the run is stopped and goes on: as if it had always been broken."""
    root = shutil.copytree(data, tmp_path / "data")
    victim = root / "train" / "green" / "05.png"
    set_up = loop.set_up

    def set_up_and_break(config):
        result = set_up(config)
        victim.write_bytes(victim.read_bytes()[:60])
        return result

    monkeypatch.setattr(loop, "set_up", set_up_and_break)
    with pytest.raises(Stopped):
        run(config_file, root, tmp_path / "stopped", 3, data__skip_broken="true")
    assert f"note: left out, another image takes its place: {victim}: cannot be decoded" in capsys.readouterr().err
    monkeypatch.undo()
    run(config_file, root, tmp_path / "stopped", data__skip_broken="true")
    assert [line["broken_images"] for line in read_metrics(tmp_path / "stopped")] == [1, 1]
    assert json.loads((tmp_path / "stopped" / "summary.json").read_text())["broken_images"] == 1
    run(config_file, root, tmp_path / "always", data__skip_broken="true")
    assert_same_state(tmp_path / "stopped", tmp_path / "always")
    with pytest.raises(UserError, match=f"{victim}: cannot be decoded"):
        run(config_file, root, tmp_path / "refused")


def test_more_epochs_go_on_from_the_end(data, config_file, uninterrupted, tmp_path):
    run(config_file, data, tmp_path / "run")
    summary = run(config_file, data, tmp_path / "run", epochs=3)
    assert summary["epochs"] == 3
    assert [line["epoch"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3]
    assert read_metrics(tmp_path / "run")[:2] == read_metrics(uninterrupted)


def test_arms_of_one_seed_start_from_the_same_weights_and_see_the_same_batches(data, config_file, tmp_path):
    """With no learning rate to speak of, the baseline's first epoch has the cross-entropy of the aligned run's."""
    arms = {"baseline": {"loss__alignment": "none"}, "aligned": {}, "control": {"data__shuffle_texts": "true"}}
    losses = {}
    for arm, more in arms.items():
        run(config_file, data, tmp_path / arm, epochs=1, optimizer__lr=1e-12, **more)
        losses[arm] = read_metrics(tmp_path / arm)[0]
    assert losses["baseline"]["train_ce"] == pytest.approx(losses["aligned"]["train_ce"], rel=1e-6)
    assert losses["baseline"]["train_ce"] == pytest.approx(losses["control"]["train_ce"], rel=1e-6)
    assert losses["control"]["train_align"] != losses["aligned"]["train_align"]
    assert losses["baseline"]["train_align"] == 0


def test_a_learning_rate_that_breaks_training_is_named_and_nan_is_never_best(data, config_file, tmp_path, monkeypatch):
    """The first step has lr 0 (warm-up), the second a third of 7.5e37: from the third on no gradient is finite."""
    broken = {"val_ce": float("nan"), "val_top1": 100.0, "val_top5": 100.0}
    monkeypatch.setattr(loop, "evaluate_epoch", lambda run: broken)
    with pytest.raises(UserError, match=r"not finite for 21 steps in a row, up to step . of epoch 6 at optimizer.lr="):
        run(config_file, data, tmp_path / "run", epochs=20, optimizer__name="sgd", optimizer__lr=7.5e37)
    assert not (tmp_path / "run" / "best.ckpt").exists()
    assert [line["skipped_steps"] for line in read_metrics(tmp_path / "run")][1:] == [4] * 4
