"""Ranks of the right text against a full matrix."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from PIL import Image
from tiny_data import SIDE, TEXT_DIM, make_images, make_store

from mindspore_gpt4image.data.store import EmbeddingStore
from mindspore_gpt4image.evaluation.retrieval import Retrieval, retrieve
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


def test_ranks_equal_those_of_the_full_matrix(data):
    images, store = data
    result = retrieve(RandomEmbedding(), images, store, TRANSFORM, batch_size=8, workers=2)
    described = images.ids[1:]
    texts = {int(text_id): store[id] for id, text_id in zip(described, store.text_ids(described))}
    pixels = np.stack([TRANSFORM(Image.open(images.root / id)) for id in images.ids[1:]])
    embeddings = RandomEmbedding()(Tensor(pixels)).asnumpy()
    expected = []
    for embedding, id in zip(embeddings, described):
        right = embedding @ store[id]
        expected.append(sum(embedding @ text >= right - 1e-4 for text in texts.values()))
    assert result.texts == len(texts) == 15
    assert result.rank.tolist() == expected
    assert result.recall(3) == pytest.approx(100 * np.mean(np.array(expected) <= 3))


def test_equal_embeddings_rank_last_not_first(data):
    images, store = data
    result = retrieve(Collapsed(), images, store, TRANSFORM, batch_size=8, workers=2)
    assert (result.rank == result.texts).all()
    assert result.recall(1) == 0


def test_images_without_texts_cannot_be_measured(data, tmp_path):
    make_images(tmp_path, "val", 1)
    assert retrieve(Collapsed(), list_images(tmp_path, "val"), data[1], TRANSFORM, 4, 1) is None


def test_chance_is_clipped_to_all():
    result = Retrieval(np.array([1, 2]), texts=4)
    assert (result.chance(1), result.chance(10), result.recall(1), result.recall(10)) == (25.0, 100.0, 50.0, 100.0)
