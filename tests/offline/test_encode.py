"""From descriptions to a store, with an encoder whose embeddings are known and that keeps a record of its batches."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mindspore_gpt4image.data import EmbeddingStore
from mindspore_gpt4image.data.store import read_metadata
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.encode import encode_descriptions, is_encoded
from mindspore_gpt4image.sources.descriptions import file_sha256


class WordEncoder:
    """A text's embedding is drawn from its words; a token is a word."""

    name, dim, context_length = "words", 6, 5

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
    assert encoding.texts == 4
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
    with pytest.raises(UserError, match="the embedding of id 'train/d' "):
        encode_descriptions(descriptions, "short", encoder, output)
    assert not output.exists()


def test_is_encoded(descriptions, output):
    asked = {"descriptions": descriptions, "text": "short", "encoder": "words", "dtype": "float16"}
    assert not is_encoded(output, **asked)
    encode_descriptions(descriptions, "short", WordEncoder(), output)
    assert is_encoded(output, **asked)
    for difference in ({"text": "long"}, {"encoder": "clip"}, {"dtype": "float32"}):
        assert not is_encoded(output, **{**asked, **difference})
    index = output.with_name(output.name + ".db")
    index.rename(output.with_name("kept"))
    assert not is_encoded(output, **asked)
    output.with_name("kept").rename(index)
    with descriptions.open("a") as file:
        file.write('{"id": "train/new", "short": "a bird"}\n')
    assert not is_encoded(output, **asked)


def test_a_file_that_is_no_store_is_not_replaced(descriptions):
    with pytest.raises(UserError) as caught:
        is_encoded(descriptions, descriptions, "short", "words", "float16")
    assert str(caught.value) == f"{descriptions}: is there and no embedding store; delete it or choose another name"


def test_mindspore_is_imported_only_to_write_and_torch_only_by_the_encoder():
    program = (
        "import sys; sys.modules['mindspore'] = None\n"
        "import mindspore_gpt4image.offline.encode; assert 'torch' not in sys.modules\n"
        "import mindspore_gpt4image.offline.text_encoder"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
