"""A store or a packed data set that was damaged is refused, or gives what was written."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from damage import VALUES, cases, changed, damaged
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_data import make_data_set

from mindspore_gpt4image.data import EmbeddingStore
from mindspore_gpt4image.data.pack import pack
from mindspore_gpt4image.data.texts import packed_texts
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.formats import list_images

COLUMNS = ("ROW_ID", "id_0", "PAGE_ID_BLOB", "PAGE_OFFSET_BLOB", "PAGE_OFFSET_BLOB_END")
CELLS = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-3, 300), st.floats(), st.text(), st.binary()
)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    return make_data_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def packed(data_set, tmp_path_factory):
    output = tmp_path_factory.mktemp("packed") / "set"
    pack(data_set, output, ("train",), embeddings=data_set / "short.mindrecord", shard_images=20)
    return output


class Files:
    """A MindRecord and its index that are damaged in place, and what reading them should give."""

    def __init__(self, file, read):
        self.file, self.index, self._read = file, Path(f"{file}.db"), read
        with file.open("rb") as content:
            self.length = int.from_bytes(content.read(8), "little")
            self.header = content.read(self.length)
            self.header_size = json.loads(self.header)["header_size"]
        self.good_index = self.index.read_bytes()
        self.whole = read()

    def check(self):
        try:
            found = self._read()
        except UserError as error:
            assert str(error)
        else:
            assert found == self.whole

    def with_bytes(self, start, data):
        """Put bytes into the file, check, and put back what was there."""
        with self.file.open("r+b", buffering=0) as file:
            file.seek(start)
            good = file.read(len(data))
            try:
                file.seek(start)
                file.write(data)
                self.check()
            finally:
                file.seek(start)
                file.write(good)

    def with_index(self, data):
        self.index.write_bytes(data)
        try:
            self.check()
        finally:
            self.index.write_bytes(self.good_index)

    def with_header(self, header):
        """Another header, with its length, over the beginning of the old one."""
        self.with_bytes(0, (len(header).to_bytes(8, "little") + header).ljust(8 + self.length, b"\0"))

    def with_change(self, statement, *values):
        try:
            with closing(sqlite3.connect(self.index)) as database, database:
                database.execute(statement, values)
            self.check()
        finally:
            self.index.write_bytes(self.good_index)


@pytest.fixture(scope="module")
def store(data_set, tmp_path_factory):
    file = data_set / "short.mindrecord"
    copies = tmp_path_factory.mktemp("copies")

    def read():
        shutil.rmtree(copies, ignore_errors=True)
        store = EmbeddingStore.open(file, copies)
        return store.ids, store.text_ids(store.ids).tolist(), store.rows(store.ids).tobytes(), store.metadata

    return Files(file, read)


@pytest.fixture(scope="module")
def shard(packed):
    file = packed / "train" / "0000.mindrecord"

    def read():
        images = list_images(packed, "train")
        pixels = [images.encoded(position) for position in range(len(images))]
        return images.ids, images.labels.tolist(), images.classes, pixels

    return Files(file, read)


@pytest.fixture(params=["store", "shard"])
def files(request):
    return request.getfixturevalue(request.param)


@cases(60, 600)
@given(data=st.data())
def test_accidents_to_the_header(files, data):
    files.with_bytes(0, data.draw(damaged(files.length.to_bytes(8, "little") + files.header))[: 8 + files.length])


@cases(60, 600)
@given(data=st.data())
def test_changes_of_the_header(files, data):
    files.with_header(json.dumps(data.draw(changed(json.loads(files.header)))).encode()[: files.header_size - 8])


@cases(40, 600)
@given(data=st.data())
def test_bits_of_the_rows(files, data):
    size = files.file.stat().st_size
    position = data.draw(st.integers(files.header_size, size - 1))
    with files.file.open("rb") as file:
        file.seek(position)
        byte = file.read(1)[0]
    files.with_bytes(position, bytes([byte ^ 1 << data.draw(st.integers(0, 7))]))


@cases(60, 1_000)
@given(data=st.data())
def test_an_accident_to_the_index(files, data):
    files.with_index(data.draw(damaged(files.good_index, accidents=1)))


@cases(60, 600)
@given(column=st.sampled_from([*COLUMNS, "text_id_0", "label_0", "crc32_0"]), value=CELLS, row=st.integers(-1, 20))
@example(column="PAGE_OFFSET_BLOB_END", value=2**62, row=3)
@example(column="PAGE_OFFSET_BLOB_END", value=2**63 - 1, row=-1)
@example(column="id_0", value=b"\xff", row=3)
def test_values_in_the_index(files, column, value, row):
    names = [name for _, name, *_ in sqlite3.connect(files.index).execute("PRAGMA table_info(INDEXES)")]
    if column in names:
        files.with_change(f"UPDATE OR IGNORE INDEXES SET {column} = ? WHERE ? IN (-1, ROW_ID)", value, row)


@cases(60, 600)
@given(data=st.data())
def test_changes_of_pack_json(packed, data):
    path = packed / "pack.json"
    good = json.loads(path.read_text())
    whole = list_images(packed, "train")
    try:
        if data.draw(st.booleans()):
            path.write_text(
                json.dumps(data.draw(changed(good, st.one_of(VALUES, st.sampled_from(["train", True, {}])))))
            )
        else:
            path.write_bytes(data.draw(damaged(json.dumps(good).encode())))
        images = list_images(packed, "train")
        packed_texts(images)
    except UserError as error:
        assert str(error)
    else:
        assert images.ids == whole.ids
        np.testing.assert_array_equal(images.labels, whole.labels)
    finally:
        path.write_text(json.dumps(good))
