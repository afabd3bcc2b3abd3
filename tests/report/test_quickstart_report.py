"""The quickstart's report, written from run folders, and opened in a browser where there is one."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from run_folders import IDS, make_run
from tiny_data import make_images, make_store

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.report import quickstart as module
from mindspore_gpt4image.report.embedding_map import project
from mindspore_gpt4image.report.gallery import gallery
from mindspore_gpt4image.report.quickstart import conclusions, read_quickstart, write_report
from mindspore_gpt4image.sources.formats import list_images

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def lay_out(tmp_path, baseline=(6, 7, 6), aligned=(9, 11, 10), control=(5, 7, 6)):
    """A data set and a quickstart's folder; how many of the twelve test images the seeds of each arm get right."""
    data, folder = tmp_path / "data", tmp_path / "out"
    ids = [id for split, count in (("train", 4), ("val", 2), ("test", 4)) for id in make_images(data, split, count)]
    store = make_store(data, ids)
    (data / "ATTRIBUTION.md").write_text("# Where it comes from\n\n- By <nobody>, [CC0](https://example.org).\n")
    for arm, counts in (("baseline", baseline), ("aligned", aligned), ("control", control)):
        for seed, right in enumerate(counts):
            run = make_run(folder / arm / f"seed{seed}", arm, seed, right, root=data)
            config = run / "config.yaml"
            config.write_text(config.read_text().replace("short.mindrecord", str(store)))
    (folder / "export").mkdir()
    (folder / "export" / "emoji.mindir").write_bytes(b"x" * 1_500_000)
    return folder, data


def runs_of(folder):
    return sorted(path.parent for path in folder.glob("*/seed*/config.yaml"))


def test_report_from_the_command_line(tmp_path):
    folder, data = lay_out(tmp_path)
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "mindspore_gpt4image.report.quickstart",
            folder,
            "--data",
            data,
            "--runs",
            *runs_of(folder),
        ],
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0] == "Alignment helps: aligned is better than the baseline."
    assert result.stdout.splitlines()[-1] == f"report: {folder}/report.md, {folder}/report.html"
    text = (folder / "report.md").read_text()
    for part in (
        "**Alignment helps: aligned is better than the baseline.**",
        "- Better: aligned minus baseline is +30.56 points",
        "nothing was chosen on the test split",
        "12 emoji in one of two art styles to learn from, 6 (val) and 12 (test)",
        "| baseline |  50.00 |  58.33 |  50.00 |     52.78 ± 4.81 |",
        "1,234,567",
        f"exported classifier (1.5 MB) and its preprocessing and class names | `{folder}/export/emoji.mindir`",
        "python tools/encode.py --descriptions data/photos/descriptions.jsonl",
    ):
        assert part in text
    for name in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert len(re.findall(r"!\[", text)) == 2


@pytest.mark.parametrize(
    ("aligned", "sentence"),
    [
        ((9, 11, 10), "Alignment helps: aligned is better than the baseline."),
        ((3, 4, 4), "Alignment does not help here: aligned is worse than the baseline."),
        (
            (6, 8, 5),
            "Alignment does not help here, as far as these seeds tell: no difference to the baseline is measurable.",
        ),
        ((9,), "Whether alignment helps cannot be told from these seeds."),
    ],
)
def test_the_first_sentence_says_whether_alignment_helps(tmp_path, aligned, sentence):
    folder, data = lay_out(tmp_path, aligned=aligned)
    said = conclusions(read_quickstart(folder, data, runs_of(folder)).comparison)
    assert said[0] == sentence
    assert said[2] == (
        f"Shown a test picture, the aligned network has its text among its best ten in "
        f"{'40.00' if len(aligned) == 1 else '40.00 ± 0.00'}% of cases (chance: 20.00%); "
        "the baseline cannot look for texts at all."
    )


def test_every_outcome_has_its_words():
    outcomes = {"better", "worse", "none", "undecided"}
    assert set(module._HELPS) == set(module._CONTENT) == outcomes


def test_says_what_is_missing(tmp_path):
    folder, data = lay_out(tmp_path)
    (folder / "export" / "emoji.mindir").unlink()
    with pytest.raises(UserError) as caught:
        read_quickstart(folder, data, runs_of(folder))
    assert str(caught.value) == (
        f"{folder}/export: holds no exported model; make it: python tools/export.py "
        f"--checkpoint {folder}/aligned/seed0 --output {folder}/export/aligned.mindir"
    )
    shutil.rmtree(folder / "control")
    with pytest.raises(UserError, match="each of baseline, aligned, control; given: baseline; aligned$"):
        read_quickstart(folder, data, runs_of(folder))


def test_refuses_runs_of_several_experiments(tmp_path):
    folder, data = lay_out(tmp_path)
    make_run(folder / "baseline" / "seed3", "baseline", 3, 6, epochs=1, root=data)
    with pytest.raises(UserError, match="given: baseline, epochs=2; baseline, epochs=1; aligned; control$"):
        read_quickstart(folder, data, runs_of(folder))


def test_the_gallery_shows_what_each_arm_said(tmp_path):
    """Of the twelve images in order, baseline has the first 6 right, aligned the first 9, control the first 5."""
    folder, data = lay_out(tmp_path)
    comparison = read_quickstart(folder, data, runs_of(folder)).comparison
    shown = gallery(comparison, list_images(data, "test"), {"test/green/02.png": "a text"})
    everything, aligned_alone, baseline_alone = (part["cards"] for part in shown["parts"])
    assert shown["seed"] == 0
    assert [card["id"] for card in everything] == IDS
    assert [card["id"] for card in aligned_alone] == ["test/green/02.png", "test/green/03.png", "test/red/00.png"]
    assert baseline_alone == []
    assert (aligned_alone[0]["class"], aligned_alone[0]["text"], aligned_alone[1]["text"]) == ("green", "a text", None)
    assert [(guess["arm"], guess["class"], guess["right"]) for guess in aligned_alone[0]["guesses"]] == [
        ("baseline", "red", False),
        ("aligned", "green", True),
        ("control", "red", False),
    ]
    assert aligned_alone[0]["guesses"][0]["percent"] == 60


def test_the_map_puts_similar_texts_together():
    random = np.random.default_rng(0)
    kinds = np.repeat([0, 1, 2], 20)
    rows = np.eye(8)[kinds] + 0.05 * random.standard_normal((60, 8))
    places = project(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    assert places.min() == 0 and places.max() == 1
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert np.mean(kinds[distances.argmin(axis=1)] == kinds) == 1


# Appended to the page: waits for its pictures, points at the first text on the map and leaves what happened behind.
PROBE = """
<script>
window.addEventListener("load", () => setTimeout(() => {
  const canvas = document.querySelector(".map canvas"), box = canvas.getBoundingClientRect();
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  for (let x = 0; x < canvas.clientWidth && !document.querySelector(".tip b"); x += 6)
    for (let y = 0; y < canvas.clientHeight && !document.querySelector(".tip b"); y += 6)
      canvas.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + x, clientY: box.top + y}));
  const result = document.createElement("pre");
  result.id = "probe";
  result.textContent = JSON.stringify({
    pictures: document.images.length,
    broken: [...document.images].filter((image) => !image.naturalWidth).length,
    drawn: pixels.some((value) => value > 0),
    tip: document.querySelector(".tip").innerText,
  });
  document.body.append(result);
}, 500));
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_in_a_browser(tmp_path):
    folder, data = lay_out(tmp_path)
    write_report(read_quickstart(folder, data, runs_of(folder)))
    page = tmp_path / "probe.html"
    page.write_text((folder / "report.html").read_text() + PROBE)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--window-size=1200,3000", "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom"]
    result = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in result.stderr
    found = json.loads(re.search(r'<pre id="probe">(.*?)</pre>', result.stdout)[1])
    # Two figures, all 12 test images, and the 3 that aligned alone has right.
    assert (found["broken"], found["drawn"]) == (0, True)
    assert found["pictures"] == 2 + 12 + 3
    assert re.search(r"text \d+", found["tip"]) and "train/" in found["tip"]
