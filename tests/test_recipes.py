"""The paper's recipes in configs/: what they say, their schedules, and two steps of each with a small network."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_data import make_data_set
from tqdm import tqdm

from mindspore_gpt4image.config import differences, load_config, to_dict
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.grid import read_grid
from mindspore_gpt4image.models import factory, weights
from mindspore_gpt4image.models.convnext import ConvNeXt
from mindspore_gpt4image.models.resnet import BasicBlock, Bottleneck, ResNet
from mindspore_gpt4image.models.vit import VisionTransformer
from mindspore_gpt4image.signals import StopRequest
from mindspore_gpt4image.training.loop import train_epoch
from mindspore_gpt4image.training.schedule import learning_rate, scaled_lr
from mindspore_gpt4image.training.setup import set_up

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
RECIPES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.glob("*/*/*.yaml"))
GRIDS = sorted(CONFIGS.glob("ablation/table*.yaml"))
IMAGES = {"imagenet": 1281167, "cifar10": 50000, "cifar100": 50000}
# Tables 1 and 2: baseline, with texts.
PAPER = {
    "imagenet/resnet50": (76.3, 76.7),
    "imagenet/convnext_tiny": (82.1, 82.4),
    "imagenet/convnext_small": (83.1, 83.4),
    "imagenet/convnext_base": (83.8, 84.0),
    "imagenet/deit_small": (79.8, 80.1),
    "imagenet/deit_base": (81.8, 82.3),
    "cifar10/resnet18": (95.5, 95.7),
    "cifar100/resnet18": (75.4, 75.8),
}
# Images a step over all ranks, peak, warm-up's start, last value's limit, epochs.
SCHEDULES = {
    "imagenet/resnet50": (1024, 0.4, None, 1e-5, 120),
    "imagenet/convnext": (4096, 4e-3, 0, 1e-6, 300),
    "imagenet/deit": (1024, 1e-3, 1e-6, 1e-5, 300),
    "cifar": (128, 0.1, None, 0, 200),
}
# Of the same families.
SMALL = {
    **{f"convnext_{size}": partial(ConvNeXt, (1, 1, 1, 1), (8, 8, 16, 16)) for size in ("tiny", "small", "base")},
    "resnet50": partial(ResNet, Bottleneck, (1, 1, 1, 1), width=4),
    "resnet18_cifar": partial(ResNet, BasicBlock, (1, 1, 1, 1), width=4, stem=(3, 1), max_pool=False),
}
SMALL_TRANSFORMERS = {
    name: partial(VisionTransformer, dim=16, heads=2, depth=2) for name in ("deit_small", "deit_base")
}
# In the inner loop; the others compile as long.
QUICK = {"imagenet/convnext_small/paper.yaml", "imagenet/deit_base/released.yaml"}


def head(path):
    return "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))


def expected(recipe, table):
    return next(values for start, values in table.items() if recipe.startswith(start))


def test_every_network_has_its_arms():
    arms = {name: {"baseline", "paper"} for name in PAPER}
    arms["imagenet/resnet50"].add("released")
    arms["imagenet/deit_base"].add("released")
    found = {}
    for recipe in RECIPES:
        folder, arm = recipe.rsplit("/", 1)
        found.setdefault(folder, set()).add(arm[: -len(".yaml")])
    assert found == arms


@pytest.mark.parametrize("recipe", RECIPES)
def test_heads(recipe):
    """The table and its number, the command, one useful override that is one, and what was not run."""
    text = head(CONFIGS / recipe)
    baseline, aligned = expected(recipe, PAPER)
    table = 1 if recipe.startswith("imagenet") else 2
    assert f"Table {table}" in text
    assert f"{baseline if 'baseline' in recipe else aligned}%" in text
    assert re.search(
        rf"^# Run: DEVICE=Ascend bash tools/run_distribute_train.sh -n \d+ --config configs/{recipe}$", text, re.M
    )
    (useful,) = re.findall(r"^# Useful override: (.*)$", text, re.M)
    overrides = re.findall(r"\S+=\S+", useful)
    assert overrides
    assert differences(to_dict(load_config(CONFIGS / recipe)), to_dict(load_config(CONFIGS / recipe, overrides)))
    assert "# Not run at this scale by us." in text


def test_the_readme_quotes_the_paper():
    rows = re.findall(r"\| (\d\d\.\d) \| (\d\d\.\d)[^|]*\| `configs/([\w/]+)/`", (ROOT / "README.md").read_text())
    assert {folder: (float(baseline), float(aligned)) for baseline, aligned, folder in rows} == PAPER


@pytest.mark.parametrize("network", PAPER)
def test_arms_differ_in_the_alignment_alone(network):
    baseline, paper = (to_dict(load_config(CONFIGS / network / f"{arm}.yaml")) for arm in ("baseline", "paper"))
    assert set(differences(baseline, paper)) == {
        "output",
        "data.descriptions",
        "data.embeddings",
        "loss.alignment",
        "loss.mask_same_text",
    }
    assert (paper["loss"]["alignment"], paper["loss"]["weight"], paper["loss"]["temperature"]) == ("infonce", 0.3, 0.5)
    assert paper["model"]["projection"] == "linear"
    assert paper["data"]["embeddings"] == f"{paper['data']['root']}/short.mindrecord"


@pytest.mark.parametrize(
    ("network", "weight", "temperature"), [("resnet50", 0.3 / 4, 0.2), ("deit_base", 0.3 / 8, 0.05)]
)
def test_released(network, weight, temperature):
    config = load_config(CONFIGS / "imagenet" / network / "released.yaml")
    assert config.loss.alignment == "clip"
    assert config.loss.weight == pytest.approx(weight)
    assert config.loss.temperature == temperature
    assert config.model.projection == "mlp"
    assert config.data.text == "long"
    assert not config.loss.mask_same_text


@pytest.mark.parametrize("recipe", RECIPES)
def test_schedules(recipe):
    """On the cluster of the file's command, over the whole training, once an epoch and at its last step."""
    config = load_config(CONFIGS / recipe)
    images, peak, first, minimum, epochs = expected(recipe, SCHEDULES)
    ranks = int(re.search(r"-n (\d+)", head(CONFIGS / recipe))[1])
    assert ranks * config.batch_size * config.accumulate == images
    assert config.epochs == epochs
    steps = IMAGES[recipe.split("/")[0]] // images
    rates = [
        learning_rate(
            step,
            steps_per_epoch=steps,
            epochs=epochs,
            peak=scaled_lr(config.optimizer.lr, images, config.optimizer.lr_reference_batch),
            warmup_epochs=config.schedule.warmup_epochs,
            warmup_lr=config.schedule.warmup_lr,
            min_lr=config.schedule.min_lr,
            by=config.schedule.by,
        )
        for step in [*range(0, epochs * steps, steps), epochs * steps - 1]
    ]
    assert rates[0] == (peak if first is None else first)
    assert max(rates) == pytest.approx(peak, rel=2e-3)  # timm's warm-up hides the cosine's very top
    assert minimum <= rates[-1] < minimum + 2e-4 * peak
    warmup = int(config.schedule.warmup_epochs)
    assert (np.diff(rates[:warmup]) > 0).all()
    assert (np.diff(rates[warmup:]) <= 0).all()


@pytest.mark.parametrize("recipe", ["imagenet/deit_base/paper.yaml", "imagenet/convnext_tiny/baseline.yaml"])
def test_fewer_epochs_than_warmup_are_refused_by_name(recipe):
    with pytest.raises(UserError, match=r"schedule.warmup_epochs=\d+.0 is more than epochs=1"):
        load_config(CONFIGS / recipe, ["epochs=1"])
    assert load_config(CONFIGS / recipe, ["epochs=1", "schedule.warmup_epochs=1"]).epochs == 1


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_grids_of_the_paper(path):
    """The table's values beside the baseline, three seeds each; `test_grid.py` resolves every run."""
    grid = read_grid(path)
    table, network = path.stem.split("_", 1)
    assert (
        grid.axes
        == {
            "table3": {"loss.weight": [0.1, 0.3, 0.5, 0.75, 1.0]},
            "table4": {"loss.temperature": [0.1, 0.3, 0.5, 0.75, 1.0, 1.5]},
            "table5": {"data.text": ["short", "long"]},
        }[table]
    )
    assert (grid.seeds, grid.reference) == ((0, 1, 2), "baseline")
    for run in grid.runs:
        config = run.config
        assert config.model.name == network
        assert config.loss.alignment == ("none" if run.arm == "baseline" else "infonce")
        assert config.data.embeddings == f"{config.data.root}/{config.data.text}.mindrecord"
    text = head(path)
    baseline, aligned = PAPER[f"imagenet/{network}"]
    assert f"Table {table[-1]}" in text
    assert f"{baseline}%" in text
    assert str(aligned) in text


def test_every_table_has_its_grids():
    assert [path.stem for path in GRIDS] == [
        *("table3_deit_base", "table3_resnet50", "table4_deit_base", "table4_resnet50"),
        *("table5_convnext_base", "table5_convnext_small", "table5_deit_base", "table5_resnet50"),
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """24 training images with texts: two steps of 12."""
    return make_data_set(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    "recipe", [recipe if recipe in QUICK else pytest.param(recipe, marks=pytest.mark.slow) for recipe in RECIPES]
)
def test_two_steps_with_a_small_network_of_the_family(recipe, data, tmp_path, monkeypatch):
    for name, network in SMALL.items():
        monkeypatch.setitem(factory._CONVOLUTIONAL, name, network)
    for name, network in SMALL_TRANSFORMERS.items():
        monkeypatch.setitem(factory._TRANSFORMERS, name, network)
    accumulate = load_config(CONFIGS / recipe).accumulate
    overrides = {
        "output": tmp_path,
        "data.root": data,
        "data.format": "folder",
        "data.text": "short",
        "data.workers": 1,
        "model.image_size": 32,
        "augment.eval_resize": 36,
        "batch_size": 12 // accumulate,
    }
    run = set_up(load_config(CONFIGS / recipe, [f"{key}={value}" for key, value in overrides.items()]))
    before = {name: parameter.asnumpy().copy() for name, parameter in weights(run.network).items()}
    train_epoch(run, tqdm(disable=True), StopRequest())
    means = run.progress.means(run.config.batch_size)
    assert (run.progress.step, run.progress.skipped) == (2, 0)
    assert np.isfinite(list(means.values())).all()
    assert (means["align"] > 0) == ("baseline" not in recipe)
    after = {name: parameter.asnumpy() for name, parameter in weights(run.network).items()}
    assert all(np.isfinite(value).all() for value in after.values())
    still = [name for name in before if (before[name] == after[name]).all()]
    assert still == []
