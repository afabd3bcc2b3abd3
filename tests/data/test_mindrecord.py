"""Our reader of MindRecord against MindSpore's own."""

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from mindspore.mindrecord import FileReader

from mindspore_gpt4image.data import EmbeddingStore
from mindspore_gpt4image.data.mindrecord import read_rows
from mindspore_gpt4image.data.store import _read_header, write_store
from mindspore_gpt4image.errors import UserError

MADE_FROM = {"encoder": "clip", "text": "short", "truncated": 0, "descriptions_sha256": "0" * 64}


@pytest.mark.parametrize(
    ("count", "dim", "dtype"),
    [(300, 6, "float16"), (300, 7, "float32"), (1100, 8192, "float32")],
    ids=["numbers stored in fewer bytes", "float32", "two pages"],
)
def test_the_same_rows_as_mindspores(tmp_path, count, dim, dtype):
    random = np.random.default_rng(0)
    rows = random.standard_normal((count, dim)).astype(np.float32)
    # MindRecord stores whole numbers that are small, such as two halves of which one is 0, in fewer bytes.
    rows[::10][random.random(rows[::10].shape) < 0.3] = 0
    rows[:, 0] = 1
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = [f"train/日 '\"%\\{i}.png" + "x" * (i % 300) for i in range(count)]
    text_ids = [i % 250 for i in range(count)]
    path = tmp_path / "short.mindrecord"
    write_store(path, ids, text_ids, rows, MADE_FROM, dtype)

    found = list(read_rows(path, _read_header(path)[0], dim, dtype, 100))
    reader = FileReader(str(path), num_consumer=1)
    records = list(reader.get_next())
    reader.close()
    assert [len(block) for block, _, _ in found] == [100] * (count // 100)
    assert sum((block for block, _, _ in found), []) == ids == [record["id"] for record in records]
    assert sum((block for _, block, _ in found), []) == text_ids == [record["text_id"] for record in records]
    embeddings = np.concatenate([block for _, _, block in found])
    assert embeddings.dtype == dtype
    np.testing.assert_array_equal(embeddings, rows.astype(dtype))
    np.testing.assert_array_equal(embeddings, np.stack([record["embedding"] for record in records]).view(dtype))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE INDEXES SET PAGE_OFFSET_BLOB_END = PAGE_OFFSET_BLOB_END - 1",
        "UPDATE INDEXES SET PAGE_ID_BLOB = 9 WHERE ROW_ID = 3",
        "UPDATE INDEXES SET PAGE_OFFSET_BLOB = 'x' WHERE ROW_ID = 3",
        "UPDATE INDEXES SET PAGE_OFFSET_BLOB = -99999999",
        "ALTER TABLE INDEXES RENAME COLUMN id_0 TO name",
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_damaged_index_is_told(tmp_path, damage, dtype):
    path = tmp_path / "short.mindrecord"
    rows = np.full((9, 4), 0.5, np.float32)
    write_store(path, [f"train/{i}" for i in range(9)], range(9), rows, MADE_FROM, dtype)
    with sqlite3.connect(f"{path}.db") as database:
        database.execute(damage)
    database.close()
    with pytest.raises(UserError) as caught:
        EmbeddingStore.open(path)
    assert str(caught.value) == f"{path}: cannot be read, it is damaged; copy it or encode again"


def test_a_name_that_means_something_in_an_address(tmp_path):
    folder = tmp_path / "100% #1?"
    folder.mkdir()
    rows = np.eye(4, dtype=np.float32)
    write_store(folder / "short.mindrecord", list("abcd"), range(4), rows, MADE_FROM)
    copied = Path(shutil.copytree(folder, tmp_path / "a copy"))
    for place in (folder, copied):
        np.testing.assert_array_equal(EmbeddingStore.open(place / "short.mindrecord").rows(list("abcd")), rows)
