"""A grid of experiments: named arms and products of option values, each with several seeds, each run a process."""

from __future__ import annotations

import difflib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

import yaml
from tqdm import tqdm

from mindspore_gpt4image.config import Config, ConfigError, Entry, compose_yaml, load_config, walk_yaml
from mindspore_gpt4image.data.store import EmbeddingStore
from mindspore_gpt4image.errors import Stopped, UserError
from mindspore_gpt4image.runs import Run, finished_summary, read_run, shown
from mindspore_gpt4image.signals import SIGNALS, end_with_parent, exit_code

TOOLS = Path(__file__).parents[1] / "tools"
LOG = "log.txt"
# What a grid file may hold, and what is read where it is left out.
KEYS = {"config": None, "output": None, "seeds": None, "split": "val", "reference": None, "ranks": 1}
SECTIONS = ("options", "arms", "grid")


@dataclass(frozen=True)
class Arm:
    """One experiment of a grid: its name, and what it changes in the grid's config.

    Attributes:
        in_product: whether it is a combination of the product's values, and no named arm.
    """

    name: str
    entries: tuple[Entry, ...]
    in_product: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """What it changes, by dotted key."""
        return {entry.key: entry.value for entry in self.entries}

    @property
    def folder_name(self) -> str:
        return re.sub(r"[^\w.=+-]+", "_", self.name)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a grid: an arm with a seed, and the arguments of `tools/train.py` that make it."""

    arm: str
    seed: int
    config: Config
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.arm}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        return Path(self.config.output)


@dataclass(frozen=True)
class Failure:
    """A run that did not end well: why, in one line, and where all it said lies."""

    run: PlannedRun
    reason: str
    log: Path


@dataclass(frozen=True)
class Grid:
    """A grid file, checked.

    Attributes:
        path: the file.
        output: folder of the runs and of the report.
        split: the arms are compared on it.
        reference: name of the arm that the others are compared with.
        axes: dotted keys of the product and their values.
        runs: seed by seed, so that a grid that is stopped early has pairs to show.
        ranks: processes of this machine that train one run together.
    """

    path: Path
    output: Path
    split: str
    seeds: tuple[int, ...]
    reference: str
    arms: tuple[Arm, ...]
    axes: Mapping[str, Sequence[Any]]
    runs: tuple[PlannedRun, ...]
    ranks: int


def read_grid(path: str | Path) -> Grid:
    """Read a grid file and check every run it asks for.

    The file holds `config` (relative to it) and `output`, `seeds`, `split` (default: val), `options` (what all runs
    change in the config), `arms` (name to options), `grid` (option to values, of which all combinations are run),
    `reference` (an arm; default: the first one) and `ranks` (default: 1).

    Raises:
        UserError: unreadable file, or unknown keys, wrong values and impossible combinations: all of them at once, each
            with its file and line.
    """
    path = Path(path)
    faults: list[str] = []
    keys, sections = _read_file(path, faults)
    common = walk_yaml(sections["options"], "", path, faults) if "options" in sections else []
    axes = _axes(sections.get("grid"), path, faults)
    arms = [*_named_arms(sections.get("arms"), path, faults), *_product(axes)]
    names = [arm.name for arm in arms]
    for arm, other in itertools.combinations(arms, 2):
        if arm.folder_name == other.folder_name:
            faults.append(f"{path}: arms {arm.name!r} and {other.name!r} would have the same folder, rename one")
    for arm in arms:
        if not re.search(r"\w", arm.folder_name):
            faults.append(f"{path}: arm {arm.name!r} needs a name with a letter or digit, it names a folder")
    for entry in itertools.chain(common, *(arm.entries for arm in arms)):
        if entry.key in ("seed", "output"):
            faults.append(f"{entry.where}: {entry.key} is set by the grid's own `seeds` and `output`")
    if names and keys["reference"] not in (None, *names):
        faults.append(f"{path}: reference: there is no arm {keys['reference']!r}; arms are {', '.join(names)}")
    runs = [] if faults else _plan(path, keys, common, arms, faults)
    if faults:
        # Each run that has a fault tells it.
        raise ConfigError(list(dict.fromkeys(faults)))
    return Grid(
        path,
        Path(keys["output"]),
        keys["split"],
        tuple(keys["seeds"]),
        keys["reference"] or names[0],
        tuple(arms),
        {axis.key: axis.value for axis in axes},
        tuple(runs),
        keys["ranks"],
    )


def run_grid(grid: Grid) -> list[Failure]:
    """Train and evaluate what is not finished yet, one run after the other; a failed run does not keep the rest.

    Raises:
        Stopped: SIGINT or SIGTERM came; the present run has saved its state.
    """
    failures = []
    bar = tqdm(total=len(grid.runs), desc=grid.output.name, unit="run", dynamic_ncols=True)
    with _Child() as child, bar:
        for run in grid.runs:
            bar.set_postfix_str(run.name)
            if finished(run, grid.split) is None:
                started = time.monotonic()
                failure = _make(run, grid, child)
                if failure:
                    failures.append(failure)
                    bar.write(f"{run.name}: failed: {failure.reason}", file=sys.stderr)
                else:
                    top1 = read_run(run.folder, grid.split).evaluation["top1"]
                    seconds = time.monotonic() - started
                    bar.write(f"{run.name}: {grid.split} top-1 {top1:.2f}% ({seconds:.0f} s)", file=sys.stderr)
            bar.update()
    return failures


def finished(run: PlannedRun, split: str) -> Optional[Run]:
    """The run with its evaluation, if both are there and of this very experiment."""
    if finished_summary(run.config) is None:
        return None
    try:
        return read_run(run.folder, split)
    except UserError:
        return None


class _Child:
    """The process of the present step: gets the signals that stop the grid, and ends with it.

    It leads a session of its own, so that Ctrl-C reaches it through here, and once.
    """

    def __init__(self):
        self.process: Optional[subprocess.Popen] = None
        self.stopped_by: Optional[int] = None

    def __enter__(self) -> _Child:
        self._handlers = {signum: signal.signal(signum, self._forward) for signum in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)

    def _forward(self, signum: int, _: object) -> None:
        print(f"\n{signal.Signals(signum).name}: the present run stops after its step", file=sys.stderr, flush=True)
        self.stopped_by = signum
        if self.process and self.process.poll() is None:
            self.process.send_signal(signum)

    def run(self, command: Sequence[str], log: Path) -> int:
        """Run to the end with all output appended to `log`; the exit status, or 128 + n if signal n ended it."""
        if self.stopped_by:
            raise Stopped(self.stopped_by)
        with log.open("a", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A grid that is killed and started again would find the folder of its run in use.
                preexec_fn=partial(end_with_parent, signal.SIGTERM),
                # A progress bar in a file need not move ten times a second.
                env={**os.environ, "TQDM_MININTERVAL": "10"},
            )
        status = self.process.wait()
        if self.stopped_by:
            raise Stopped(self.stopped_by)
        return exit_code(status)


def _make(run: PlannedRun, grid: Grid, child: _Child) -> Failure | None:
    """Train and evaluate one run."""
    log = run.folder / LOG
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        said_before = log.stat().st_size if log.exists() else 0
        for command in _commands(run, grid.split, grid.ranks):
            status = child.run(command, log)
            if status:
                return Failure(run, _reason(log, said_before, status), log)
    except UserError as error:
        return Failure(run, str(error), log)
    except OSError as error:
        raise UserError(f"{log}: cannot be written ({error.strerror})") from error
    return None


def _commands(run: PlannedRun, split: str, ranks: int) -> Iterator[list[str]]:
    """Of training, and then of the evaluation, with the texts of the split where there are some."""
    launcher = ["-m", "mindspore_gpt4image.launch", "-n", str(ranks)]
    yield [sys.executable, *(launcher if ranks > 1 else [str(TOOLS / "train.py")]), *run.arguments]
    embeddings = []
    if run.config.loss.alignment != "none":
        store = run.config.data.embeddings
        if store and any(id.startswith(f"{split}/") for id in EmbeddingStore.open(store).ids):
            embeddings = ["--embeddings", store]
    yield [
        *(sys.executable, str(TOOLS / "eval.py"), "--checkpoint", str(run.folder), "--split", split),
        *("--device", run.config.device, *embeddings, "--json", str(run.folder / f"eval-{split}.json")),
    ]


def _reason(log: Path, begin: int, status: int) -> str:
    """Why a process failed: its error line, or the last thing it said."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = [line.strip() for line in re.split(r"[\r\n]+", file.read().decode(errors="replace")) if line.strip()]
    if status > 128 and status - 128 in {signum.value for signum in signal.Signals}:
        return f"ended by {signal.Signals(status - 128).name}"
    said = [line[len("error: ") :] for line in lines if line.startswith("error: ")] or lines or ["it said nothing"]
    return f"{said[-1]} (exit {status})"


def _read_file(path: Path, faults: list[str]) -> tuple[dict[str, Any], dict[str, yaml.MappingNode]]:
    """The values of `KEYS`, and the nodes of `SECTIONS` that are there."""
    root = compose_yaml(path)
    keys = dict(KEYS)
    for entry in walk_yaml(root, "", path, faults) if root else ():
        name, dot, _ = entry.key.partition(".")
        if name in KEYS and not dot:
            keys[name] = entry.value
        elif name in SECTIONS:
            if not dot and entry.value != {}:
                faults.append(f"{entry.where}: {name} must be a mapping")
        else:
            near = difflib.get_close_matches(name, [*KEYS, *SECTIONS], n=1)
            faults.append(f"{entry.where}: unknown key {entry.key}" + (f", did you mean {near[0]}?" if near else ""))
    nodes = root.value if root else ()
    sections = {key.value: node for key, node in nodes if key.value in SECTIONS and isinstance(node, yaml.MappingNode)}
    faults += [f"{path}: {fault}" for fault in _faults_of_keys(keys)]
    if not any(section in sections for section in ("arms", "grid")):
        faults.append(f"{path}: arms or grid is required: what is to be compared")
    return keys, sections


def _faults_of_keys(keys: dict[str, Any]) -> Iterator[str]:
    for key, meaning in (("config", "file of the experiment"), ("output", "folder of the runs")):
        if not isinstance(keys[key], str):
            yield f"{key} is required: {meaning}"
    seeds = keys["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        yield "seeds is required: a list of whole numbers"
    elif len(set(seeds)) < len(seeds):
        yield f"seeds: one stands there twice: {seeds}"
    if type(keys["ranks"]) is not int or keys["ranks"] < 1:
        yield f"ranks: must be a whole number above 0, not {keys['ranks']}"
    if not isinstance(keys["split"], str):
        yield f"split: must be the name of a split, not {keys['split']}"


def _plan(
    path: Path, keys: dict[str, Any], common: Sequence[Entry], arms: Sequence[Arm], faults: list[str]
) -> list[PlannedRun]:
    config, runs = path.parent / keys["config"], []
    for seed, arm in itertools.product(keys["seeds"], arms):
        folder = Path(keys["output"]) / arm.folder_name / f"seed{seed}"
        entries = [
            *common,
            *arm.entries,
            Entry("seed", seed, f"{path}: seeds"),
            Entry("output", str(folder), f"{path}: output"),
        ]
        overrides = [f"{entry.key}={json.dumps(entry.value, default=str)}" for entry in entries]
        try:
            experiment = load_config(config, entries, f"{path}: {arm.name}")
        except ConfigError as error:
            faults += error.faults
        else:
            runs.append(PlannedRun(arm.name, seed, experiment, ("--config", str(config), *overrides)))
    return runs


def _named_arms(node: yaml.MappingNode | None, path: Path, faults: list[str]) -> Iterator[Arm]:
    for key, options in node.value if node else ():
        if isinstance(options, yaml.MappingNode):
            yield Arm(str(key.value), tuple(walk_yaml(options, "", path, faults)))
        elif options.tag == "tag:yaml.org,2002:null":
            yield Arm(str(key.value), ())
        else:
            faults.append(f"{path}:{key.start_mark.line + 1}: arm {key.value} must be a mapping of options")


def _axes(node: yaml.MappingNode | None, path: Path, faults: list[str]) -> list[Entry]:
    axes = walk_yaml(node, "", path, faults) if node else []
    for axis in axes:
        if not isinstance(axis.value, list) or not axis.value:
            faults.append(f"{axis.where}: {axis.key} must be a list of values")
            axis.value = []
    return axes


def _product(axes: Sequence[Entry]) -> Iterator[Arm]:
    """All combinations of the axes' values, the last axis running fastest."""
    for values in itertools.product(*(axis.value for axis in axes)) if axes else ():
        entries = tuple(Entry(axis.key, value, axis.where) for axis, value in zip(axes, values))
        yield Arm(", ".join(f"{entry.key}={shown(entry.value)}" for entry in entries), entries, in_product=True)
