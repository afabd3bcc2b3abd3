"""From descriptions to a store, with an encoder whose embeddings are known and that keeps a record of its batches."""

import json
import signal
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mindspore_gpt4image.data import EmbeddingStore
from mindspore_gpt4image.data.store import read_metadata
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline import parts
from mindspore_gpt4image.offline.encode import encode_descriptions, is_encoded, made_from
from mindspore_gpt4image.offline.parts import split_sentences
from mindspore_gpt4image.offline.ranks import Ranks
from mindspore_gpt4image.sources.descriptions import file_sha256


class WordEncoder:
    """A text's embedding is drawn from its words; a token is a word."""

    name, dim, context_length, empty_count = "words", 6, 5, 0
    sha256, precision = "5" * 64, "float32"

    def __init__(self):
        self.batches = []

    def encode(self, texts):
        self.batches.append(list(texts))
        return np.stack([self.embedding(text) for text in texts])

    @classmethod
    def embedding(cls, text):
        row = np.random.default_rng(list(text.encode())).standard_normal(cls.dim).astype(np.float32)
        return row / np.linalg.norm(row)

    def token_counts(self, texts):
        return np.array([len(text.split()) for text in texts])


TEXTS = {
    "train/b": "a dog",
    "train/a": "one two three four five six",
    "train/é": "  a dog\n",
    "train/c": "one two three four five",
    "train/d": "a cat",
}


@pytest.fixture
def descriptions(tmp_path):
    path = tmp_path / "descriptions.jsonl"
    path.write_text("".join(json.dumps({"id": id, "short": text}) + "\n" for id, text in TEXTS.items()))
    return path


@pytest.fixture
def output(tmp_path):
    return tmp_path / "stores" / "short.mindrecord"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_each_image_gets_the_embedding_of_its_text(descriptions, output, dtype):
    encode_descriptions(descriptions, "short", WordEncoder(), output, dtype=dtype)
    store = EmbeddingStore.open(output)
    assert store.ids == list(TEXTS)
    for id, text in TEXTS.items():
        np.testing.assert_array_equal(store[id], WordEncoder.embedding(text.strip()).astype(dtype))


def test_equal_texts_are_encoded_once(descriptions, output):
    encoder = WordEncoder()
    encoding = encode_descriptions(descriptions, "short", encoder, output)
    store = EmbeddingStore.open(output)
    np.testing.assert_array_equal(store.text_ids(list(TEXTS)), [0, 1, 0, 2, 3])
    np.testing.assert_array_equal(store["train/b"], store["train/é"])
    assert sorted(sum(encoder.batches, [])) == sorted({text.strip() for text in TEXTS.values()})
    assert (encoding.texts, encoding.encoded) == (4, 4)
    assert encoding.seconds > 0


def test_texts_of_like_length_share_a_batch(descriptions, output):
    encoder = WordEncoder()
    encode_descriptions(descriptions, "short", encoder, output, batch_size=2)
    assert encoder.batches == [[TEXTS["train/a"], TEXTS["train/c"]], ["a dog", "a cat"]]


def test_the_order_of_lines_does_not_matter(descriptions, output, tmp_path):
    encode_descriptions(descriptions, "short", WordEncoder(), output)
    lines = descriptions.read_text().splitlines(keepends=True)
    turned = tmp_path / "turned.jsonl"
    turned.write_text("".join(reversed(lines)))
    encode_descriptions(turned, "short", WordEncoder(), tmp_path / "turned.mindrecord", batch_size=1)
    ids = list(TEXTS)
    np.testing.assert_array_equal(
        EmbeddingStore.open(tmp_path / "turned.mindrecord").rows(ids), EmbeddingStore.open(output).rows(ids)
    )


def test_metadata(descriptions, output):
    metadata = encode_descriptions(descriptions, "short", WordEncoder(), output).metadata
    assert metadata == read_metadata(output)
    assert set(metadata.pop("versions")) == {"mindspore", "mindspore_gpt4image", "torch", "transformers"}
    assert metadata == {
        "encoder": "words",
        "dim": 6,
        "dtype": "float16",
        "normalised": True,
        "text": "short",
        "count": 5,
        "context_length": 5,
        "encoder_sha256": "5" * 64,
        "overflow": "truncate",
        "precision": "float32",
        "tokens": [[2, 3], [5, 1], [6, 1]],
        "truncated": 0.2,
        "descriptions_sha256": file_sha256(descriptions),
    }
    EmbeddingStore.open(output).check_descriptions(file_sha256(descriptions), "short")


def test_what_cannot_be_stored_is_refused_before_anything_is_encoded(descriptions, output):
    encoder = WordEncoder()
    encoder.dim = 7
    with pytest.raises(UserError, match=r"odd length \(7\)"):
        encode_descriptions(descriptions, "short", encoder, output)
    with pytest.raises(UserError, match="5 of 5 lines lack 'long'"):
        encode_descriptions(descriptions, "long", encoder, output, dtype="float32")
    assert encoder.batches == []


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_an_embedding_without_direction_names_the_image(descriptions, output, value):
    encoder = WordEncoder()
    encoder.embedding = lambda text: np.full(6, value) if "cat" in text else WordEncoder.embedding(text)
    with pytest.raises(UserError, match="the text of id 'train/d' gets an embedding in float32 that has no direction"):
        encode_descriptions(descriptions, "short", encoder, output)
    assert not output.exists()


# Parts, kills and ranks.


def write_set(path, texts):
    path.write_text("".join(json.dumps({"id": f"train/{i}", "short": text}) + "\n" for i, text in enumerate(texts)))
    return path


@pytest.fixture
def many(tmp_path):
    """103 images with 69 distinct texts of one to seven words."""
    return write_set(tmp_path / "many.jsonl", [" ".join([f"w{i % 69}"] * (1 + i % 69 % 7)) for i in range(103)])


def contents(path):
    store = EmbeddingStore.open(path)
    return store.ids, store.text_ids(store.ids).tolist(), store.rows(store.ids).tobytes(), store.metadata


def leftovers(output):
    return [path.name for path in output.parent.glob(".*encoding*")]


def test_parts_that_are_there_are_not_encoded_again(many, output, tmp_path):
    class Stopping(WordEncoder):
        def encode(self, texts):
            if len(self.batches) == 40:
                raise KeyboardInterrupt
            return super().encode(texts)

    stopped, resumed = Stopping(), WordEncoder()
    with pytest.raises(KeyboardInterrupt):
        encode_descriptions(many, "short", stopped, output, batch_size=1)
    assert not output.exists() and leftovers(output)
    encoding = encode_descriptions(many, "short", resumed, output, batch_size=1)
    # Two parts of 16 texts were whole, the third was not.
    assert {batch[0] for batch in stopped.batches[:32]}.isdisjoint(batch[0] for batch in resumed.batches)
    assert encoding.encoded == len(resumed.batches) == encoding.texts - 32
    assert leftovers(output) == []
    encode_descriptions(many, "short", WordEncoder(), tmp_path / "whole.mindrecord", batch_size=1)
    assert contents(output) == contents(tmp_path / "whole.mindrecord")


def test_another_encoder_does_not_take_the_parts(many, output):
    class Failing(WordEncoder):
        def encode(self, texts):
            if len(self.batches) == 20:
                raise RuntimeError("the device is gone")
            return super().encode(texts)

    with pytest.raises(RuntimeError):
        encode_descriptions(many, "short", Failing(), output, batch_size=1)
    other = WordEncoder()
    other.sha256 = "6" * 64
    encoding = encode_descriptions(many, "short", other, output, batch_size=1)
    assert encoding.encoded == encoding.texts
    assert leftovers(output) == []  # those of the first neither


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_encode import WordEncoder
from mindspore_gpt4image.offline import parts
from mindspore_gpt4image.offline.encode import encode_descriptions

class Killed(WordEncoder):
    def encode(self, texts):
        if len(self.batches) == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(texts)

encode_descriptions(sys.argv[2], "short", Killed(), sys.argv[3], batch_size=2)
"""


def test_killed_and_started_again(many, output, tmp_path):
    for batches in (0, 3, 17, 18):
        command = [sys.executable, "-c", KILLED, Path(__file__).parent, many, output, str(batches)]
        assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
        assert not output.exists()
    encode_descriptions(many, "short", WordEncoder(), output, batch_size=2)
    encode_descriptions(many, "short", WordEncoder(), tmp_path / "whole.mindrecord", batch_size=2)
    assert contents(output) == contents(tmp_path / "whole.mindrecord")
    assert sorted(path.name for path in output.parent.iterdir() if not path.name.startswith(".")) == [
        output.name,
        f"{output.name}.db",
    ]


@pytest.mark.parametrize("ranks", [2, 3, 9])
def test_ranks_share_the_work(many, output, tmp_path, ranks):
    encode_descriptions(many, "short", WordEncoder(), tmp_path / "alone.mindrecord", batch_size=1)
    encoders = [WordEncoder() for _ in range(ranks)]

    def run(rank):
        return encode_descriptions(many, "short", encoders[rank], output, batch_size=1, ranks=Ranks(rank, ranks))

    with ThreadPoolExecutor(ranks) as pool:
        results = list(pool.map(run, range(ranks)))
    assert contents(output) == contents(tmp_path / "alone.mindrecord")
    assert results[0].texts == 69 and results[1:] == [None] * (ranks - 1)
    shares = [len(encoder.batches) for encoder in encoders]
    assert sum(shares) == 69
    # Five parts: of nine ranks four have nothing to do.
    assert sum(share > 0 for share in shares) == min(ranks, 5)


def test_a_rank_that_comes_too_late_has_nothing_to_do(many, output):
    encode_descriptions(many, "short", WordEncoder(), output)
    assert encode_descriptions(many, "short", WordEncoder(), output, ranks=Ranks(1, 2)) is None


def test_memory_does_not_grow_with_the_texts(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_BLOCK_ROWS", 256)

    class Constant(WordEncoder):
        def encode(self, texts):
            return np.tile(np.eye(1, 6, dtype=np.float32), (len(texts), 1))

        def token_counts(self, texts):
            return np.array([len(text) % 5 + 1 for text in texts])

    peaks = []
    for count in (2_000, 8_000):
        path = write_set(tmp_path / f"{count}.jsonl", (f"text number {i}" for i in range(count)))
        tracemalloc.start()
        encode_descriptions(path, "short", Constant(), tmp_path / f"{count}.mindrecord")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 300_000


# Texts that are too long, and too short.


def test_mean_of_sentences(tmp_path, output):
    texts = [
        "one two three",
        "one two. three four! five six",  # six words, sentences of two
        "one two three four five six",  # no sentence to split at
        "a b c d e f g. h",  # its first sentence is too long by itself
        "same same. same same.\n\nsame same same",
    ]
    path = write_set(tmp_path / "long.jsonl", texts)
    encoding = encode_descriptions(path, "short", WordEncoder(), output, dtype="float32", overflow="mean-sentences")
    of = WordEncoder.embedding
    expected = [
        of("one two three"),
        of("one two.") + of("three four!") + of("five six"),
        of("one two three four five six"),
        of("a b c d e f g.") + of("h"),
        of("same same.") * 2 + of("same same same"),
    ]
    rows = EmbeddingStore.open(output).rows([f"train/{i}" for i in range(5)])
    np.testing.assert_allclose(rows, [row / np.linalg.norm(row) for row in expected], atol=1e-6)
    np.testing.assert_array_equal(rows[[0, 2]], [expected[0], expected[2]])
    assert encoding.metadata["truncated"] == 2 / 5
    assert encoding.metadata["tokens"] == [[3, 1], [6, 2], [7, 1], [8, 1]]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A dog. A cat!  A bird?", ["A dog.", "A cat!", "A bird?"]),
        ("3.5 metres, e.g.this", ["3.5 metres, e.g.this"]),
        ("一只狗。一只猫！", ["一只狗。", "一只猫！"]),
        ("first line\n\n second", ["first line", "second"]),
    ],
)
def test_sentences(text, sentences):
    assert split_sentences(text) == sentences


def test_a_text_that_is_nothing_to_the_encoder(tmp_path, output):
    """Some tokenizers drop punctuation: what is left would be embedded as the empty text."""

    class Deaf(WordEncoder):
        def token_counts(self, texts):
            return np.array([1 + len([word for word in text.split() if word.isalpha()]) for text in texts])

    encoder = Deaf()
    encoder.empty_count = 1
    path = write_set(tmp_path / "set.jsonl", ["a dog", "?!", "a cat"])
    with pytest.raises(UserError) as caught:
        encode_descriptions(path, "short", encoder, output)
    assert str(caught.value) == (
        f"{path}: the text of id 'train/1' holds nothing that the text encoder reads; say it in words"
    )
    assert encoder.batches == []


def test_an_id_that_comes_twice(tmp_path, output):
    path = tmp_path / "set.jsonl"
    path.write_text('{"id": "a", "short": "x"}\n{"id": "b", "short": "x"}\n{"id": "a", "short": "y"}\n')
    with pytest.raises(UserError) as caught:
        encode_descriptions(path, "short", WordEncoder(), output)
    assert str(caught.value) == f"{path}, line 3: id 'a' was on line 1 already; keep one of the two"
    assert leftovers(output) == []


def test_is_encoded(descriptions, output):
    encoder = WordEncoder()
    asked = {"descriptions": descriptions, "text": "short", "encoder": encoder, "dtype": "float16"}
    assert not is_encoded(output, made_from(**asked))
    encode_descriptions(**asked, output=output)
    assert is_encoded(output, made_from(**asked))
    other = WordEncoder()
    other.sha256 = "6" * 64
    half = WordEncoder()
    half.precision = "bf16"
    differences = ({"text": "long"}, {"encoder": other}, {"encoder": half}, {"dtype": "float32"})
    for difference in (*differences, {"overflow": "mean-sentences"}):
        assert not is_encoded(output, made_from(**{**asked, **difference}))
    index = output.with_name(output.name + ".db")
    index.rename(output.with_name("kept"))
    assert not is_encoded(output, made_from(**asked))
    output.with_name("kept").rename(index)
    with descriptions.open("a") as file:
        file.write('{"id": "train/new", "short": "a bird"}\n')
    assert not is_encoded(output, made_from(**asked))


def test_a_file_that_is_no_store_is_not_replaced(descriptions):
    with pytest.raises(UserError) as caught:
        is_encoded(descriptions, {})
    assert str(caught.value) == f"{descriptions}: is there and no embedding store; delete it or choose another name"


def test_neither_mindspore_nor_torch_is_imported_before_it_is_needed():
    block = "import sys; sys.modules['mindspore'] = sys.modules['torch'] = None; "
    subprocess.run([sys.executable, "-c", block + "import mindspore_gpt4image.offline.encode"], check=True)
