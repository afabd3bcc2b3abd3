"""What somebody could put into a file to have it executed, written elsewhere, or shown as a part of a page.

Weights of PyTorch are in test_convert.py, test_import_texts.py and test_openai_clip.py, archives in test_cifar.py.
"""

import os
import sqlite3
from contextlib import closing
from html.parser import HTMLParser

import numpy as np
import pytest
from tiny_data import make_images, make_store

from mindspore_gpt4image import released
from mindspore_gpt4image.config import load_config
from mindspore_gpt4image.data import EmbeddingStore
from mindspore_gpt4image.data.store import write_store
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.evaluation.classification import Predictions
from mindspore_gpt4image.grid import read_grid
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.report.card import describe_sets
from mindspore_gpt4image.report.card_page import write_card
from mindspore_gpt4image.report.evaluation import write_evaluation_report
from mindspore_gpt4image.runs import read_run
from mindspore_gpt4image.sources.classes import read_classes
from mindspore_gpt4image.sources.descriptions import file_sha256, write_descriptions
from mindspore_gpt4image.sources.formats import list_images

CALLS = [
    "!!python/object/apply:os.system ['touch executed']",
    "!!python/object/new:os.system ['touch executed']",
    "!!python/name:os.system",
    "!!python/module:os",
]


@pytest.fixture(autouse=True)
def nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "executed").exists()


class Call:
    """Is unpickled by running a command."""

    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("text", ["{}", "output: {}", "{}: 1", "data: {{root: {}}}"])
def test_no_tag_of_yaml_is_obeyed(tmp_path, monkeypatch, text, call):
    file = tmp_path / "config.yaml"
    file.write_text(text.format(call) + "\n")
    monkeypatch.setattr(released, "FOLDER", tmp_path)
    (tmp_path / "manifest.yaml").write_text(text.format(call) + "\n")
    for read, named in (
        (lambda: load_config(file), "config.yaml"),
        (lambda: read_grid(file), "config.yaml"),
        (lambda: ModelInfo.load(file), "config.yaml"),
        (lambda: read_run(tmp_path), "config.yaml"),
        (released.read_manifest, "manifest.yaml"),
    ):
        with pytest.raises(UserError, match=named):
            read()
    assert read_classes(file) == (text.format(call),)
    file.write_text("")
    with pytest.raises(UserError, match="no valid YAML"):
        load_config(file, [f"output={text.format(call)}"])


def test_pickles_in_the_copies_of_a_store_and_of_images_are_not_loaded(tmp_path):
    ids = make_images(tmp_path, "train", 2)
    store = make_store(tmp_path, ids)
    EmbeddingStore.open(store)
    list_images(tmp_path, "train")
    hostile = np.array([Call()] * len(ids), object)
    (copy,) = tmp_path.glob(".short.mindrecord.cache-*")
    for name in ("ids", "order", "text_ids"):
        good = (copy / f"{name}.npy").read_bytes()
        np.save(copy / f"{name}.npy", hostile, allow_pickle=True)
        with pytest.raises(UserError, match="is damaged; delete the folder"):
            EmbeddingStore.open(store)
        (copy / f"{name}.npy").write_bytes(good)
    known = tmp_path / ".gpt4image" / "train.npz"
    assert known.exists()
    np.savez(known, ids=hostile, stamps=hostile, kind=hostile)
    assert list_images(tmp_path, "train").ids == ids  # looked at anew


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW INDEXES AS WITH RECURSIVE n(ROW_ID) AS (SELECT 0 UNION ALL SELECT ROW_ID + 1 FROM n) "
        "SELECT ROW_ID, '' AS id_0, 0 AS text_id_0, 0 AS PAGE_ID_BLOB, 0 AS PAGE_OFFSET_BLOB, "
        "0 AS PAGE_OFFSET_BLOB_END FROM n",
        "CREATE VIRTUAL TABLE INDEXES USING fts5(id_0)",
    ],
)
def test_an_index_that_never_ends_is_refused(tmp_path, statement):
    store = make_store(tmp_path, ["train/a/1.png", "train/a/2.png"])
    with closing(sqlite3.connect(f"{store}.db")) as database:
        database.execute("ALTER TABLE INDEXES RENAME TO OLD")
        database.execute(statement)
        database.commit()
    with pytest.raises(UserError, match="short.mindrecord: cannot be read, it is damaged"):
        EmbeddingStore.open(store)


class Page(HTMLParser):
    """What a page holds that acts: scripts, handlers, and addresses that are not within it."""

    def __init__(self, page):
        super().__init__()
        self.scripts, self.handlers, self.addresses = 0, [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script" and ("type", "application/json") not in attributes
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        addresses = [value for name, value in attributes if name in ("src", "href")]
        self.addresses += [address for address in addresses if not address.startswith("data:")]


TEXTS = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{ 7 * 7 }} ![a](http://a/b.png)"]


def check_page(page, scripts):
    found = Page(page)
    assert (found.scripts, found.handlers, found.addresses) == (scripts, [], [])
    assert "alert(1)" in page  # as a text
    assert "<script>alert" not in page


def test_texts_ids_and_classes_are_text_on_a_card(tmp_path):
    classes = ["<img src=x onerror=alert(1)>", "$\\frac$", "![a](http:)"]
    rows = [
        {"id": f"train/{name}/{number}\"'><b>.png", "short": f"{text} {number}"}
        for name, text in zip(classes, TEXTS)
        for number in range(4)
    ]
    write_descriptions(tmp_path / "a.jsonl", rows)
    vectors = np.random.default_rng(0).standard_normal((len(rows), 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made_from = {"encoder": TEXTS[0], "text": "short", "truncated": 0, "tokens": [[4, len(rows)]], "context_length": 77}
    made_from["descriptions_sha256"] = file_sha256(tmp_path / "a.jsonl")
    write_store(tmp_path / "a.mindrecord", [row["id"] for row in rows], range(len(rows)), vectors, made_from)
    write_card(tmp_path / "card", *describe_sets([tmp_path / "a.jsonl"], [tmp_path / "a.mindrecord"], None, None, None))
    check_page((tmp_path / "card" / "card.html").read_text(), scripts=1)


def test_classes_are_text_in_a_report(tmp_path):
    classes = ["<img src=x onerror=alert(1)>", "$\\frac$", "![a](http:)"]
    make_images(tmp_path, "test", 2)
    for old, new in zip(("blue", "green", "red"), classes):
        (tmp_path / "test" / old).rename(tmp_path / "test" / new)
    images = list_images(tmp_path, "test")
    best = np.array([[1, 0], [2, 0]] * 3, np.int32)
    predictions = Predictions(images, best, np.full((6, 2), 0.5, np.float32), np.zeros(6, np.float32))
    values = {"checkpoint": TEXTS[0], "data": "data", "split": "test", **predictions.to_dict()}
    write_evaluation_report(predictions, values, tmp_path / "report")
    check_page((tmp_path / "report" / "eval.html").read_text(), scripts=0)
