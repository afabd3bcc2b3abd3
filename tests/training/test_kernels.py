"""What the training graph is made of: nothing in place, and nothing that GPU or Ascend has never heard of.

No such device is here. But the wheel carries the libraries of their kernels, in which the kernels' names stand.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import mindspore
import pytest

PLUGINS = Path(mindspore.__file__).parent / "lib" / "plugin"
LIBRARIES = {
    "GPU": [PLUGINS / "libmindspore_gpu.so.11.6"],
    "Ascend": [
        PLUGINS / "libmindspore_ascend.so.2",
        PLUGINS / "libmindspore_ops_ascend.so",
        *sorted((PLUGINS / "ascend").glob("*.so")),
    ],
}
# Primitives that need no kernel of that name. Those that the backend expands have none on CPU either, where this runs.
NO_KERNEL = {
    **dict.fromkeys(
        ("Depend", "Load", "UpdateState", "MakeTuple", "TupleGetItem", "Partial", "Switch"), "control flow"
    ),
    "ZerosLikeExt": "the backend expands it to ZerosLike before it looks for kernels",
    "SplitWithSize": "gradient of the class token's Concat; the backend expands it to slices",
}


@pytest.fixture(scope="module", params=["resnet10_cifar_half", *(
    pytest.param(name, marks=pytest.mark.slow) for name in ("deit_tiny", "convnext_tiny", "resnext50_32x4d")
)])  # fmt: skip
def primitives(request, tmp_path_factory):
    """Names of the primitives in the compiled training step, before any device's passes."""
    folder = tmp_path_factory.mktemp(request.param)
    environment = {**os.environ, "MS_DEV_SAVE_GRAPHS": "2", "MS_DEV_SAVE_GRAPHS_PATH": str(folder)}
    script = Path(__file__).with_name("graph_dump.py")
    subprocess.run([sys.executable, str(script), request.param], env=environment, check=True, capture_output=True)
    graphs = sorted(folder.rglob("*_validate_*.ir"), key=lambda path: path.stat().st_size)
    found = set(re.findall(r"= (?:PrimFunc_)?([A-Z]\w*)\(", graphs[-1].read_text()))
    assert {"Log1p", "ReLU" if "res" in request.param else "Exp", "Transpose"} <= found
    return found


def test_nothing_is_added_in_place(primitives):
    assert [name for name in primitives if name.startswith("Inplace")] == []


@pytest.mark.parametrize("device", LIBRARIES)
def test_every_primitive_occurs_in_the_device_s_libraries(primitives, device):
    libraries = [path for path in LIBRARIES[device] if path.exists()]
    if not libraries:
        pytest.skip(f"this wheel has no libraries for {device}")
    content = b"".join(path.read_bytes() for path in libraries)
    unknown = sorted(name for name in primitives - NO_KERNEL.keys() if name.encode() not in content)
    assert unknown == []


def test_the_search_finds_what_is_missing():
    """In-place addition is what GPU kernels lack."""
    assert b"InplaceAddExt" not in LIBRARIES["GPU"][0].read_bytes()
    assert b"Conv2DBackpropFilter" in LIBRARIES["GPU"][0].read_bytes()
