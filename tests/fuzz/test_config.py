"""Whatever is written in a config or on the command line: an experiment, or one line that says why not."""

import math

import pytest
import yaml
from damage import SCALARS, TEXT, VALUES, cases, changed, damaged
from hypothesis import example, given
from hypothesis import strategies as st

from mindspore_gpt4image.config import load_config, options, save_config, to_dict
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.grid import read_grid

KEYS = [key for key, _ in options()]
GOOD = {
    "output": "o",
    "data": {"root": "d", "embeddings": "s.mindrecord"},
    "optimizer": {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.99]},
    "augment": {"mean": [0.5, 0.5, 0.5], "mixup": 0.8},
    "clip_norm": None,
}
# Texts that mean something to YAML or to OmegaConf.
SNIPPETS = st.sampled_from(
    [
        *("${output}", "${data.root}", "${loss.weight}", "${oc.env:NOWHERE}", "${oc.create:[1]}", "${", "$", "???"),
        *("&a [*a]", "&a {b: *a}", "*a", "<<: 1", "!!python/object/apply:os.system [touch hostile]", "!!set {a}"),
        *(
            "!!timestamp a",
            "!!int ''",
            "!!float ''",
            "!!bool a",
            "!!binary a",
            "!!omap [a: 1]",
            "? [a]",
            '"\\UFFFFFFFF"',
        ),
        *(
            "1:" * 200 + "1.5",
            "0x",
            "1_0",
            ".inf",
            ".nan",
            "1e400",
            "2024-01-01",
            "2024-13-45",
            "[" * 500,
            "{a: " * 400,
        ),
        *("%YAML 9.9", "---\na\n---", "\t", '"\\0"', "٣", "~", "yes", "on", "1e-3"),
    ]
)


def outcome(path, overrides=()):
    """The experiment, or None and one line that was said."""
    try:
        config = load_config(path, overrides)
    except UserError as error:
        assert str(error).strip()
        return None
    # What was read can be saved, and is then read as the same.
    save_config(config, path.with_name("saved.yaml"))
    assert to_dict(load_config(path.with_name("saved.yaml"))) == to_dict(config)
    return config


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where "hostile" would appear
    yield tmp_path / "config.yaml"
    assert not (tmp_path / "hostile").exists()


@cases(40, 600)
@given(text=st.one_of(damaged(yaml.safe_dump(GOOD).encode()), TEXT.map(lambda text: text.encode(errors="replace"))))
def test_texts(path, text):
    path.write_bytes(text)
    outcome(path)


@cases(30, 400)
@given(tree=changed(GOOD), key=st.sampled_from(KEYS), value=st.one_of(VALUES, SNIPPETS))
def test_trees(path, tree, key, value):
    path.write_text(yaml.safe_dump({**tree, key: value}), encoding="utf-8")
    outcome(path)


@cases(30, 400)
@given(key=st.sampled_from([*KEYS, "base", "loss", "data.x"]), value=st.one_of(SNIPPETS, TEXT, SCALARS.map(str)))
@example(key="base", value='"a\\0b"')
@example(key="optimizer.betas", value="&a [1, 2]\n\noutput: *a")
def test_values_as_they_are_typed(path, key, value):
    path.write_text(
        f"output: o\ndata.root: d\nloss.alignment: none\n{key}: {value}\n", encoding="utf-8", errors="replace"
    )
    outcome(path)
    path.write_text("output: o\ndata: {root: d}\nloss: {alignment: none}\n")
    outcome(path, [f"{key}={value}"])


@cases(30, 400)
@given(item=st.sampled_from(list(options())), value=st.one_of(SCALARS, st.floats(0, 2), st.integers(0, 99)))
def test_what_is_accepted_is_what_was_written(path, item, value):
    key, _ = item
    path.write_text("output: o\ndata: {root: d}\nloss: {alignment: none}\n")
    config = outcome(path, [f"{key}={yaml.safe_dump(value)}"])
    if config is None:
        return
    found = config
    for name in key.split("."):
        found = getattr(found, name)
    if isinstance(found, (bool, type(None), list)):
        assert found == value or str(value).lower() in (
            str(found).lower(),
            "1",
            "0",
            "yes",
            "no",
            "on",
            "off",
            "y",
            "n",
        )
    elif isinstance(found, str):
        assert (
            found == (str(value).lower() if isinstance(value, bool) else str(value))
            or "$" in found
            or found == str(value)
        )
    else:
        assert math.isclose(found, float(value))


@cases(10, 300)
@given(tree=changed({"config": "config.yaml", "output": "g", "seeds": [1, 2], "arms": {"a": {"seed": 1}, "b": None}}))
def test_grids(path, tree):
    path.write_text(yaml.safe_dump(GOOD))
    grid = path.with_name("grid.yaml")
    grid.write_text(yaml.safe_dump(tree), encoding="utf-8")
    try:
        read_grid(grid)
    except UserError as error:
        assert str(error).strip()


@pytest.mark.parametrize("whole", ["[{}]", "{{{}}}"])
def test_a_few_lines_that_stand_for_billions_of_values(path, whole):
    parts = ["a: &a {x: 1, y: 2}", *(f"{b}: &{b} {{x: *{a}, y: *{a}}}" for a, b in zip("abcdefghij", "bcdefghijk"))]
    text = whole.format(", ".join(parts if whole == "{{{}}}" else (f"{{{part}}}" for part in parts)))
    path.write_text(f"output: {text}\n")
    repeated = r"no valid YAML \(\*a repeats a list or mapping, write it out\)"
    with pytest.raises(UserError, match=f"config.yaml:1: {repeated}"):
        load_config(path)
    path.write_text("")
    with pytest.raises(UserError, match=repeated):
        load_config(path, [f"output={text}"])
