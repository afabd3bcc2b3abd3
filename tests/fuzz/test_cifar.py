"""CIFAR's files, damaged: refused by name, or read as what they hold, and nothing in them is executed."""

import gzip

import numpy as np
import pytest
from cifar_archives import ARCHIVES, archive_files, write_archive
from damage import cases, damaged
from hypothesis import given
from hypothesis import strategies as st

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.formats import list_images

VERSIONS = sorted(ARCHIVES)


def read(root):
    images = list_images(root, "train")
    pixels = [np.asarray(images.rgb(position)).tobytes() for position in range(len(images))]
    return images.ids, images.classes, images.labels.tolist(), pixels


@pytest.fixture(params=VERSIONS, ids=map("-".join, VERSIONS))
def archive(request, tmp_path):
    path = write_archive(tmp_path, *request.param, per_file=2)
    return path, path.read_bytes(), read(path), request.param


@cases(30, 500)
@given(data=st.data())
def test_an_archive_that_was_damaged(archive, data):
    """Gzip's checksum is looked at, so that what is read is what was packed."""
    path, good, whole, _ = archive
    path.write_bytes(data.draw(damaged(good)))
    try:
        assert read(path) == whole
    except UserError as error:
        assert str(error).startswith(str(path))


@cases(30, 500)
@given(data=st.data())
def test_an_archive_of_damaged_members(archive, data):
    """Their bytes are what the archive says, so whatever has CIFAR's form is right."""
    path, good, (ids, *_), _ = archive
    plain = gzip.decompress(good)
    path.write_bytes(gzip.compress(data.draw(damaged(plain)), 1))
    try:
        found, classes, labels, pixels = read(path)
    except UserError as error:
        assert str(error).startswith(str(path))
    else:
        assert len(found) == len(labels) == len(pixels)
        assert found[: len(ids)] == ids[: len(found)]
        assert all(0 <= label < len(classes) for label in labels)


@cases(60, 3_000)
@given(data=st.data(), data_set=st.sampled_from(["cifar10", "cifar100"]), protocol=st.integers(0, 5))
def test_damaged_pickles(tmp_path, data, data_set, protocol):
    files = archive_files(data_set, "python", per_file=1, protocol=protocol)
    name = data.draw(st.sampled_from(sorted(files)))
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / name).write_bytes(data.draw(damaged(files[name])))
    try:
        _, classes, labels, _ = read(tmp_path)
    except UserError as error:
        assert str(tmp_path) in str(error)
    else:
        assert all(0 <= label < len(classes) for label in labels)
