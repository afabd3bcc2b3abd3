"""Ranks of the right text against a full matrix."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from PIL import Image
from tiny_data import SIDE, TEXT_DIM, make_images, make_store

from mindspore_gpt4image.data.store import EmbeddingStore, write_store
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.evaluation import retrieval as module
from mindspore_gpt4image.evaluation.retrieval import (
    Retrieval,
    embed_images,
    image_to_text,
    retrieve,
    text_to_image,
    uniformity,
    zero_shot,
)
from mindspore_gpt4image.sources.formats import list_images
from mindspore_gpt4image.sources.preprocessing import EvalTransform

TRANSFORM = EvalTransform(SIDE, SIDE)


class RandomEmbedding(nn.Cell):
    """A fixed linear map of the pixels."""

    def __init__(self):
        super().__init__()
        matrix = np.random.default_rng(0).standard_normal((SIDE * SIDE * 3, TEXT_DIM))
        self.matrix = Tensor(matrix, ms.float32)

    def construct(self, images):
        return ms.ops.matmul(images.astype(ms.float32).reshape(images.shape[0], -1) - 128, self.matrix)


class Collapsed(nn.Cell):
    def construct(self, images):
        return ms.ops.zeros((images.shape[0], TEXT_DIM), ms.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    ids = make_images(root, "test", 7)
    store = EmbeddingStore.open(make_store(root, ids[1:]))
    return list_images(root, "test"), store


def embeddings_of(images, embed):
    return embed_images(embed, images, TRANSFORM, batch_size=8, workers=2)


def test_images_are_embedded_in_their_order(data):
    images, _ = data
    pixels = np.stack([TRANSFORM(Image.open(images.root / id)) for id in images.ids])
    expected = RandomEmbedding()(Tensor(pixels)).asnumpy()
    np.testing.assert_allclose(embeddings_of(images, RandomEmbedding()), expected, rtol=1e-4, atol=1e-2)


def test_ranks_of_a_split_equal_those_of_the_full_matrix(data):
    """One image has no text, and texts repeat."""
    images, store = data
    embeddings = embeddings_of(images, RandomEmbedding())
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    result = retrieve(embeddings, images.ids, store)
    described = images.ids[1:]
    texts = {int(text_id): store[id] for id, text_id in zip(described, store.text_ids(described))}
    expected = []
    for embedding, id in zip(embeddings[1:], described):
        right = embedding @ store[id]
        expected.append(sum(embedding @ text >= right - 1e-6 for text in texts.values()))
    assert result.image_to_text.candidates == len(texts) == 15
    assert result.image_to_text.rank.tolist() == expected
    assert result.image_to_text.recall(3) == pytest.approx(100 * np.mean(np.array(expected) <= 3))
    assert (len(result.text_to_image.rank), result.text_to_image.candidates) == (15, 20)
    assert result.to_dict()["text_to_image"]["texts"] == 15


@pytest.mark.parametrize("block", [1, 7, 256])
def test_both_ways_equal_the_full_matrix(block, monkeypatch):
    """Against loops over every image and every text, blocks of any size; texts have 1 to 4 images."""
    monkeypatch.setattr(module, "_BLOCK_ROWS", block)
    random = np.random.default_rng(3)
    images, texts = random.standard_normal((40, 6)), random.standard_normal((16, 6))
    text_of_image = np.concatenate([np.arange(16), random.integers(0, 16, 24)])
    scores = images @ texts.T
    there = image_to_text(images, texts, text_of_image)
    back = text_to_image(texts, images, text_of_image)
    for image, text in enumerate(text_of_image):
        order = sorted(range(16), key=lambda other: -scores[image, other])
        assert there.rank[image] == 1 + order.index(text)
    for text in range(16):
        order = sorted(range(40), key=lambda image: -scores[image, text])
        first = next(place for place, image in enumerate(order) if text_of_image[image] == text)
        # Better ones of its own do not stand in the way: the first of them counts.
        assert back.rank[text] == 1 + first
        assert back.right[text] == (text_of_image == text).sum()


def test_equal_embeddings_rank_last_not_first(data):
    images, store = data
    result = retrieve(embeddings_of(images, Collapsed()), images.ids, store)
    assert (result.image_to_text.rank == 15).all()
    assert (result.text_to_image.rank == 21 - result.text_to_image.right).all()
    assert result.image_to_text.recall(1) == 0


def test_images_without_texts_cannot_be_measured(data):
    assert retrieve(np.zeros((1, TEXT_DIM), np.float32), ["test/other.png"], data[1]) is None


def test_chance_is_that_of_drawing_without_replacement():
    """2 right ones of 4: the first draw misses with 1/2, two draws with 1/2 * 1/3; all draws miss nothing."""
    result = Retrieval(np.array([1, 2]), right=np.array([1, 2]), candidates=4)
    assert result.chance(1) == pytest.approx(100 * (1 / 4 + 1 / 2) / 2)
    assert result.chance(2) == pytest.approx(100 * (1 / 2 + 5 / 6) / 2)
    assert (result.chance(10), result.recall(1), result.recall(10)) == (100.0, 50.0, 100.0)


def test_alignment_and_uniformity_by_hand(data):
    """Two opposite points: every pair is at squared distance 4, so log exp(-8); equal points: 0."""
    assert uniformity(np.array([[1.0, 0], [-1, 0]])) == pytest.approx(-8)
    assert uniformity(np.array([[1.0, 0], [1, 0], [1, 0]])) == pytest.approx(0)
    images, store = data
    exact = retrieve(store.rows(images.ids[1:]), images.ids[1:], store)
    assert exact.alignment == pytest.approx(0, abs=1e-6)
    assert exact.image_to_text.recall(1) == exact.text_to_image.recall(1) == 100
    opposite = retrieve(-store.rows(images.ids[1:]), images.ids[1:], store)
    assert opposite.alignment == pytest.approx(4, abs=1e-3)


def test_classes_are_found_by_their_names(data, tmp_path):
    images, _ = data
    vectors = np.eye(3, TEXT_DIM, dtype=np.float32)
    metadata = {"encoder": "by hand", "text": "short", "truncated": 0, "descriptions_sha256": ""}
    write_store(tmp_path / "names.mindrecord", ["red", "green", "blue"], [0, 1, 2], vectors, metadata)
    names = EmbeddingStore.open(tmp_path / "names.mindrecord")
    # Labels are blue, green, red: their vectors are the rows 2, 1, 0.
    right = vectors[[2, 1, 0]][images.labels]
    assert zero_shot(right, images, names) == {"top1": 100.0, "top5": 100.0, "k": 3}
    assert zero_shot(np.zeros_like(right), images, names)["top1"] == 0
    write_store(tmp_path / "two.mindrecord", ["red", "green"], [0, 1], vectors[:2], metadata)
    with pytest.raises(UserError, match=r"has no text of 1 of the 3 classes \(first: blue\)"):
        zero_shot(right, images, EmbeddingStore.open(tmp_path / "two.mindrecord"))
