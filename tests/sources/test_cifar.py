"""CIFAR from its four published versions: the same images, and nothing executed or written that an archive asks for."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
from cifar_archives import ARCHIVES, CLASSES, archive_files, pixels_and_labels, write_archive
from PIL import Image

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.cifar import list_cifar
from mindspore_gpt4image.sources.formats import list_images, validation_split

VERSIONS = list(ARCHIVES)


@pytest.mark.parametrize(("data_set", "version"), VERSIONS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_version_gives_the_same_images(tmp_path, data_set, version, split):
    images = list_images(write_archive(tmp_path, data_set, version), split)
    planes, labels = pixels_and_labels(data_set, split)
    assert images.ids == [f"{split}/{n:05}" for n in range(len(labels))]
    assert images.labels.dtype == np.int32
    assert images.labels.tolist() == labels.tolist()
    assert images.classes == CLASSES[data_set]
    for position, image in enumerate(planes.transpose(0, 2, 3, 1)):
        assert (np.asarray(images.rgb(position)) == image).all()
        assert (np.asarray(Image.open(io.BytesIO(images.encoded(position)))) == image).all()


@pytest.mark.parametrize(("data_set", "version"), VERSIONS)
def test_root_may_be_the_folder_it_unpacks_to_or_the_folder_around(tmp_path, data_set, version):
    archive = write_archive(tmp_path / "packed", data_set, version)
    around = tmp_path / "unpacked"
    for name, content in archive_files(data_set, version).items():
        path = around / ARCHIVES[data_set, version][1] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for root in (archive, archive.parent, around, path.parent):
        images = list_images(root, "test")
        assert images.ids == ["test/00000", "test/00001", "test/00002", "test/00003"]
        assert images.where(2).endswith(":test/00002")
    (around / ARCHIVES[data_set, version][0]).write_bytes(b"a download that stopped")
    assert len(list_images(around, "test")) == 4


def test_mindspore_decodes_the_same_pixels(tmp_path):
    vision = pytest.importorskip("mindspore.dataset.vision")
    images = list_images(write_archive(tmp_path, "cifar10", "binary"), "test")
    got = vision.Decode()(np.frombuffer(images.encoded(1), np.uint8))
    assert (got == np.asarray(images.rgb(1))).all()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_of_any_age_are_read(tmp_path, protocol):
    root = write_archive(tmp_path, "cifar100", "python", protocol=protocol)
    assert list_images(root, "train").classes == CLASSES["cifar100"]


def test_a_pickle_of_python_2_is_read(tmp_path):
    """Python 2 wrote texts and raw bytes as the same thing, and arrays through `numpy.core.multiarray`."""
    row = bytes(range(256)) * 12
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nI3072\ntcnumpy\ndtype\n"
        b"(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nT" + len(row).to_bytes(4, "little") + row + b"tb"
    )
    batch = b"(dS'data'\n" + array + b"sS'fine_labels'\n(lI2\nas."
    meta = b"(dS'fine_label_names'\n(lS'a'\naS'b'\naS'c'\nas."
    images = list_cifar(write_archive(tmp_path, "cifar100", "python", {"train": batch, "meta": meta}), "train")
    assert images.classes == ("a", "b", "c")
    assert images.labels.tolist() == [2]
    assert (np.asarray(images.rgb(0)).transpose(2, 0, 1).ravel() == np.frombuffer(row, np.uint8)).all()


def test_there_is_no_val(tmp_path):
    root = write_archive(tmp_path, "cifar10", "binary")
    with pytest.raises(UserError, match=r"CIFAR has no split 'val'; splits there: train, test$"):
        list_images(root, "val")
    assert validation_split(root) == validation_split(tmp_path, "cifar10") == "test"
    assert validation_split(tmp_path / "elsewhere") == "val"


def test_classes_map_by_name(tmp_path):
    root = write_archive(tmp_path, "cifar100", "binary")
    images = list_images(root, "test", classes=("apple", "bear", "more", "zebra"))
    assert images.labels.tolist() == [3, 0, 1, 3]
    assert images.classes == ("apple", "bear", "more", "zebra")
    with pytest.raises(UserError, match=r"1 of its 3 classes are none of the 2 known ones \(first: 'bear'\)"):
        list_images(root, "test", classes=("apple", "zebra"))


def test_both_data_sets_in_one_folder(tmp_path):
    for data_set, version in VERSIONS:
        write_archive(tmp_path, data_set, version)
    with pytest.raises(UserError, match=r"holds cifar10 and cifar100; give the archive or folder of one of them"):
        list_images(tmp_path, "train")
    assert list_images(tmp_path, "train", format="cifar100").classes == CLASSES["cifar100"]


def test_the_other_data_set(tmp_path):
    root = write_archive(tmp_path, "cifar10", "python")
    with pytest.raises(UserError, match=r"holds no cifar100, none of fine_label_names.txt, meta is in it"):
        list_images(root, "train", format="cifar100")
    with pytest.raises(UserError, match=r"holds no cifar100; give one of cifar-100-binary.tar.gz, "):
        list_images(tmp_path, "train", format="cifar100")
    with pytest.raises(UserError, match=r"nowhere: holds no cifar10; give one of"):
        list_images(tmp_path / "nowhere", "train", format="cifar10")


class _Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (_Call(os.system, "touch hostile"), "system"),
        (_Call(eval, "open('hostile', 'w')"), "eval"),
        (_Call(getattr, "text", "format"), "getattr"),
        (_Call(np.load, "x", None, True), "load"),
        (_Call(np.fromfile, "/dev/zero"), "fromfile"),
    ],
)
def test_hostile_pickles_are_refused(tmp_path, monkeypatch, call, named):
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4):
        for place in ("meta", "train"):
            content = archive_files("cifar100", "python")
            content[place] = pickle.dumps({b"data": call, b"fine_label_names": call}, protocol)
            root = write_archive(tmp_path, "cifar100", "python", content)
            with pytest.raises(UserError, match=rf"python.tar.gz/{place}: .*it would call .*{named}, which no image"):
                list_images(root, "train")
    assert not (tmp_path / "hostile").exists()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", "it wants a table of 2147483647 entries"),
        (b"\x80\x05\x96\xff\xff\xff\xff\x0f\0\0\0.", "expected 68719476735 bytes"),
        (pickle.dumps({"data": np.array([None] * 4)}, 2), "it holds an array of 'O8'"),
        (b"cnumpy\nndarray\n(I99999999999\ntR.", "not callable"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(NNNtR(I1\n(I99999999999\ntcnumpy\ndtype\n(S'u1'\ntRI00\nS'x'\ntb.",
            "cannot reshape array of size 1",
        ),
    ],
)
def test_pickles_that_ask_for_all_memory_are_refused(tmp_path, content, fault):
    files = {**archive_files("cifar100", "python"), "train": content}
    with pytest.raises(UserError, match=f"/train: .*{fault}"):
        list_images(write_archive(tmp_path, "cifar100", "python", files), "train")


def test_an_encoding_by_another_name_is_refused(tmp_path):
    content = archive_files("cifar100", "python")
    content["meta"] = b"c_codecs\nencode\n(Vx\nVzip\ntR."
    with pytest.raises(UserError, match="it asks for the encoding 'zip'"):
        list_images(write_archive(tmp_path, "cifar100", "python", content), "train")


def test_archive_whose_names_climb_out_writes_nothing(tmp_path):
    files = {f"../../{name}": content for name, content in archive_files("cifar10", "binary").items()}
    folder = tmp_path / "a" / "b"
    root = write_archive(folder, "cifar10", "binary", files)
    assert len(list_images(root, "train")) == 20
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [root.name]


@pytest.mark.parametrize("name", ["../data_batch_1.bin", "/data_batch_1.bin", "a/../../../data_batch_1.bin"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_members_that_are_no_files(tmp_path, name, kind):
    """Links that lead out and device files are not opened, whatever they are called."""
    files = archive_files("cifar10", "binary")
    secret = tmp_path / "secret"
    secret.write_bytes(files["data_batch_1.bin"])
    root = tmp_path / "a" / "b" / "cifar-10-binary.tar.gz"
    root.parent.mkdir(parents=True)
    with tarfile.open(root, "w:gz") as archive:
        for file, content in files.items():
            member = tarfile.TarInfo(name if file == "data_batch_1.bin" else file)
            if member.name == name:
                member.type, member.linkname, member.devmajor, member.devminor = kind, str(secret), 1, 5
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    with pytest.raises(UserError, match="cifar-10-binary.tar.gz: lacks data_batch_1.bin; download it again"):
        list_images(root, "train")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted([root, secret])


@pytest.mark.parametrize(
    ("version", "change", "fault"),
    [
        ("binary", {"data_batch_3.bin": None}, r"tar.gz: lacks data_batch_3.bin; download"),
        ("binary", {"data_batch_2.bin": b"\0" * 3000}, r"tar.gz/data_batch_2.bin: .*3000 bytes are no whole number"),
        ("binary", {"data_batch_2.bin": b"\3" * 3073}, r"tar.gz/data_batch_2.bin: .*labels go from 3 to 3, of 3"),
        ("binary", {"batches.meta.txt": b"\xff"}, r"tar.gz/batches.meta.txt: .*utf-8"),
        ("python", {"data_batch_1": b""}, r"tar.gz/data_batch_1: .*pickle exhausted before seeing STOP"),
        ("python", {"data_batch_1": pickle.dumps([1])}, r"tar.gz/data_batch_1: .*holds no 'data'"),
        (
            "python",
            {"data_batch_1": pickle.dumps({"data": np.zeros((2, 9), np.uint8), "labels": [1]})},
            r"the shape \[2, 9\], its labels \[1\]",
        ),
        ("python", {"batches.meta": pickle.dumps({})}, r"tar.gz/batches.meta: .*'label_names'"),
    ],
)
def test_damage_is_told_by_file(tmp_path, version, change, fault):
    files = {**archive_files("cifar10", version), **change}
    root = write_archive(tmp_path, "cifar10", version, {k: v for k, v in files.items() if v is not None})
    with pytest.raises(UserError, match=fault):
        list_images(root, "train")


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_archive_cut_short(tmp_path, share):
    root = write_archive(tmp_path, "cifar10", "binary")
    root.write_bytes(root.read_bytes()[: int(share * root.stat().st_size)])
    with pytest.raises(UserError, match=r"cifar-10-binary.tar.gz: cannot be read \(.*download it again"):
        list_images(root, "train")
