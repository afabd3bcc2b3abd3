"""What somebody needs beside the weights to use a classifier: `model.yaml`, also embedded in every checkpoint."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Optional

import yaml

from mindspore_gpt4image import yaml_text
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import atomic_write
from mindspore_gpt4image.sources.descriptions import file_sha256
from mindspore_gpt4image.sources.preprocessing import EvalTransform

# What the graph of a classifier takes.
NORMALISED = "float32 NCHW, RGB, (x / 255 - mean) / std"
PIXELS = "uint8 NHWC, RGB"
_MAX_SIZE = 1 << 16  # of an image's side or an embedding; more is a slip of the finger


@dataclass(frozen=True)
class ModelInfo:
    """The network, its class names in the order of its logits, and the preprocessing of evaluation.

    `resize` is the length of the shorter side before the centre crop of `crop` pixels, `interpolation` the filter of
    that resize as Pillow does it, `mean` and `std` are of red, green, blue in 0 … 1. `text_dim` is None where the
    network has no projection. `input` is `NORMALISED` or, for an export that normalises by itself, `PIXELS`.
    """

    network: str
    classes: tuple[str, ...]
    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    projection: str = "none"
    text_dim: Optional[int] = None
    input: str = NORMALISED

    @property
    def transform(self) -> EvalTransform:
        """The resize and crop of evaluation, on Pillow images."""
        return EvalTransform(resize=self.resize, crop=self.crop, interpolation=self.interpolation)

    def at_size(self, size: int) -> ModelInfo:
        """The same for images of another size; the resize before the crop grows in proportion."""
        return replace(self, resize=max(size, round(self.resize * size / self.crop)), crop=size)

    def to_dict(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Any, source: str | Path) -> ModelInfo:
        """The inverse of `to_dict`; `source` names the file in errors."""
        names = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            wrong = sorted(map(str, names.symmetric_difference(values))) if isinstance(values, dict) else "no mapping"
            raise UserError(f"{source}: holds no model description of this version ({wrong})")
        for name, is_good in _RULES.items():
            if not is_good(values[name]):
                raise UserError(f"{source}: {name} is {values[name]!r}, which describes no model")
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    def save(self, path: str | Path) -> None:
        """Write `model.yaml`."""
        _write(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> ModelInfo:
        """Read `model.yaml`."""
        return _read(path)[0]


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MAX_SIZE


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < math.inf


_RULES = {
    "network": lambda value: isinstance(value, str),
    "classes": lambda value: isinstance(value, list) and value and all(isinstance(name, str) for name in value),
    "resize": _is_size,
    "crop": _is_size,
    "interpolation": lambda value: isinstance(value, str),
    "mean": _is_colour,
    "std": lambda value: _is_colour(value) and all(part > 0 for part in value),
    "projection": lambda value: isinstance(value, str),
    "text_dim": lambda value: value is None or _is_size(value),
    "input": lambda value: value in (NORMALISED, PIXELS),
}


@dataclass(frozen=True)
class ModelFile:
    """An exported file, as the `model.yaml` beside it lists it.

    Attributes:
        sha256: of the file; a file beside another model's description is noticed.
        input, resize, crop: its own, since exports of one model in one folder may differ in them.
        batch: the one batch size that the graph takes; None: any.
        dtype: of the weights, `float32` or `float16`.
    """

    sha256: str
    input: str
    resize: int
    crop: int
    batch: Optional[int]
    dtype: str


_FILE_RULES = {
    "sha256": lambda value: isinstance(value, str),
    "input": _RULES["input"],
    "resize": _is_size,
    "crop": _is_size,
    "batch": lambda value: value is None or _is_size(value),
    "dtype": lambda value: value in ("float32", "float16"),
}


def read_model_file(path: str | Path) -> tuple[ModelInfo, ModelFile]:
    """What `model.yaml` says of the exported file beside it.

    Raises:
        UserError: the file or its description is missing or damaged, or they do not belong together.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    description = path.with_name("model.yaml")
    model, files = _read(description)
    sha256 = file_sha256(path)
    # By content, so that a file may be renamed.
    for file in files.values():
        if file.sha256 == sha256:
            return replace(model, input=file.input, resize=file.resize, crop=file.crop), file
    raise UserError(
        f"{path}: damaged, or not a file that {description} describes (its SHA-256 is not listed there); "
        "export it again, or copy it together with its own model.yaml"
    )


def check_describable(path: str | Path, model: ModelInfo) -> None:
    """Refuse to export to `path` where the `model.yaml` beside it speaks of another model.

    Raises:
        UserError: it does, for a run or for other files.
    """
    _description_for(Path(path), model)


def describe_model_file(path: str | Path, model: ModelInfo, batch: Optional[int], dtype: str) -> None:
    """Write `model.yaml` beside the exported file, or add the file to it; see `check_describable`."""
    path = Path(path)
    described, files = _description_for(path, model)
    files[path.name] = ModelFile(file_sha256(path), model.input, model.resize, model.crop, batch, dtype)
    values = {**described.to_dict(), "files": {name: asdict(file) for name, file in files.items()}}
    _write(path.with_name("model.yaml"), values)


def _description_for(path: Path, model: ModelInfo) -> tuple[ModelInfo, dict[str, ModelFile]]:
    """What `model.yaml` shall say besides the file at `path`, of the model and of other files."""
    description = path.with_name("model.yaml")
    if not description.exists():
        return model, {}
    described, files = _read(description)
    if set(files) == {path.name}:  # it speaks of nothing but what will be replaced
        return model, {}
    if replace(described, input=model.input, resize=model.resize, crop=model.crop) != model:
        raise UserError(f"{description}: describes another model; choose another folder for {path.name}")
    return described, files


def _write(path: str | Path, values: dict[str, Any]) -> None:
    atomic_write(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _read(path: str | Path) -> tuple[ModelInfo, dict[str, ModelFile]]:
    try:
        values = yaml_text.load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it belongs beside every exported model") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no valid YAML") from error
    files = values.pop("files", {}) if isinstance(values, dict) else {}
    model = ModelInfo.from_dict(values, path)
    try:
        described = {name: ModelFile(**file) for name, file in files.items()}
    except (TypeError, AttributeError) as error:
        raise UserError(f"{path}: its list of files is not one that tools/export.py writes") from error
    for name, file in described.items():
        if wrong := [key for key, is_good in _FILE_RULES.items() if not is_good(getattr(file, key))]:
            raise UserError(f"{path}: of the file {name}, {', '.join(wrong)} is not what tools/export.py writes")
    return model, described
