"""The experiment's options: files, overrides, and every fault told at once."""

from pathlib import Path

import pytest

from mindspore_gpt4image.config import (
    differences,
    help_text,
    load_config,
    options,
    parse_config,
    save_config,
    to_dict,
)
from mindspore_gpt4image.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"
BASELINE = ["data.root=d", "output=o", "loss.alignment=none"]


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def faults(path, overrides=()):
    with pytest.raises(UserError) as error:
        load_config(path, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_the_file_leaves_out_has_its_default(write):
    config = load_config(write("epochs: 7\nloss: {weight: 0.5}\n"), BASELINE)
    assert (config.epochs, config.loss.weight, config.loss.temperature) == (7, 0.5, 0.5)


def test_overrides_win_over_the_file_and_the_file_over_its_base(write):
    write("epochs: 1\nseed: 1\nbatch_size: 1\n", "base.yaml")
    path = write("base: base.yaml\nseed: 2\nbatch_size: 2\n")
    config = load_config(path, [*BASELINE, "batch_size=3"])
    assert (config.epochs, config.seed, config.batch_size) == (1, 2, 3)


def test_bases_that_lead_back_to_themselves_are_refused(write):
    write("base: config.yaml\n", "base.yaml")
    assert "leads back to itself" in faults(write("base: base.yaml\n"))


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "0.001", '"0.001"', "'1e-3'"])
def test_every_way_to_write_a_number_is_a_number(write, number):
    assert load_config(write(f"optimizer: {{lr: {number}}}\n"), BASELINE).optimizer.lr == 0.001
    assert load_config(write(""), [*BASELINE, f"optimizer.lr={number}"]).optimizer.lr == 0.001


@pytest.mark.parametrize("value", ["true", ".inf", ".nan", "fast", "[1]", "0", "-1"])
def test_what_is_no_learning_rate_is_refused_with_file_line_and_key(write, value):
    path = write(f"epochs: 1\noptimizer:\n  lr: {value}\n")
    assert f"{path}:3: optimizer.lr: " in faults(path, BASELINE)


def test_a_reference_that_leads_nowhere_is_refused(write):
    assert "'nope' not found" in faults(write("epochs: 1\n"), [*BASELINE, "loss.weight=${nope}"])


def test_all_faults_are_told_at_once(write):
    path = write("loss:\n  temprature: 0.1\nepochs: many\nmodel: {drop_path: 1.0}\n")
    text = faults(path, [*BASELINE, "seed=-1", "batch_size"])
    for fault in (
        f"{path}:2: unknown key loss.temprature, did you mean loss.temperature?",
        f"{path}:3: epochs: ",
        f"{path}:4: model.drop_path: must be below 1, not 1.0",
        "'seed=-1': seed: must be at least 0, not -1",
        "'batch_size': an override is written key=value",
    ):
        assert fault in text


def test_a_key_of_the_wrong_section_is_led_to_the_right_one(write):
    assert "unknown key lr, did you mean optimizer.lr?" in faults(write("lr: 1\n"), BASELINE)


def test_a_section_needs_its_keys(write):
    assert "loss is a section, write loss.<key>" in faults(write("loss: 3\n"), BASELINE)


def test_a_key_that_stands_twice_is_refused(write):
    path = write("epochs: 1\nseed: 2\nepochs: 3\n")
    assert f"{path}:3: epochs stands here for the second time" in faults(path, BASELINE)


@pytest.mark.parametrize("text", ["epochs:\t1\n\tseed: 2\n", "epochs: [1\n", "- 1\n", "!!python/object:os.system {}\n"])
def test_what_is_no_mapping_in_yaml_is_refused_with_the_file(write, text):
    path = write(text)
    assert str(path) in faults(path, BASELINE)


def test_a_missing_file_is_named(tmp_path):
    assert f"config {tmp_path / 'no.yaml'}: cannot be read" in faults(tmp_path / "no.yaml")


def test_a_missing_value_is_named_with_its_meaning(write):
    assert "data.root is required: folder of the data set" in faults(write(""), ["output=o", "loss.alignment=none"])


def test_a_date_is_the_name_of_a_folder(write):
    assert load_config(write("output: 2026-11-25\n"), ["data.root=2026-11-25", BASELINE[2]]).output == "2026-11-25"


def test_a_value_may_hold_an_equals_sign(write):
    assert load_config(write(""), ["data.root=a=b", *BASELINE[1:]]).data.root == "a=b"


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("loss.alignment=infonce", "data.embeddings is required by loss.alignment=infonce"),
        ("loss.alignment=byol", "must be one of infonce, clip, cosine, none, not byol"),
        ("schedule.warmup_epochs=91", "schedule.warmup_epochs=91.0 is more than epochs=90"),
        ("augment.eval_resize=200", "augment.eval_resize=200 is smaller than model.image_size=224"),
        ("augment.mean=[0.5,0.5]", "augment.mean must have 3 numbers"),
        ("augment.std=[0.5,0.5,0]", "augment.std: must be above 0, not 0.0"),
        ("augment.std=!!omap [a: 1]", "augment.std: must be a single value"),
        ("data.skip_broken=-1", "data.skip_broken: must be true or false, not -1"),
        (f"epochs={10**400}", "epochs: must be at most 2147483647"),
        (f"optimizer.lr={10**400}", "optimizer.lr: int too large to convert to float"),
        ("output=!!timestamp a", "the value is no valid YAML"),
        ("output=" + "[" * 2000, "the value is no valid YAML"),
        ("output={a: &a [1], b: *a}", "*a repeats a list or mapping, write it out"),
    ],
)
def test_values_that_cannot_work_are_refused(write, override, fault):
    assert fault in faults(write(""), [*BASELINE, override])


def test_a_saved_config_reads_back_the_same(write, tmp_path):
    config = load_config(write("optimizer: {lr: 5e-4, betas: [0.9, 0.95]}\n"), BASELINE)
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config
    assert parse_config(to_dict(config), "saved") == config


def test_differences_name_the_dotted_keys(write):
    one = to_dict(load_config(write(""), BASELINE))
    other = to_dict(load_config(write(""), [*BASELINE, "loss.weight=1", "seed=4"]))
    assert differences(one, other) == {"loss.weight": (0.3, 1.0), "seed": (0, 4)}


def test_help_names_every_option():
    text = help_text()
    assert all(f"\n  {key} (" in text for key, _ in options())


# Grids of configs are read in test_grid.py.
SHIPPED = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "ablation")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_shipped_config_resolves(path):
    load_config(path)


def test_there_are_shipped_configs():
    assert len(SHIPPED) >= 20
