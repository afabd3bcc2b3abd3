"""The one place where the device is chosen."""

import warnings

import mindspore as ms
import pytest

from mindspore_gpt4image import device as module
from mindspore_gpt4image.device import slow_on_cpu, use_device
from mindspore_gpt4image.errors import UserError


@pytest.mark.parametrize(
    ("version", "slow"), [("2.7.0", False), ("2.8.0", False), ("2.9.0", True), ("2.10.1rc1", True)]
)
def test_versions_with_slow_convolutions(version, slow):
    assert slow_on_cpu(version) is slow


def test_a_slow_version_is_named_with_its_reason(monkeypatch):
    monkeypatch.setattr(module.ms, "__version__", "2.9.0")
    with pytest.warns(UserWarning, match="reference kernel.*install mindspore==2.8.0"):
        use_device("CPU")


def test_the_pinned_version_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use_device("CPU")
    assert ms.get_context("mode") == ms.GRAPH_MODE


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(UserError, match="device=Ascend: MindSpore .* cannot use it here"):
        use_device("Ascend")
