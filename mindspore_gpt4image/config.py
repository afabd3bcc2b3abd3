"""The experiment as dataclasses: the only list of options there is.

A YAML file says what differs from these defaults, or from the file its `base` names; `key=value` on the command line
says what differs from the YAML. The sentence beside each option is its help text.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Optional

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mindspore_gpt4image import yaml_text
from mindspore_gpt4image.errors import UserError, first_line
from mindspore_gpt4image.files import atomic_write
from mindspore_gpt4image.sources.formats import FORMATS
from mindspore_gpt4image.sources.packed import is_packed

_LARGEST = 2**31 - 1  # of whole numbers


def option(default: Any, help: str, **limits: Any) -> Any:
    """A field with its help text and limits: choices, minimum and maximum (inclusive), above and below (exclusive)."""
    metadata = {"help": help, **limits}
    if isinstance(default, (list, type)):
        factory = default if isinstance(default, type) else lambda: list(default)
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class DataConfig:
    root: str = option(MISSING, "folder of the data set, with train/<class>/<image> and val/…; or CIFAR's archive")
    format: str = option("auto", "how the data set is stored; auto: told by what lies at data.root", choices=FORMATS)
    classes: Optional[str] = option(
        None, "file of class names, one a line, in the order of the labels; null: sorted names, CIFAR's own order"
    )
    embeddings: Optional[str] = option(
        None, "embedding store of the descriptions, made by tools/encode.py; null: what a packed data set holds"
    )
    descriptions: Optional[str] = option(None, "description set the store must have been made from (checked if given)")
    text: str = option("short", "which text of the description set the store must hold", choices=("short", "long"))
    missing_text: str = option(
        "error", "images without a text: refuse, or train them without", choices=("error", "skip")
    )
    skip_broken: bool = option(
        False, "an image that cannot be decoded: false stops and names it, true trains another in its place"
    )
    shuffle_texts: bool = option(False, "deal the texts to the wrong images: the control arm of a comparison")
    workers: int = option(2, "threads that read and augment images, on each rank", minimum=1)


@dataclass
class ModelConfig:
    name: str = option("resnet50", "backbone: one of ours, or any name of MindCV")
    projection: str = option("linear", "from image feature to text embedding", choices=("linear", "mlp"))
    image_size: int = option(224, "side of the square input in pixels", minimum=1)
    drop_path: float = option(0.0, "largest rate of stochastic depth (transformers and ConvNeXt)", minimum=0, below=1)
    pretrained: Optional[str] = option(None, "checkpoint to start from (file, run or released name)")


@dataclass
class LossConfig:
    alignment: str = option(
        "infonce",
        "infonce: image to text, Eq. 2; clip: both directions; cosine: 2 - 2 cos; none: the baseline",
        choices=("infonce", "clip", "cosine", "none"),
    )
    weight: float = option(0.3, "lambda of Eq. 3", minimum=0)
    temperature: float = option(0.5, "tau of Eq. 2", above=0)
    mask_same_text: bool = option(True, "rows with equal texts are not each other's negatives")
    label_smoothing: float = option(0.0, "smoothing of the cross-entropy's labels", minimum=0, below=1)


@dataclass
class OptimizerConfig:
    name: str = option("sgd", "optimizer", choices=("sgd", "adamw"))
    lr: float = option(0.1, "peak learning rate; see lr_reference_batch", above=0)
    lr_reference_batch: Optional[int] = option(
        None, "scale lr by (global batch / this); null: lr is absolute", minimum=1
    )
    weight_decay: float = option(1e-4, "weight decay", minimum=0)
    decay_norm_and_bias: bool = option(True, "decay every parameter; false: not biases, norms and other vectors")
    momentum: float = option(0.9, "momentum of sgd", minimum=0, below=1)
    nesterov: bool = option(False, "Nesterov momentum of sgd")
    betas: list[float] = option([0.9, 0.999], "betas of adamw", minimum=0, below=1)


@dataclass
class ScheduleConfig:
    by: str = option(
        "step",
        "step: the cosine falls with every step, from the end of the warm-up; "
        "epoch: with every epoch, from the start of the run, and the warm-up hides its beginning",
        choices=("step", "epoch"),
    )
    warmup_epochs: float = option(0.0, "linear warm-up, in epochs", minimum=0)
    warmup_lr: float = option(0.0, "learning rate the warm-up starts from", minimum=0)
    min_lr: float = option(0.0, "learning rate the cosine ends at", minimum=0)


@dataclass
class AugmentConfig:
    crop: str = option(
        "random_resized",
        "random_resized: an area of random size and shape; padded: shift by up to `padding` pixels; none: resize",
        choices=("random_resized", "padded", "none"),
    )
    min_area: float = option(0.08, "smallest share of the image's area that random_resized takes", above=0, maximum=1)
    padding: int = option(4, "pixels of padding on each side before a padded crop", minimum=0)
    fill: int = option(0, "grey level of that padding", minimum=0, maximum=255)
    flip: float = option(0.5, "probability of a horizontal flip", minimum=0, maximum=1)
    color_jitter: float = option(
        0.0, "largest relative change of brightness, contrast and saturation", minimum=0, maximum=1
    )
    rand_augment: Optional[str] = option(
        None, "RandAugment after crop and flip, in timm's notation: rand-m9-mstd0.5-inc1; null: none"
    )
    repeats: int = option(
        1, "repeated augmentation: copies of an image, one after the other, in an epoch of unchanged length", minimum=1
    )
    interpolation: str = option("bilinear", "in training and evaluation", choices=("bilinear", "bicubic"))
    erasing: float = option(0.0, "probability of filling a random box with noise", minimum=0, maximum=1)
    mixup: float = option(0.0, "alpha of mixup; 0: off", minimum=0)
    cutmix: float = option(0.0, "alpha of cutmix; 0: off", minimum=0)
    mix_probability: float = option(1.0, "probability of mixing a batch where one is on", minimum=0, maximum=1)
    mix_switch: float = option(0.5, "probability of cutmix where both are on", minimum=0, maximum=1)
    mix_off_epoch: Optional[int] = option(None, "first epoch (from 0) that is not mixed; null: none", minimum=0)
    eval_resize: Optional[int] = option(
        None, "evaluation: shorter side before the centre crop of model.image_size; null: image_size / 0.875", minimum=1
    )
    mean: list[float] = option([0.485, 0.456, 0.406], "mean of red, green, blue, of 1", minimum=0, maximum=1)
    std: list[float] = option([0.229, 0.224, 0.225], "deviation of red, green, blue, of 1", above=0)


@dataclass
class Config:
    output: str = option(MISSING, "folder of the run")
    seed: int = option(0, "seed of weights, order and augmentation", minimum=0, maximum=2**31 - 1)
    epochs: int = option(90, "epochs", minimum=1)
    batch_size: int = option(256, "images in a batch, on each rank", minimum=1)
    device: str = option("CPU", "where it runs", choices=("CPU", "GPU", "Ascend"))
    amp: str = option(
        "O0", "O0: float32; O2: float16 (on CPU only to try it, slow); bf16: Ascend", choices=("O0", "O2", "bf16")
    )
    loss_scale: Optional[float] = option(None, "fixed loss scale; null: dynamic with amp=O2, else none", minimum=1)
    accumulate: int = option(1, "micro-batches of batch_size that make one step of the optimizer", minimum=1)
    ema: Optional[float] = option(
        None, "decay of a moving average of the weights, evaluated beside them; null: none", above=0, below=1
    )
    diagnostics: int = option(
        0, "every how many steps to compare the gradients of labels and texts, and retrieval; 0: never", minimum=0
    )
    clip_norm: Optional[float] = option(None, "largest global norm of the gradient; null: not clipped", above=0)
    data: DataConfig = option(DataConfig, "images, and the texts joined to them")
    model: ModelConfig = option(ModelConfig, "network")
    loss: LossConfig = option(LossConfig, "cross-entropy and alignment")
    optimizer: OptimizerConfig = option(OptimizerConfig, "optimizer")
    schedule: ScheduleConfig = option(ScheduleConfig, "learning rate over time")
    augment: AugmentConfig = option(AugmentConfig, "augmentation, and the crop of evaluation")


def options(section: Any = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option as (dotted key, its dataclass field)."""
    for item in fields(section):
        if is_dataclass(item.default_factory):
            yield from options(item.default_factory, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, item


def help_text() -> str:
    """The table of options, for `--help`."""
    lines = []
    for key, item in options():
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        shown = "required" if default == MISSING else "null" if default is None else default
        lines.append(f"  {key} ({shown}): {item.metadata['help']}")
    return "options of the config file, also as key=value here (defaults in brackets):\n" + "\n".join(lines)


class Entry:
    """One value that somebody typed: its dotted key, and where it stands."""

    def __init__(self, key: str, value: Any, where: str):
        self.key, self.value, self.where = key, value, where


class ConfigError(UserError):
    """All the faults of a config, in one line and as a list."""

    def __init__(self, faults: list[str]):
        super().__init__("; ".join(faults))
        self.faults = faults


def load_config(path: str | Path, overrides: Sequence[str | Entry] = (), source: str | None = None) -> Config:
    """The experiment that a YAML file and overrides (`key=value`, or entries of another file) describe, checked.

    Args:
        source: names the experiment where no line is at fault; None: the file.

    Raises:
        UserError: unreadable file, or unknown keys, wrong types and values out of range: all of them at once, each with
            its file and line or as it was typed.
    """
    faults: list[str] = []
    entries = _read_yaml(Path(path), faults, seen=())
    for text in overrides:
        if isinstance(text, Entry):
            entries.append(text)
            continue
        key, equals, value = text.partition("=")
        if not equals or not key:
            faults.append(f"{text!r}: an override is written key=value")
            continue
        try:
            parsed = yaml_text.load(value)
        except yaml.YAMLError as error:
            faults.append(f"{text!r}: the value is no valid YAML ({_problem(error)})")
            continue
        entries += _flatten(key, parsed, repr(text))
    return _resolve(entries, faults, source or str(path))


def parse_config(values: dict, source: str) -> Config:
    """The experiment that nested `values` (a saved config.yaml) describe; `source` names them in errors."""
    return _resolve([entry for key, value in values.items() for entry in _flatten(key, value, source)], [], source)


def save_config(config: Config, path: str | Path) -> None:
    """Write the fully resolved experiment as YAML."""
    atomic_write(path, OmegaConf.to_yaml(OmegaConf.structured(config)))


def to_dict(config: Config) -> dict:
    """The experiment as nested dictionaries."""
    return OmegaConf.to_container(OmegaConf.structured(config))


def differences(old: dict, new: dict, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ between two nested dictionaries, as key: (old, new)."""
    found = {}
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found.update(differences(a, b, f"{prefix}{key}."))
        elif a != b:
            found[prefix + key] = (a, b)
    return found


def _flatten(key: str, value: Any, where: str) -> list[Entry]:
    if isinstance(value, dict):
        return [entry for name, part in value.items() for entry in _flatten(f"{key}.{name}", part, where)]
    return [Entry(key, value, where)]


def compose_yaml(path: Path) -> yaml.MappingNode | None:
    """The nodes of a YAML file, which know their lines; None for an empty file."""
    try:
        root = yaml_text.compose(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"config {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"config {path}: is not UTF-8 text") from error
    except ValueError as error:  # a zero byte
        raise UserError(f"config {str(path)!r}: cannot be the name of a file ({error})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"config {path}{line}: no valid YAML ({_problem(error)})") from error
    if root is not None and root.tag != "tag:yaml.org,2002:map":
        raise UserError(f"config {path}: must be a mapping of keys to values")
    return root


def _read_yaml(path: Path, faults: list[str], seen: tuple[Path, ...]) -> list[Entry]:
    """The file's entries in order, those of its `base` first."""
    root = compose_yaml(path)
    if root is None:
        return []
    entries = walk_yaml(root, "", path, faults)
    own = [entry for entry in entries if entry.key != "base"]
    for entry in entries:
        if entry.key == "base":
            if "\0" in str(entry.value):
                raise UserError(f"{entry.where}: base must be the name of a file")
            base = path.parent / str(entry.value)
            if base.resolve() in seen:
                raise UserError(f"{entry.where}: base {entry.value} leads back to itself")
            own = _read_yaml(base, faults, (*seen, path.resolve())) + own
    return own


def walk_yaml(node: yaml.MappingNode, prefix: str, path: Path, faults: list[str]) -> list[Entry]:
    """The values below a node as entries with dotted keys; names that stand twice are added to `faults`."""
    entries, names = [], set()
    for key_node, value_node in node.value:
        where = f"{path}:{key_node.start_mark.line + 1}"
        try:
            name = str(yaml_text.construct(key_node))
            if name in names:
                faults.append(f"{where}: {prefix}{name} stands here for the second time")
            names.add(name)
            if value_node.tag == "tag:yaml.org,2002:map":
                entries += walk_yaml(value_node, f"{prefix}{name}.", path, faults)
            else:
                entries.append(Entry(prefix + name, yaml_text.construct(value_node), where))
        except yaml.YAMLError as error:
            faults.append(f"{where}: no valid YAML ({_problem(error)})")
    return entries


def _problem(error: yaml.YAMLError) -> str:
    """What is wrong, without the lines that show where."""
    return getattr(error, "problem", None) or first_line(error)


def _resolve(entries: list[Entry], faults: list[str], source: str) -> Config:
    known = dict(options())
    sections = {key.rsplit(".", 1)[0] for key in known if "." in key}
    config = OmegaConf.structured(Config)
    where = {}
    for entry in entries:
        if entry.key in known:
            # OmegaConf takes any number for a truth value.
            if known[entry.key].type == "bool" and type(entry.value) in (int, float) and entry.value not in (0, 1):
                faults.append(f"{entry.where}: {entry.key}: must be true or false, not {entry.value}")
                continue
            try:
                OmegaConf.update(config, entry.key, entry.value)
                where[entry.key] = entry.where
            except (OmegaConfBaseException, ValueError, OverflowError) as error:
                faults.append(f"{entry.where}: {entry.key}: {first_line(error)}")
        elif entry.key in sections:
            faults.append(f"{entry.where}: {entry.key} is a section, write {entry.key}.<key>")
        else:
            near = difflib.get_close_matches(entry.key, [*known, *sections], n=1, cutoff=0.5)
            leaf = difflib.get_close_matches(entry.key, [key.rsplit(".", 1)[-1] for key in known], n=1, cutoff=0.9)
            near = near or [key for key in known if leaf and key.endswith("." + leaf[0])]
            faults.append(f"{entry.where}: unknown key {entry.key}" + (f", did you mean {near[0]}?" if near else ""))
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        # Nothing can be read from a config with a reference that leads nowhere.
        raise ConfigError([*faults, f"{source}: {first_line(error)}"]) from error
    missing = OmegaConf.missing_keys(config)
    for key, item in known.items():
        if key in missing:
            if not any(key in fault for fault in faults):
                faults.append(f"{source}: {key} is required: {item.metadata['help']}")
        else:
            problem = _limit_fault(OmegaConf.select(config, key), item.metadata)
            if problem:
                faults.append(f"{where.get(key, source)}: {key}: {problem}")
    faults += [] if faults else [f"{source}: {fault}" for fault in _conflicts(config)]
    if faults:
        raise ConfigError(faults)
    return OmegaConf.to_object(config)


def _limit_fault(value: Any, limits: dict) -> str | None:
    if OmegaConf.is_list(value):
        return next((fault for fault in (_limit_fault(part, limits) for part in value) if fault), None)
    if value is None:
        return None
    if not isinstance(value, (bool, int, float, str)):
        return "must be a single value"
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a finite number, not {value}"
    if isinstance(value, int) and value > _LARGEST:
        return f"must be at most {_LARGEST}"
    checks = (
        ("choices", lambda limit: value in limit, "one of {}"),
        ("minimum", lambda limit: value >= limit, "at least {}"),
        ("maximum", lambda limit: value <= limit, "at most {}"),
        ("above", lambda limit: value > limit, "above {}"),
        ("below", lambda limit: value < limit, "below {}"),
    )
    for name, holds, wording in checks:
        if name in limits and not holds(limits[name]):
            limit = ", ".join(limits[name]) if name == "choices" else limits[name]
            return f"must be {wording.format(limit)}, not {value}"
    return None


def _conflicts(config: Any) -> Iterator[str]:
    """Values that are each right, and wrong together."""
    if config.loss.alignment != "none" and config.data.embeddings is None:
        if not is_packed(Path(config.data.root)):
            yield (
                f"data.embeddings is required by loss.alignment={config.loss.alignment} "
                "(the baseline is alignment=none)"
            )
        elif config.data.shuffle_texts:
            yield "data.embeddings is required by data.shuffle_texts: packed texts come with their own images"
    if config.schedule.warmup_epochs > config.epochs:
        yield f"schedule.warmup_epochs={config.schedule.warmup_epochs} is more than epochs={config.epochs}"
    if config.augment.eval_resize is not None and config.augment.eval_resize < config.model.image_size:
        yield (
            f"augment.eval_resize={config.augment.eval_resize} is smaller than "
            f"model.image_size={config.model.image_size}"
        )
    if config.amp == "bf16" and config.device != "Ascend":
        yield f"amp=bf16 runs on Ascend only, not on device={config.device}; choose amp=O2 or O0"
    for key, length in (("augment.mean", 3), ("augment.std", 3), ("optimizer.betas", 2)):
        if len(OmegaConf.select(config, key)) != length:
            yield f"{key} must have {length} numbers"
