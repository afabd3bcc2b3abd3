"""Packing a folder: what is in the shards, that training reads from them what it reads from the folder, resuming."""

import io
import json
import shutil

import numpy as np
import pytest
from cifar_archives import write_archive
from PIL import Image
from tiny_data import make_data_set

from mindspore_gpt4image.config import load_config
from mindspore_gpt4image.data import pack as pack_module
from mindspore_gpt4image.data.augmentation import Augmentation
from mindspore_gpt4image.data.pack import pack, shrink
from mindspore_gpt4image.data.pipeline import epoch_order, train_batches
from mindspore_gpt4image.data.store import EmbeddingStore
from mindspore_gpt4image.data.texts import join_texts, packed_texts
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.formats import list_images, validation_split
from mindspore_gpt4image.sources.packed import read_pack

RANDOM = Augmentation(16, crop="random_resized", flip=0.5)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """24 training images, of which one has no text, and 9 of val. One is a JPEG of 60 x 40, one has a long name."""
    root = make_data_set(tmp_path_factory.mktemp("data"))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(root / "train" / "red" / "große Äpfel.JPEG", quality=95)
    return root


@pytest.fixture(scope="module")
def packed(root, tmp_path_factory):
    output = tmp_path_factory.mktemp("packed")
    pack(
        root,
        output,
        ("train", "val"),
        embeddings=root / "short.mindrecord",
        missing_text="skip",
        shard_images=10,
        workers=2,
    )
    return output


@pytest.mark.parametrize("data_set", ["cifar10", "cifar100"])
def test_cifar_is_packed_too(tmp_path, data_set):
    archive = write_archive(tmp_path, data_set, "python")
    output = tmp_path / "packed"
    pack(archive, output, ("train", "test"))
    assert validation_split(output) == "test"
    for split in ("train", "test"):
        ours, theirs = list_images(output, split), list_images(archive, split)
        assert (ours.ids, ours.classes, ours.labels.tolist()) == (theirs.ids, theirs.classes, theirs.labels.tolist())
        for position in range(len(ours)):
            assert (np.asarray(ours.rgb(position)) == np.asarray(theirs.rgb(position))).all()


def copy(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "packed")


def test_the_images_are_those_of_the_folder(root, packed):
    for split in ("train", "val"):
        ours, folder = list_images(packed, split), list_images(root, split)
        assert (ours.ids, ours.classes) == (folder.ids, folder.classes)
        assert (ours.labels == folder.labels).all()
        for position in range(len(ours)):
            assert ours.encoded(position) == folder.encoded(position)
            assert ours.rgb(position).tobytes() == folder.rgb(position).tobytes()
    assert validation_split(packed) == "val"


def test_the_shards_are_ordinary_mindrecord(root, packed):
    """As somebody else would read them."""
    import mindspore.dataset as ds

    files = [str(packed / "train" / f"000{n}.mindrecord") for n in range(3)]
    rows = list(ds.MindDataset(files, shuffle=False).create_dict_iterator(num_epochs=1, output_numpy=True))
    images, store = list_images(root, "train"), EmbeddingStore.open(root / "short.mindrecord")
    assert [str(row["id"]) for row in rows] == images.ids
    assert [int(row["label"]) for row in rows] == images.labels.tolist()
    for position, row in enumerate(rows):
        assert row["image"].tobytes() == images.encoded(position)
        if "Äpfel" in images.ids[position]:
            assert row["text_id"] == -1 and not row["embedding"].view(np.uint8).any()
        else:
            assert row["text_id"] == store.text_ids([images.ids[position]])[0]
            assert (row["embedding"].view(np.float16) == store[images.ids[position]]).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_training_batches_are_those_of_the_folder_bit_by_bit(root, packed, workers):
    folder, ours = list_images(root, "train"), list_images(packed, "train")
    joined = join_texts(folder, EmbeddingStore.open(root / "short.mindrecord"), missing_text="skip")
    texts = packed_texts(ours, missing_text="skip")
    assert joined.metadata == texts.metadata
    order = epoch_order(25, 6, seed=4, epoch=1)
    from_folder = train_batches(folder, order, RANDOM, 6, 7, workers)
    from_shards = train_batches(ours, order, RANDOM, 6, 7, workers, columns=texts.columns)
    seen = 0
    for (pixels, positions), (packed_pixels, packed_positions, *columns) in zip(from_folder, from_shards):
        assert (pixels == packed_pixels).all()
        assert (positions == packed_positions).all()
        for one, other in zip(joined.batch(positions), texts.batch(packed_positions, 0, *columns)):
            assert one.dtype == other.dtype
            assert (one == other).all()
        seen += 1
    assert seen == 4


def test_packed_texts_that_are_missing_are_refused(packed, root, tmp_path):
    images = list_images(packed, "train")
    with pytest.raises(UserError, match="1 of the 25 images of train were packed without a text"):
        packed_texts(images)
    pack(root, tmp_path / "plain", ("train",))
    with pytest.raises(UserError, match="was packed without texts; pack it with --embeddings"):
        packed_texts(list_images(tmp_path / "plain", "train"))


def test_without_masking_ids_are_unique(packed):
    images = list_images(packed, "train")
    texts = packed_texts(images, missing_text="skip", mask_same_text=False)
    embedding = np.zeros((3, 16), np.uint8)
    _, ids = texts.batch(np.arange(3), 1, embedding, np.array([5, 5, -1]))
    assert ids.tolist() == [3, 4, -1]


def test_a_join_that_fails_is_told_before_anything_is_written(root, tmp_path):
    with pytest.raises(UserError, match="lacks 1 of the 25 images"):
        pack(root, tmp_path / "out", ("train",), embeddings=root / "short.mindrecord")
    assert not (tmp_path / "out").exists()


def test_a_broken_image_is_named(root, tmp_path):
    broken = shutil.copytree(root, tmp_path / "broken")
    path = broken / "train" / "red" / "große Äpfel.JPEG"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="große Äpfel.JPEG: cannot be decoded"):
        pack(broken, tmp_path / "out", ("train",))


def test_a_stopped_pack_goes_on_with_the_missing_shards(root, packed, tmp_path, monkeypatch):
    output = tmp_path / "out"
    write_shard = pack_module._write_shard

    def stop_at_the_third(file, *arguments):
        if file.name == "0002.mindrecord":
            raise KeyboardInterrupt
        write_shard(file, *arguments)

    monkeypatch.setattr(pack_module, "_write_shard", stop_at_the_third)
    options = {"embeddings": root / "short.mindrecord", "missing_text": "skip", "shard_images": 10}
    with pytest.raises(KeyboardInterrupt):
        pack(root, output, ("train", "val"), **options)
    with pytest.raises(UserError, match="was not packed to its end; run the same tools/prepare.py pack again"):
        list_images(output, "train")
    (output / "train" / "0001.mindrecord.db").unlink()  # killed between the two files of a shard
    (output / "train" / ".0001.mindrecord.x").mkdir()  # killed while it was written
    monkeypatch.undo()
    kept = (output / "train" / "0000.mindrecord").stat().st_ino
    pack(root, output, ("train", "val"), **options)
    assert (output / "train" / "0000.mindrecord").stat().st_ino == kept
    assert sorted(p.name for p in (output / "train").iterdir()) == sorted(p.name for p in (packed / "train").iterdir())
    ours, theirs = list_images(output, "train"), list_images(packed, "train")
    assert [ours.encoded(n) for n in range(25)] == [theirs.encoded(n) for n in range(25)]


def test_another_pack_or_a_folder_with_other_things_is_refused(root, packed, tmp_path):
    with pytest.raises(UserError, match=r"holds another pack \(it differs in splits, texts\)"):
        pack(root, packed, ("train", "val"), shard_images=10)
    with pytest.raises(UserError, match="is not empty, and holds no pack"):
        pack(root, root, ("train",))


def test_a_damaged_shard_is_told_when_it_is_verified_and_when_it_is_read(root, packed, tmp_path):
    output = copy(packed, tmp_path)
    images = list_images(output, "train")
    file = output / "train" / "0001.mindrecord"
    data = file.read_bytes()
    at = data.index(images.encoded(12)) + 20
    file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(UserError, match=f"0001.mindrecord, id {images.ids[12]}: is damaged, its checksum is wrong"):
        images.rgb(12)
    options = {"embeddings": root / "short.mindrecord", "missing_text": "skip", "shard_images": 10}
    with pytest.raises(UserError, match=f"0001.mindrecord: holds something else than {images.ids[12]}; delete it"):
        pack(root, output, ("train", "val"), **options)


@pytest.mark.parametrize("missing", ["0001.mindrecord", "0001.mindrecord.db"])
def test_a_missing_shard_is_told(packed, tmp_path, missing):
    output = copy(packed, tmp_path)
    (output / "train" / missing).unlink()
    with pytest.raises(UserError, match="0001.mindrecord: it or its .db is missing or damaged"):
        list_images(output, "train")


def test_splits_and_classes_of_a_pack(packed):
    with pytest.raises(UserError, match="there is no split 'test'; splits there: train, val"):
        list_images(packed, "test")
    images = list_images(packed, "val", classes=("red", "green", "blue", "grey"))
    assert images.labels.tolist() == [2] * 3 + [1] * 3 + [0] * 3
    with pytest.raises(UserError, match="1 of its 3 classes are none of the 2 known ones"):
        list_images(packed, "val", classes=("red", "green"))


def test_max_side_makes_training_images_smaller_and_says_so(root, tmp_path):
    packed = pack(root, tmp_path / "out", ("train", "val"), max_side=24)
    assert (packed["splits"]["train"]["max_side"], packed["splits"]["train"]["jpeg_quality"]) == (24, 90)
    assert packed["splits"]["val"]["max_side"] is None
    assert read_pack(tmp_path / "out") == packed
    train, folder = list_images(tmp_path / "out", "train"), list_images(root, "train")
    sizes = [train.rgb(position).size for position in range(25)]
    assert sizes.count((16, 16)) == 24
    assert sizes.count((24, 16)) == 1
    small = sizes.index((24, 16))
    assert [n for n in range(25) if train.encoded(n) != folder.encoded(n)] == [small]


def test_shrinking_keeps_the_kind_and_what_is_small_enough():
    def encode(format, size, mode="RGB"):
        buffer = io.BytesIO()
        Image.effect_noise(size, 40).convert(mode).save(buffer, format)
        return buffer.getvalue()

    for format, mode in (("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB")):
        data = encode(format, (500, 375), mode)
        assert shrink(data, 500) is data
        with Image.open(io.BytesIO(shrink(data, 400))) as image:
            assert (image.size, image.format, image.mode) == ((400, 300), format, mode)


def test_what_a_config_must_say_about_texts(packed, root, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("output: run\n")
    load_config(config, [f"data.root={packed}"])
    with pytest.raises(UserError, match="data.embeddings is required by loss.alignment=infonce"):
        load_config(config, [f"data.root={root}"])
    with pytest.raises(UserError, match="data.embeddings is required by data.shuffle_texts"):
        load_config(config, [f"data.root={packed}", "data.shuffle_texts=true"])


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"complete": False})])
def test_a_pack_file_that_is_wrong(tmp_path, content):
    (tmp_path / "pack.json").write_text(content)
    with pytest.raises(UserError, match="pack"):
        list_images(tmp_path, "train")
