"""Choosing the device: the one place where MindSpore's context is set."""

from __future__ import annotations

import warnings

import mindspore as ms

from mindspore_gpt4image.errors import UserError

DEVICES = ("CPU", "GPU", "Ascend")


def use_device(device: str) -> None:
    """Run what follows in graph mode on `device`, one of `DEVICES`.

    Raises:
        UserError: this MindSpore cannot use the device.
    """
    if device == "CPU" and slow_on_cpu(ms.__version__):
        warnings.warn(
            f"MindSpore {ms.__version__} computes convolutions on CPU with oneDNN's reference kernel, about 50 times "
            "slower than 2.8.0; on CPU install mindspore==2.8.0",
            stacklevel=2,
        )
    # Setting the device again is an error once something has run on it.
    if ms.get_context("device_target") != device:
        try:
            ms.set_device(device)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"device={device}: MindSpore {ms.__version__} cannot use it here ({reason})") from error
    ms.set_context(mode=ms.GRAPH_MODE)


def slow_on_cpu(version: str) -> bool:
    """Whether this version of MindSpore is one of those with slow convolutions on CPU: 2.9 and newer."""
    return tuple(int(part) for part in version.split(".")[:2]) >= (2, 9)
