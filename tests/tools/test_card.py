"""The command line of tools/card.py: a card is made where neither MindSpore nor PyTorch is, and looked at."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from blocked import run_without_frameworks
from tiny_data import CLASSES, make_images

from mindspore_gpt4image.data.store import write_store
from mindspore_gpt4image.sources.descriptions import file_sha256, write_descriptions

CARD = Path(__file__).parents[2] / "tools" / "card.py"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def card(*arguments):
    return run_without_frameworks(CARD, *arguments, timeout=300)


def write_stores(root, rows, seed=0):
    """Stores of the short and of the long texts of `rows`, which lie near a direction of their class."""
    random = np.random.default_rng(seed)
    stores = []
    for key, tokens in (("short", [[4, len(rows) - 1], [90, 1]]), ("long", [[60, len(rows)]])):
        labels = [list(CLASSES).index(row["id"].split("/")[1]) for row in rows]
        vectors = np.eye(8)[labels] + 0.1 * random.standard_normal((len(rows), 8))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        made_from = {"encoder": "clip", "text": key, "truncated": 1 / len(rows), "context_length": 77, "tokens": tokens}
        made_from["descriptions_sha256"] = file_sha256(root / "descriptions.jsonl")
        stores.append(root / f"{key}.mindrecord")
        write_store(stores[-1], [row["id"] for row in rows], range(len(rows)), vectors, made_from)
    return stores


@pytest.fixture
def described(tmp_path):
    """A data set of 24 images with short and long texts, and both stores."""
    root = tmp_path / "data"
    ids = make_images(root, "train", 8)
    rows = [
        {"id": id, "short": f"a {id.split('/')[1]} field {n}", "long": f"The image shows <b>field {n}</b>. " * 3}
        for n, id in enumerate(ids)
    ]
    rows[5]["short"] = rows[4]["short"]
    write_descriptions(root / "descriptions.jsonl", rows)
    return root, write_stores(root, rows)


def test_a_card_of_two_sets(described, tmp_path):
    root, stores = described
    answer = card("--descriptions", root / "descriptions.jsonl", "--embeddings", *stores, "--output", tmp_path / "card")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "| nearest class is the right one              | 100.0% | 100.0% |" in answer.stdout
    short, long = json.loads((tmp_path / "card" / "card.json").read_text())["sets"]
    assert (short["text"], short["images"], short["distinct_texts"], short["classes"]) == ("short", 24, 23, 3)
    assert short["share_of_images_that_share_their_text"] == pytest.approx(2 / 24)
    assert (short["words"]["mean"], long["words"]["mean"]) == (4, 15)
    assert short["share_that_names_its_class"] == 1 and long["share_that_names_its_class"] == 0
    assert (short["share_that_repeats_itself"], long["share_that_repeats_itself"]) == (0, 1)
    assert short["tokens"]["max"] == 90 and short["share_cut"] == pytest.approx(1 / 24)
    assert (short["nearest_class_accuracy"], short["nearest_class_chance"]) == (1, pytest.approx(1 / 3))
    assert short["embeddings"]["file"] == str(stores[0])
    page = (tmp_path / "card" / "card.html").read_text()
    assert "&lt;b&gt;field" in page and "<b>field" not in page
    assert len(re.findall('class="map-view"', page)) == 2
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_a_card_without_store_images_or_classes(tmp_path):
    file = tmp_path / "captions.jsonl"
    write_descriptions(file, [{"id": f"train/{n:05d}", "short": f"caption {n}"} for n in range(5)])
    answer = card("--descriptions", file, "--output", tmp_path / "card")
    assert (answer.returncode, answer.stderr) == (0, "")
    (found,) = json.loads((tmp_path / "card" / "card.json").read_text())["sets"]
    assert (found["images"], found["classes"], found["share_that_names_its_class"]) == (5, 0, None)
    assert "nearest_class_accuracy" not in found
    assert "map-view" not in (tmp_path / "card" / "card.html").read_text()


def test_a_store_of_other_texts(described, tmp_path):
    root, stores = described
    with (root / "descriptions.jsonl").open("a") as file:
        file.write('{"id": "train/red/99.png", "short": "x", "long": "y"}\n')
    answer = card(
        "--descriptions", root / "descriptions.jsonl", "--embeddings", stores[0], "--output", tmp_path / "card"
    )
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"error: {stores[0]}: was made from 'short' texts with the hash ")
    assert answer.stderr.count("\n") == 1
    assert not (tmp_path / "card").exists()


# Appended to the page: waits for its pictures, points at the first text on each map and leaves what happened behind.
PROBE = """
<script>
window.addEventListener("load", () => setTimeout(() => {
  const tips = [...document.querySelectorAll(".map-view")].map((view) => {
    const canvas = view.querySelector("canvas"), box = canvas.getBoundingClientRect();
    for (let x = 0; x < canvas.clientWidth && !view.querySelector(".tip b"); x += 6)
      for (let y = 0; y < canvas.clientHeight && !view.querySelector(".tip b"); y += 6)
        canvas.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + x, clientY: box.top + y}));
    return view.querySelector(".tip").innerText;
  });
  const result = document.createElement("pre");
  result.id = "probe";
  const broken = [...document.images].filter((image) => !image.naturalWidth).length;
  result.textContent = JSON.stringify({pictures: document.images.length, broken, tips});
  document.body.append(result);
}, 500));
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_in_a_browser(described, tmp_path):
    root, stores = described
    card("--descriptions", root / "descriptions.jsonl", "--embeddings", *stores, "--output", tmp_path / "card")
    page = tmp_path / "probe.html"
    page.write_text((tmp_path / "card" / "card.html").read_text() + PROBE)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--window-size=1200,3000", "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom"]
    result = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in result.stderr
    found = json.loads(re.search(r'<pre id="probe">(.*?)</pre>', result.stdout)[1])
    # The figure; of each set the clearest and the least clear text of each of three classes and the six longest; of
    # the long texts, which all repeat themselves, six more.
    assert (found["pictures"], found["broken"]) == (1 + 2 * (6 + 6) + 6, 0)
    assert "field" in found["tips"][0] and "The image shows" in found["tips"][1]
