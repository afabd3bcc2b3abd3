"""The embedding store: real MindRecord files, their cached copy, and each way in which a file can be wrong."""

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from mindspore.mindrecord import FileReader, FileWriter

from mindspore_gpt4image.data import EmbeddingStore
from mindspore_gpt4image.data import store as store_module
from mindspore_gpt4image.data.store import check_destination, read_metadata, write_store
from mindspore_gpt4image.errors import UserError

SHA256 = "0123456789abcdef" * 4
MADE_FROM = {"encoder": "clip", "text": "short", "truncated": 0.25, "descriptions_sha256": SHA256}
IDS = ["train/日本/é b.png", "train/00042", "train/a", "train/a/b.JPEG", "train/b'\"%.png"]
TEXT_IDS = [0, 1, 0, 2, 3]


def unit_rows(n: int, k: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, k)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "short.mindrecord"


@pytest.fixture
def written(path):
    write_store(path, IDS, TEXT_IDS, unit_rows(5, 8), MADE_FROM)
    return path


def write_mindrecord(path, rows, embedding, metadata):
    """A MindRecord as somebody else might write it: nothing is checked."""
    writer = FileWriter(str(path))
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    writer.add_schema({"id": {"type": "string"}, "text_id": {"type": "int64"}, "embedding": embedding}, text)
    for id, row in rows:
        writer.write_raw_data([{"id": id, "text_id": 0, "embedding": row}])
    writer.commit()


def write_float32(path, ids, rows, **metadata):
    complete = {**MADE_FROM, "dim": rows.shape[1], "dtype": "float32", "count": len(ids), **metadata}
    write_mindrecord(path, zip(ids, rows), {"type": "float32", "shape": [rows.shape[1]]}, complete)


def refusal(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


@contextlib.contextmanager
def as_nobody():
    """Without root's right to write anywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def shared_folder():
    """A folder that every user can read; those of tmp_path are private."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    with as_nobody():
        if not os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir would raise)
            pytest.skip("temporary folders are private here")
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


# What is written is what is read.


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_round_trip(path, dtype):
    rows = unit_rows(5, 8)
    write_store(path, IDS, TEXT_IDS, rows, MADE_FROM, dtype)
    for opened in ("from the MindRecord", "from the copy"):
        store = EmbeddingStore.open(path)
        assert (len(store), store.dim, store.ids) == (5, 8, IDS), opened
        found = store.rows(IDS[::-1])
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, rows[::-1].astype(dtype).astype(np.float32))
        np.testing.assert_array_equal(store["train/00042"], found[3])
        text_ids = store.text_ids(IDS)
        assert text_ids.dtype == np.int64
        np.testing.assert_array_equal(text_ids, TEXT_IDS)


def test_the_file_is_the_documented_mindrecord(written):
    reader = FileReader(str(written))
    records = list(reader.get_next())
    reader.close()
    assert [(record["id"], record["text_id"]) for record in records] == list(zip(IDS, TEXT_IDS))
    assert records[0]["embedding"].dtype == np.int32
    halves = np.stack([record["embedding"].view(np.float16) for record in records])
    np.testing.assert_array_equal(halves, unit_rows(5, 8).astype(np.float16))


def test_metadata(written):
    metadata = read_metadata(written)
    assert EmbeddingStore.open(written).metadata == metadata
    assert set(metadata.pop("versions")) == {"mindspore", "mindspore_gpt4image"}
    assert metadata == {**MADE_FROM, "dim": 8, "dtype": "float16", "normalised": True, "count": 5}


def test_blocks_are_written_like_one_array(path):
    rows = unit_rows(5, 8)
    write_store(path, IDS, TEXT_IDS, iter([rows[:2], rows[2:3], rows[3:]]), MADE_FROM, "float32")
    np.testing.assert_array_equal(EmbeddingStore.open(path).rows(IDS), rows)


def test_more_rows_than_a_block(path):
    ids = [f"train/{i:05d}" for i in np.random.default_rng(0).permutation(10_000)]
    rows = unit_rows(10_000, 4)
    write_store(path, ids, range(10_000), rows, MADE_FROM, "float32")
    store = EmbeddingStore.open(path)
    some = np.random.default_rng(1).integers(0, 10_000, 300)
    np.testing.assert_array_equal(store.locate([ids[row] for row in some]), some)
    np.testing.assert_array_equal(store.rows([ids[row] for row in some]), rows[some])


def test_locate_and_take(written):
    store = EmbeddingStore.open(written)
    rows = store.locate(["train/a/b.JPEG", "train/a/b.JPE", "train/a/b.JPEGs", "", "z" * 500, "\udcff", "train/a"])
    np.testing.assert_array_equal(rows, [3, -1, -1, -1, -1, -1, 2])
    assert rows.dtype == np.int64
    embeddings, text_ids = store.take(rows[[0, 6]])
    np.testing.assert_array_equal(embeddings, store.rows(["train/a/b.JPEG", "train/a"]))
    np.testing.assert_array_equal(text_ids, [2, 0])
    assert store.locate([]).shape == (0,)
    assert store.rows([]).shape == (0, 8)


@pytest.mark.parametrize("look_up", ["rows", "text_ids"])
def test_key_error_names_the_first_missing_id(written, look_up):
    with pytest.raises(KeyError, match=r"^'train/none'$"):
        getattr(EmbeddingStore.open(written), look_up)(["train/a", "train/none", "train/neither"])


def test_key_error_of_one_id(written):
    with pytest.raises(KeyError, match="train/none"):
        EmbeddingStore.open(written)["train/none"]


def test_a_store_can_be_moved_and_sent_to_workers(written, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in (written.name, f"{written.name}.db"):
        shutil.move(written.parent / name, elsewhere / name)
    store = EmbeddingStore.open(elsewhere / written.name)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).rows(IDS), store.rows(IDS))


def test_check_descriptions(written):
    store = EmbeddingStore.open(written)
    store.check_descriptions(SHA256, "short")
    assert refusal(store.check_descriptions, SHA256, "long") == (
        f"{written}: holds embeddings of the texts 'short', not 'long'; ask for 'short' or encode 'long'"
    )
    assert refusal(store.check_descriptions, "f" * 64, "short") == (
        f"{written}: was made from other descriptions (sha256 0123456789ab) than the file given (ffffffffffff); "
        "encode that file again or give the one that was encoded"
    )


def test_check_encoder(path):
    write_store(path, IDS, TEXT_IDS, unit_rows(5, 8), {**MADE_FROM, "encoder": "models/clip-vit-base-patch32"})
    store = EmbeddingStore.open(path)
    store.check_encoder("openai/clip-vit-base-patch32")
    assert refusal(store.check_encoder, "clip-vit-large-patch14") == (
        f"{path}: holds embeddings of the encoder models/clip-vit-base-patch32, not clip-vit-large-patch14; "
        "encode with clip-vit-large-patch14"
    )


# The cached copy.


def copies(folder):
    return sorted(folder.glob(".short.mindrecord.cache-*"))


def test_the_copy_is_made_once(written):
    EmbeddingStore.open(written)
    (copy,) = copies(written.parent)
    made = copy.stat().st_ino
    EmbeddingStore.open(written)
    assert [each.stat().st_ino for each in copies(written.parent)] == [made]
    assert sorted(each.name for each in written.parent.iterdir()) == [copy.name, written.name, f"{written.name}.db"]


def test_a_store_is_opened_without_mindspore(written):
    program = (
        "import sys; sys.modules['mindspore'] = sys.modules['torch'] = None\n"
        "from mindspore_gpt4image.data import EmbeddingStore\n"
        "print(EmbeddingStore.open(sys.argv[1]).text_ids(['train/a/b.JPEG'])[0])"
    )
    command = [sys.executable, "-c", program, str(written)]
    for _ in ("from the MindRecord", "from the copy"):
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2\n"
    assert len(copies(written.parent)) == 1


def test_a_new_store_gets_a_new_copy(written):
    before = EmbeddingStore.open(written)
    write_store(written, IDS, TEXT_IDS, unit_rows(5, 8, seed=1), MADE_FROM)
    after = EmbeddingStore.open(written)
    np.testing.assert_array_equal(after.rows(IDS), unit_rows(5, 8, seed=1).astype(np.float16))
    assert len(copies(written.parent)) == 1
    np.testing.assert_array_equal(before.rows(IDS), unit_rows(5, 8).astype(np.float16))


def test_cache_dir(written, tmp_path):
    chosen = tmp_path / "not" / "there"
    store = EmbeddingStore.open(written, cache_dir=chosen)
    assert len(copies(chosen)) == 1
    assert not copies(written.parent)
    np.testing.assert_array_equal(EmbeddingStore.open(written, chosen).rows(IDS), store.rows(IDS))


def test_a_folder_that_cannot_be_written(shared_folder, monkeypatch):
    path, cache = shared_folder / "short.mindrecord", shared_folder / "cache"
    write_store(path, IDS, TEXT_IDS, unit_rows(5, 8), MADE_FROM)
    cache.mkdir()
    cache.chmod(0o777)
    shared_folder.chmod(0o555)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with as_nobody():
        first, second = EmbeddingStore.open(path), EmbeddingStore.open(path)
        np.testing.assert_array_equal(first.rows(IDS), second.rows(IDS))
        assert not copies(shared_folder)
        (copy,) = copies(cache / "mindspore_gpt4image")
        shutil.rmtree(copy.parent)
        monkeypatch.setenv("XDG_CACHE_HOME", str(shared_folder))
        assert refusal(EmbeddingStore.open, path) == (
            f"{path}: its copy for look-ups cannot be written to {shared_folder / 'mindspore_gpt4image'} "
            "(Permission denied); make room or set XDG_CACHE_HOME"
        )


def test_every_finite_half_is_converted_exactly():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(2, -1)
    expected = halves.astype(np.float32)
    np.testing.assert_array_equal(store_module._to_float32(halves).view(np.int32), expected.view(np.int32))


def test_memory_grows_by_the_rows_that_are_read(written, tmp_path):
    """256 of 200,000 rows: 64 kB, where a map of the file would bring in its neighbourhood too."""
    cache = tmp_path / "arrays"
    cache.mkdir()
    count, dim = 200_000, 128
    ids = np.array([f"{n:07d}".encode() for n in range(count)])
    np.save(cache / "ids.npy", ids)
    np.save(cache / "order.npy", np.arange(count))
    np.save(cache / "text_ids.npy", np.arange(count))
    rows = (np.arange(count * dim) % 30_000).astype(np.uint16).reshape(count, dim).view(np.float16)
    rows.tofile(cache / "embeddings")
    store = EmbeddingStore(written, {"dim": dim, "dtype": "float16"}, cache)
    numbers = np.random.default_rng(0).integers(0, count, 256)
    process = psutil.Process()
    before = process.memory_info().rss
    found, _ = store.take(numbers)
    grown = process.memory_info().rss - before
    np.testing.assert_array_equal(found, rows[numbers].astype(np.float32))
    assert grown < 4_000_000


@pytest.mark.slow
def test_processes_that_open_at_once(path):
    ids = [f"train/{i:05d}" for i in range(20_000)]
    write_store(path, ids, range(20_000), unit_rows(20_000, 16), MADE_FROM)
    program = (
        "import sys; from mindspore_gpt4image.data import EmbeddingStore\n"
        "print(EmbeddingStore.open(sys.argv[1]).text_ids(['train/00007', 'train/19999']))"
    )
    command = [sys.executable, "-c", program, str(path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0] for process in processes] == ["[    7 19999]\n"] * 3
    assert len(list(path.parent.iterdir())) == 3  # data, index, one copy


def test_one_makes_the_copy_while_the_others_wait(written, monkeypatch):
    made = []
    write_arrays = store_module._write_arrays

    def write_slowly(*arguments):
        made.append(arguments)
        time.sleep(0.3)
        write_arrays(*arguments)

    monkeypatch.setattr(store_module, "_write_arrays", write_slowly)
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(EmbeddingStore.open, [written] * 4))
    assert len(made) == 1
    for store in stores:
        np.testing.assert_array_equal(store.rows(IDS), stores[0].rows(IDS))


def test_where_files_cannot_be_locked_every_process_makes_its_copy(written, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(store_module.fcntl, "flock", no_locks)
    with ThreadPoolExecutor(3) as pool:
        stores = list(pool.map(EmbeddingStore.open, [written] * 3))
    assert len(copies(written.parent)) == 1
    for store in stores:
        np.testing.assert_array_equal(store.rows(IDS), stores[0].rows(IDS))


@pytest.mark.parametrize("file", ["embeddings", "ids.npy", "order.npy", "text_ids.npy"])
def test_a_damaged_copy(written, file):
    EmbeddingStore.open(written)
    (copy,) = copies(written.parent)
    os.truncate(copy / file, (copy / file).stat().st_size - 1)
    assert refusal(EmbeddingStore.open, written) == f"{copy}: this copy of {written} is damaged; delete the folder"


# Files that are wrong.


def test_missing_file(path):
    assert refusal(EmbeddingStore.open, path) == (
        f"{path}: cannot be read (No such file or directory); make it with tools/encode.py"
    )


def test_missing_index(written):
    Path(f"{written}.db").unlink()
    assert refusal(EmbeddingStore.open, written) == (
        f"{written}: short.mindrecord.db is missing beside it: copy it too, or encode again"
    )


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b'{"id": "train/a", "short": "a dog"}\n' * 9, b"\xff" * 4096])
def test_foreign_file(path, content):
    path.write_bytes(content)
    assert refusal(EmbeddingStore.open, path) == (
        f"{path}: is no embedding store, or a damaged one; make it with tools/encode.py"
    )


@pytest.mark.parametrize("text", ["images and labels", "[]", '"text"', "null"])
def test_foreign_mindrecord(path, text):
    write_mindrecord(path, [("train/a", unit_rows(1, 4)[0])], {"type": "float32", "shape": [4]}, text)
    assert refusal(EmbeddingStore.open, path) == (
        f"{path}: is no embedding store, or a damaged one; make it with tools/encode.py"
    )


def test_metadata_that_lacks_keys(path):
    metadata = {key: value for key, value in MADE_FROM.items() if key != "text"}
    write_mindrecord(path, [("train/a", unit_rows(1, 4)[0])], {"type": "float32", "shape": [4]}, metadata)
    assert refusal(EmbeddingStore.open, path) == (
        f"{path}: its metadata lacks count, dim, dtype, text; make it anew with tools/encode.py"
    )


@pytest.mark.parametrize("size", [50, 20_000_000])
def test_file_cut_short(path, size):
    """In the rows and in the header; MindSpore reads the former without a word."""
    write_store(path, [f"train/{i}" for i in range(5000)], range(5000), unit_rows(5000, 512), MADE_FROM)
    whole = path.stat().st_size
    os.truncate(path, size)
    assert refusal(EmbeddingStore.open, path) == (
        f"{path}: was cut short: {size} of {whole} bytes are there; copy it or encode again"
        if size > 1000
        else f"{path}: is no embedding store, or a damaged one; make it with tools/encode.py"
    )


def test_damaged_index(written):
    Path(f"{written}.db").write_bytes(b"no SQLite")
    assert refusal(EmbeddingStore.open, written) == (
        f"{written}: cannot be read, it is damaged; copy it or encode again"
    )
    assert not copies(written.parent)


def test_renamed_file(written):
    """MindSpore would look for the old name, and read another file of that name if there is one."""
    renamed = written.with_name("long.mindrecord")
    shutil.copy(written, renamed)
    shutil.copy(f"{written}.db", f"{renamed}.db")
    assert refusal(EmbeddingStore.open, renamed) == (
        f"{renamed}: was written as short.mindrecord, and a MindRecord cannot be renamed; "
        "call it short.mindrecord again"
    )


def test_bytes_that_do_not_match_the_dimension(path):
    write_float32(path, ["train/a"], unit_rows(1, 4), dim=8)
    assert refusal(EmbeddingStore.open, path) == (
        f"{path}: its metadata says float32 of dim 8, but its fields are "
        '{"embedding": {"shape": [4], "type": "float32"}, "id": {"type": "string"}, "text_id": {"type": "int64"}}; '
        "encode again"
    )


@pytest.mark.parametrize(("rows", "count"), [(2, 3), (2, 1), (0, 0)])
def test_count_that_does_not_match(path, rows, count):
    write_float32(path, ["train/a", "train/b"][:rows], unit_rows(rows, 4), count=count)
    assert (
        refusal(EmbeddingStore.open, path) == f"{path}: holds {rows} rows, and its metadata says {count}; encode again"
    )


def test_id_that_comes_twice(path):
    write_float32(path, ["train/a", "train/é", "train/b", "train/é"], unit_rows(4, 4))
    assert refusal(EmbeddingStore.open, path) == f"{path}: id 'train/é' comes twice; keep one row of it"


@pytest.mark.parametrize(
    ("value", "fault"), [(np.nan, "is not finite"), (np.inf, "is not finite"), (3.0, "has norm 3, not 1")]
)
def test_bad_row(path, value, fault):
    rows = np.eye(4, dtype=np.float32)
    rows[2, 2] = value
    write_float32(path, IDS[:4], rows)
    assert refusal(EmbeddingStore.open, path) == (
        f"{path}: the embedding of id 'train/a' {fault}; encode its text again"
    )
    assert not copies(path.parent)


# Stores that must not be written. Whatever was there stays.


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (np.nan, "is not finite"),
        (1e6, "is not finite"),  # beyond float16
        (0.0, "has norm 0, not 1"),
        (1.002, "has norm 1.002, not 1"),
    ],
)
def test_a_bad_row_is_not_written(written, value, fault):
    rows = np.eye(8, dtype=np.float32)[:5]
    rows[3, 3] = value
    assert refusal(write_store, written, IDS, TEXT_IDS, rows, MADE_FROM) == (
        f"{written}: the embedding of id 'train/a/b.JPEG' {fault}; encode its text again"
    )
    np.testing.assert_array_equal(EmbeddingStore.open(written).rows(IDS), unit_rows(5, 8).astype(np.float16))


def test_a_norm_within_the_tolerance_is_written(path):
    write_store(path, ["train/a"], [0], np.float32([[1.0009, 0]]), MADE_FROM, "float32")
    np.testing.assert_array_equal(EmbeddingStore.open(path)["train/a"], np.float32([1.0009, 0]))


def test_an_interrupted_write_leaves_nothing(path):
    def blocks():
        yield unit_rows(2, 8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(path, IDS, TEXT_IDS, blocks(), MADE_FROM)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([], "there are no embeddings to write; give the description of at least one image"),
        (["train/a", "train/b", "train/a"], "id 'train/a' comes twice; keep one row of it"),
        (["train/\udcff"], "id 'train/\\udcff' is not valid Unicode; rename the image"),
    ],
)
def test_bad_ids_are_not_written(path, ids, reason):
    assert refusal(write_store, path, ids, range(len(ids)), unit_rows(len(ids), 4), MADE_FROM) == f"{path}: {reason}"


def test_fewer_rows_than_ids_or_less_metadata_are_the_callers_fault(path):
    with pytest.raises(ValueError, match="5 ids, but 3 embeddings"):
        write_store(path, IDS, TEXT_IDS, unit_rows(3, 8), MADE_FROM)
    with pytest.raises(ValueError, match="metadata lacks descriptions_sha256, encoder, text, truncated"):
        write_store(path, IDS, TEXT_IDS, unit_rows(5, 8), {})


def test_odd_dimension(path):
    assert refusal(check_destination, path, 7, "float16") == (
        f"{path}: embeddings of odd length (7) cannot be stored as float16; choose float32"
    )
    write_store(path, IDS, TEXT_IDS, unit_rows(5, 7), MADE_FROM, "float32")
    np.testing.assert_array_equal(EmbeddingStore.open(path).rows(IDS), unit_rows(5, 7))


@pytest.mark.parametrize("name", ["a:b.mindrecord", "a'b.mindrecord", " a.mindrecord"])
def test_names_that_mindrecord_forbids(tmp_path, name):
    assert refusal(check_destination, tmp_path / name, 8, "float16") == (
        f"{tmp_path / name}: MindRecord forbids \\/:*?\"<>|`&'; and outer spaces in names; choose another"
    )


def test_folder_that_cannot_be_made_or_written(tmp_path, shared_folder):
    (tmp_path / "file").touch()
    assert refusal(check_destination, tmp_path / "file" / "short.mindrecord", 8, "float16") == (
        f"{tmp_path / 'file'}: cannot be written (File exists); choose another folder"
    )
    shared_folder.chmod(0o555)
    with as_nobody():
        assert refusal(check_destination, shared_folder / "short.mindrecord", 8, "float16") == (
            f"{shared_folder}: cannot be written (Permission denied); choose another folder"
        )


def test_the_folder_is_made(tmp_path):
    path = tmp_path / "new" / "folder" / "short.mindrecord"
    write_store(path, IDS, TEXT_IDS, unit_rows(5, 8), MADE_FROM)
    assert len(EmbeddingStore.open(path)) == 5


def test_files_have_the_usual_permissions(written, tmp_path):
    (tmp_path / "usual").touch()
    for file in (written, Path(f"{written}.db")):
        assert file.stat().st_mode == (tmp_path / "usual").stat().st_mode
