"""From images to a description set: shards, broken images, stopping, and the same texts in every way."""

import json
import signal
import threading

import numpy as np
import pytest
from PIL import Image
from tiny_describers import write_llava

from mindspore_gpt4image.errors import Stopped, UserError
from mindspore_gpt4image.offline.answers import Answer
from mindspore_gpt4image.offline.describe import PROMPTS, describe_images, missing_images
from mindspore_gpt4image.offline.journal import Journal, parts_of
from mindspore_gpt4image.offline.local_model import LocalModel
from mindspore_gpt4image.offline.ranks import Ranks
from mindspore_gpt4image.signals import StopRequest
from mindspore_gpt4image.sources.descriptions import read_descriptions
from mindspore_gpt4image.sources.formats import list_images

COUNT = 103


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """103 images of several sizes, and what lies about in folders beside them."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(COUNT):
        path = root / "train" / f"class {number % 5}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (int(random.integers(8, 40)), int(random.integers(8, 40)), 3)
        Image.fromarray(random.integers(0, 255, size, np.uint8)).save(path)
    (root / "train" / ".DS_Store").write_bytes(b"x")
    (root / "train" / "class 0" / "._a.png").write_bytes(b"x" * 4096)
    (root / "train" / "class 1" / "notes.txt").write_text("x")
    return list_images(root, "train")


class Echo:
    """Answers with what it was asked; knows how often it was called and how many at a time."""

    batch_size = 4
    workers = 2

    def __init__(self, faults=()):
        self.faults = set(faults)
        self.calls = []
        self.closed = False
        self._lock = threading.Lock()

    def answers(self, pictures, prompts):
        with self._lock:
            self.calls.append([picture.id for picture in pictures])
        return [
            Answer(fault="refused: no") if picture.id in self.faults else Answer(f"{prompt} {picture.id}", tokens=2)
            for picture, prompt in zip(pictures, prompts)
        ]

    def close(self):
        self.closed = True


def describe(image_sets, model, output, ranks=Ranks(), prompts=PROMPTS, stop=None):  # noqa: B008
    journal = Journal(output, list(prompts), ranks)
    try:
        _, missing = missing_images(image_sets, journal, ranks)
        return describe_images(missing, model, prompts, journal, stop)
    finally:
        journal.close()


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_image_gets_its_texts(images, tmp_path):
    output = tmp_path / "descriptions.jsonl"
    model = Echo()
    tally = describe([images], model, output)
    assert (tally.described, tally.failed, tally.tokens) == (COUNT, 0, 4 * COUNT)
    assert all(list(line) == ["id", "short", "long"] for line in lines(output))
    for key, prompt in PROMPTS.items():
        assert read_descriptions(output, key) == {line["id"]: f"{prompt} {line['id']}" for line in lines(output)}
    assert sorted(line["id"] for line in lines(output)) == images.ids
    assert max(map(len, model.calls)) == 4 and model.closed
    assert not (tmp_path / "failures.jsonl").exists()


def test_shards_describe_the_same_images_once(images, tmp_path):
    """103 images by 1, 2 and 3 processes of a tiny LLaVA, that never meet; merged by putting their files together."""
    model = LocalModel.load(write_llava(tmp_path / "llava"), batch_size=16, max_tokens=4)
    prompts = {"short": "short sentence"}
    merged = {}
    for world in (1, 2, 3):
        output = tmp_path / str(world) / "descriptions.jsonl"
        for rank in reversed(range(world)):
            describe([images], model, output, Ranks(rank, world), prompts)
        files = parts_of(output) or [output]
        assert len(files) == world
        output.write_bytes(b"".join(file.read_bytes() for file in files))
        merged[world] = read_descriptions(output, "short")  # refuses an id that comes twice
        # A tiny model has nothing to say of some.
        failed = [line["id"] for file in output.parent.glob("failures*") for line in lines(file)]
        assert sorted([*merged[world], *failed]) == images.ids
    assert merged[1] == merged[2] == merged[3]
    assert len(merged[1]) > 90
    assert len(set(merged[1].values())) > 10


def test_it_goes_on_with_what_is_missing(images, tmp_path):
    output = tmp_path / "descriptions.jsonl"
    describe([images], Echo(), output)
    whole = output.read_bytes()
    output.write_bytes(whole[: len(whole) // 2])
    model = Echo()
    tally = describe([images], model, output)
    assert 0 < tally.described < COUNT
    new = [line["id"] for line in lines(output)[-tally.described :]]
    assert sorted(id for call in model.calls for id in call) == sorted(new * len(PROMPTS))
    assert sorted(read_descriptions(output, "long")) == images.ids


def test_broken_images_and_refusals_are_listed(tmp_path):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    for number in range(8):
        Image.new("RGB", (30, 30), (number, 0, 0)).save(folder / f"{number}.jpg")
    data = (folder / "1.jpg").read_bytes()
    (folder / "1.jpg").write_bytes(data[: len(data) * 6 // 10])
    (folder / "2.jpg").write_bytes(b"")
    images = list_images(tmp_path, "train")
    output = tmp_path / "descriptions.jsonl"

    tally = describe([images], Echo(faults=["train/a/5.jpg"]), output)
    assert (tally.described, tally.failed) == (5, 3)
    failures = {line["id"]: line["reason"] for line in lines(tmp_path / "failures.jsonl")}
    assert sorted(failures) == ["train/a/1.jpg", "train/a/2.jpg", "train/a/5.jpg"]
    assert "cannot be decoded" in failures["train/a/1.jpg"]
    assert "the file is empty" in failures["train/a/2.jpg"]
    assert failures["train/a/5.jpg"] == "short: refused: no"
    # The others keep their own texts.
    assert all(id in text for id, text in read_descriptions(output, "short").items())

    # What failed is tried again, and nothing else.
    Image.new("RGB", (30, 30)).save(folder / "1.jpg")
    model = Echo()
    describe([images], model, output)
    assert {id for call in model.calls for id in call} == {"train/a/1.jpg", "train/a/5.jpg"}
    assert [line["id"] for line in lines(tmp_path / "failures.jsonl")] == ["train/a/2.jpg"]


def test_asked_to_stop_it_keeps_what_was_answered(images, tmp_path):
    output = tmp_path / "descriptions.jsonl"
    stop = StopRequest()

    class Stopping(Echo):
        def answers(self, pictures, prompts):
            if len(self.calls) == 6:
                stop.signum = signal.SIGTERM
            return super().answers(pictures, prompts)

    model = Stopping()
    with pytest.raises(Stopped, match="SIGTERM"):
        describe([images], model, output, stop=stop)
    described = {line["id"] for line in lines(output)}
    assert 0 < len(described) < COUNT
    assert described == {id for call in model.calls for id in call}


def test_what_stops_all_stops_at_once(images, tmp_path):
    class Gone(Echo):
        def answers(self, pictures, prompts):
            if len(self.calls) > 6:
                raise UserError("http://x: no server answers there")
            return super().answers(pictures, prompts)

    model = Gone()
    with pytest.raises(UserError, match="no server answers"):
        describe([images], model, tmp_path / "descriptions.jsonl")
    assert model.closed
    assert 0 < len(lines(tmp_path / "descriptions.jsonl")) < COUNT
