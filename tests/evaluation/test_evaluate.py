"""Which stores go with a checkpoint."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_data import TEXT_DIM, make_images, make_store

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.evaluation.evaluate import open_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return make_store(root, make_images(root, "val", 2))


def classifier(text_dim, texts):
    checkpoint = SimpleNamespace(progress={"texts": texts})
    return SimpleNamespace(path=Path("run/last.ckpt"), model=SimpleNamespace(text_dim=text_dim), checkpoint=checkpoint)


# None: written before checkpoints told the encoder.
@pytest.mark.parametrize("texts", [{"encoder": "random"}, None])
def test_the_store_of_the_same_encoder_is_opened(store, texts):
    assert open_store(classifier(TEXT_DIM, texts), "--embeddings", store).dim == TEXT_DIM


@pytest.mark.parametrize(
    ("text_dim", "encoder", "fault"),
    [
        (None, None, "run/last.ckpt has no projection"),
        (512, "random", "has dimension 8, the checkpoint was aligned with 512"),
        (TEXT_DIM, "openai/clip", "holds embeddings of the encoder random, not openai/clip"),
    ],
)
def test_another_store_is_refused(store, text_dim, encoder, fault):
    with pytest.raises(UserError, match=fault):
        open_store(classifier(text_dim, {"encoder": encoder}), "--embeddings", store)
