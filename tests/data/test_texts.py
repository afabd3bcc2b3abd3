"""The join of images and texts is by id: no order of lines or rows changes what an image is pulled to."""

import numpy as np
import pytest
from tiny_data import TEXT_DIM, make_images

from mindspore_gpt4image.data.store import EmbeddingStore, write_store
from mindspore_gpt4image.data.texts import join_texts, shuffle_texts
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.formats import list_images

METADATA = {"encoder": "random", "text": "short", "truncated": 0, "descriptions_sha256": "0" * 64}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    make_images(root, "train", 4)
    return list_images(root, "train")


def make(tmp_path, ids, name="s.mindrecord"):
    """A store whose vectors and text ids depend on the id alone; ids that end in 03 share the text of 02."""
    vectors, text_ids = [], []
    for id in ids:
        key = id.replace("03.png", "02.png")
        random = np.random.default_rng(list(key.encode()))
        vector = random.standard_normal(TEXT_DIM)
        vectors.append(vector / np.linalg.norm(vector))
        text_ids.append(sum(key.encode()) + 1000 * len(key))
    write_store(tmp_path / name, ids, text_ids, np.array(vectors, np.float32), METADATA)
    return EmbeddingStore.open(tmp_path / name)


def test_shuffled_rows_give_the_same_batches(images, tmp_path):
    shuffled = np.random.default_rng(0).permutation(images.ids).tolist()
    one = join_texts(images, make(tmp_path, images.ids))
    other = join_texts(images, make(tmp_path, [*shuffled, "train/nobody.png"], "t.mindrecord"))
    positions = np.array([7, 0, 3, 11])
    for a, b in zip(one.batch(positions), other.batch(positions)):
        assert (a == b).all()
    assert one.batch(positions)[0].dtype == np.float32
    assert one.batch(positions)[1].dtype == np.int32


def test_an_image_gets_its_own_text(images, tmp_path):
    store = make(tmp_path, images.ids[::-1])
    text_emb, text_id = join_texts(images, store).batch(np.arange(12))
    assert (text_emb == store.rows(images.ids)).all()
    assert (text_id == store.text_ids(images.ids)).all()
    assert text_id[2] == text_id[3] != text_id[1]


def test_images_without_text_are_refused_with_their_number_and_the_first_three(images, tmp_path):
    store = make(tmp_path, images.ids[5:])
    with pytest.raises(UserError) as error:
        join_texts(images, store)
    assert (
        "lacks 5 of the 12 images" in str(error.value)
        and "(first: train/blue/00.png, train/blue/01.png, train/blue/02.png)" in str(error.value)
        and "data.missing_text=skip" in str(error.value)
    )


def test_skipped_images_have_text_id_minus_one(images, tmp_path):
    texts = join_texts(images, make(tmp_path, images.ids[5:]), missing_text="skip")
    text_emb, text_id = texts.batch(np.array([4, 5]))
    assert text_id[0] == -1 and text_id[1] >= 0
    assert (text_emb[0] == 0).all() and (text_emb[1] != 0).any()


def test_a_store_of_other_images_is_refused_even_when_missing_texts_are_skipped(images, tmp_path):
    with pytest.raises(UserError, match="lacks 12 of the 12"):
        join_texts(images, make(tmp_path, ["train/x.png"]), missing_text="skip")


def test_without_masking_ids_are_unique_over_ranks_but_for_missing_texts(images, tmp_path):
    texts = join_texts(images, make(tmp_path, images.ids[5:]), missing_text="skip", mask_same_text=False)
    ids = [texts.batch(np.array([6, 7, 0]), rank)[1].tolist() for rank in (0, 1)]
    assert ids == [[0, 1, -1], [3, 4, -1]]


def test_the_control_deals_the_same_texts_to_other_images(images, tmp_path):
    texts = join_texts(images, make(tmp_path, images.ids[1:]), missing_text="skip")
    dealt = shuffle_texts(texts, seed=1)
    assert sorted(dealt.row) == sorted(texts.row)
    assert dealt.row[0] == -1
    assert (dealt.row != texts.row).sum() > 6
    assert (dealt.row == shuffle_texts(texts, seed=1).row).all()
    assert (dealt.row != shuffle_texts(texts, seed=2).row).any()
