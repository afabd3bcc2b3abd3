"""What all tests share. `pytest` runs everything, `pytest -m "not slow"` is the inner loop.

There is no pytest.ini, so its settings are made here: files of one name may live in several folders ("importlib"),
an unknown marker is an error, and so is a warning that code of the package causes. Helpers that lie beside this file
are imported by their bare names.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")  # before MindSpore is imported: by default it prints hundreds of warnings

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_configure(config):
    config.option.importmode = "importlib"
    config.addinivalue_line("markers", "slow: takes tens of seconds, left out of the inner loop")
    config.addinivalue_line("filterwarnings", "error::pytest.PytestUnknownMarkWarning")
    config.addinivalue_line("filterwarnings", "error:::mindspore_gpt4image")


@pytest.fixture(autouse=True)
def graph_mode():
    """Every test of MindSpore starts in graph mode, as training does, whatever mode the test before it chose.

    MindSpore is not imported for the sake of this: some tests run where it must not be.
    """
    mindspore = sys.modules.get("mindspore")
    if mindspore is not None:
        mindspore.set_context(mode=mindspore.GRAPH_MODE)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of `tiny_data.make_data_set`, one for each file of tests."""
    from tiny_data import make_data_set  # it imports MindSpore

    return make_data_set(tmp_path_factory.mktemp("data"))
