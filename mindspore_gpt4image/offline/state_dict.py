"""State dicts of PyTorch as NumPy arrays, from files that may come from anywhere: nothing in them is executed."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from mindspore_gpt4image.errors import UserError, first_line

# Under these names training scripts keep the weights in a file that holds more.
_WRAPPERS = ("model", "state_dict", "model_state_dict")
_EMA_WRAPPERS = ("model_ema", "state_dict_ema", "ema")


def read_state_dict(path: str | Path, ema: bool = False) -> dict[str, np.ndarray]:
    """The weights in a file of torch.save or safetensors, by name, floating ones as float32.

    A training script's checkpoint is unwrapped: `model`, `state_dict` or, with `ema`, `model_ema`; the `module.` that
    data-parallel training puts before each name is dropped. Of pickled objects, tensors, containers and
    `argparse.Namespace` (the released DeiT files hold one) are let in and nothing else.

    Raises:
        UserError: no such file, damaged, holds other objects, or no weights where they were looked for.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    values = _load(path)
    names = _EMA_WRAPPERS if ema else _WRAPPERS
    found = next((values[name] for name in names if isinstance(values.get(name), dict)), None)
    if found is None and ema:
        raise UserError(f"{path}: holds no averaged weights ({', '.join(_EMA_WRAPPERS)}); it holds {_listed(values)}")
    state = values if found is None else found
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    if not tensors or len(tensors) < len(state):
        raise UserError(f"{path}: holds no state dict; it holds {_listed(state)}")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name[len("module.") :]: value for name, value in tensors.items()}
    return {name: _to_numpy(value) for name, value in tensors.items()}


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the protocol of files that are no pickles
            values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's own text tells how to load such a file all the same.
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        what = (
            f"holds a {foreign[1]}, which is no weight and is not loaded"
            if foreign
            else "damaged, or no file of PyTorch"
        )
        raise UserError(f"{path}: {what}") from error
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"{path}: damaged, or no file of PyTorch ({first_line(error)[:200]})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a {type(values).__name__} and no state dict")
    return values


def _to_numpy(value: torch.Tensor) -> np.ndarray:
    return (value.float() if value.is_floating_point() else value).numpy()


def _listed(values: dict) -> str:
    names = [str(name) for name in values]
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") if names else "nothing"
