"""What somebody needs beside the weights to use a classifier: `model.yaml`, also embedded in every checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Optional

import yaml

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import atomic_write
from mindspore_gpt4image.sources.preprocessing import EvalTransform


@dataclass(frozen=True)
class ModelInfo:
    """The network, its class names in the order of its logits, and the preprocessing of evaluation.

    `resize` is the length of the shorter side before the centre crop of `crop` pixels, `interpolation` the filter of
    that resize as Pillow does it, `mean` and `std` are of red, green, blue in 0 … 1. `text_dim` is None where the
    network has no projection.
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
    input: str = "float32 NCHW, RGB, (x / 255 - mean) / std"

    @property
    def transform(self) -> EvalTransform:
        """The resize and crop of evaluation, on Pillow images."""
        return EvalTransform(resize=self.resize, crop=self.crop, interpolation=self.interpolation)

    def to_dict(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Any, source: str | Path) -> ModelInfo:
        """The inverse of `to_dict`; `source` names the file in errors."""
        names = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            wrong = sorted(names.symmetric_difference(values)) if isinstance(values, dict) else "not a mapping"
            raise UserError(f"{source}: holds no model description of this version ({wrong})")
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    def save(self, path: str | Path) -> None:
        """Write `model.yaml`."""
        atomic_write(path, yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True))

    @classmethod
    def load(cls, path: str | Path) -> ModelInfo:
        """Read `model.yaml`."""
        try:
            return cls.from_dict(yaml.safe_load(Path(path).read_text(encoding="utf-8")), path)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}); it belongs beside every exported model"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: no valid YAML") from error
