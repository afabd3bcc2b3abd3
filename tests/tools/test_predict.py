"""Images that nobody has labelled: same pixels and predictions as evaluation, from checkpoint, MINDIR and ONNX."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from blocked import MINDSPORE, TORCH, blocking
from PIL import Image

from mindspore_gpt4image.checkpoint import save_checkpoint
from mindspore_gpt4image.classifiers import load_classifier
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.export import export_classifier
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.models import create_network
from mindspore_gpt4image.predict import find_images, predict_images
from mindspore_gpt4image.sources.decoding import open_rgb

TOOLS = Path(__file__).parents[2] / "tools"
INFO = ModelInfo(
    network="resnet10_cifar_half",
    classes=tuple("abcdefg"),
    resize=20,
    crop=16,
    interpolation="bicubic",
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
    projection="linear",
    text_dim=4,
)


def run(*arguments, code=0, stdin=None):
    command = [sys.executable, TOOLS / "predict.py", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, input=stdin)
    assert result.returncode == code, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    ms.set_seed(3)
    path = tmp_path_factory.mktemp("checkpoint") / "a.ckpt"
    save_checkpoint(path, create_network(INFO.network, 7, text_dim=4), INFO, {})
    return path


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    network = load_classifier(checkpoint).checkpoint.create_network()
    for ending in (".mindir", ".onnx"):
        export_classifier(network, INFO, folder / f"a{ending}")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images that cameras and scanners make, one of them deep in a folder; and two files that are not meant."""
    root = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)

    def picture(width, height, channels=3):
        smooth = Image.fromarray(random.integers(0, 256, (4, 5, channels)).astype(np.uint8))
        return smooth.resize((width, height), Image.BICUBIC)

    upright = picture(47, 33)
    upright.save(root / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.ROTATE_90).save(root / "turned.png", exif=exif)
    grey = random.integers(0, 256, (21, 64)).astype(np.uint8)
    Image.fromarray(grey).save(root / "grey.png")
    Image.fromarray(grey.astype(np.uint16) << 8).save(root / "16bit.tiff")
    picture(20, 61, 4).convert("RGB").convert("CMYK").save(root / "cmyk.jpg")
    (root / "deep" / "er").mkdir(parents=True)
    picture(1, 90).save(root / "deep" / "er" / "thin.BMP")
    for name in (".hidden", "__MACOSX"):
        (root / name).mkdir()
        picture(9, 9).save(root / name / "a.png")
    (root / "deep" / "circle").symlink_to(root / "deep", target_is_directory=True)
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="module")
def predictions(checkpoint, folder):
    return {p.image.name: p for p in predict_images(load_classifier(checkpoint), find_images([folder]))}


def test_folders_are_searched_to_the_bottom_without_hidden_files(predictions):
    assert list(predictions) == ["16bit.tiff", "cmyk.jpg", "thin.BMP", "grey.png", "turned.png", "upright.png"]


def test_each_image_gets_what_evaluation_makes_of_it_alone(checkpoint, folder, predictions):
    classifier = load_classifier(checkpoint)
    for path in find_images([folder]):
        logits = classifier.logits(INFO.transform(open_rgb(path))[None])[0].astype(np.float64)
        probabilities = np.exp(logits) / np.exp(logits).sum()
        best = sorted(range(7), key=lambda position: -probabilities[position])[:5]
        found = predictions[path.name]
        assert found.classes == tuple(INFO.classes[position] for position in best)
        np.testing.assert_allclose(found.probabilities, probabilities[best], rtol=1e-4)


def test_one_picture_in_two_files_is_one_picture(predictions):
    assert predictions["turned.png"].probabilities == predictions["upright.png"].probabilities
    assert predictions["16bit.tiff"].probabilities == predictions["grey.png"].probabilities
    assert len({found.probabilities for found in predictions.values()}) == 4


@pytest.mark.parametrize("name", ["a.mindir", "a.onnx"])
def test_an_exported_file_predicts_the_same(exported, folder, predictions, name):
    for found in predict_images(load_classifier(exported / name), find_images([folder])):
        expected = predictions[found.image.name]
        assert found.classes == expected.classes
        np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-4)


def test_the_command_prints_what_can_be_read_and_fails_for_the_rest(exported, folder, predictions, tmp_path):
    broken = [tmp_path / "empty.png", tmp_path / "cut.png"]
    broken[0].touch()
    broken[1].write_bytes((folder / "grey.png").read_bytes()[:60])
    image = folder / "cmyk.jpg"
    result = run(
        "--checkpoint", exported / "a.onnx", broken[0], image, broken[1], "--json", tmp_path / "out.json", code=1
    )
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["image", "class", "probability"]
    assert len({len(row) for row in (header, *rows)}) == 1
    expected = predictions["cmyk.jpg"]
    assert rows[0].split() == [str(image), expected.classes[0], f"{expected.probabilities[0]:.2%}"]
    assert [row.split()[-2] for row in rows] == list(expected.classes)
    (saved,) = json.loads((tmp_path / "out.json").read_text())
    assert (saved["image"], saved["predicted"]) == (str(image), list(expected.classes))
    assert saved["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: not predicted, 2 of 3 images: {broken[0]}: cannot be decoded: the file is empty")
    assert str(broken[1]) in line


def test_nothing_that_can_be_read_is_no_success(checkpoint, tmp_path):
    (tmp_path / "a.png").touch()
    assert "1 of 1 images" in run("--checkpoint", checkpoint, tmp_path, code=1).stderr


def test_fewer_than_five_classes(tmp_path, folder):
    info = ModelInfo(**{**INFO.__dict__, "classes": ("a", "b")})
    save_checkpoint(tmp_path / "last.ckpt", create_network(INFO.network, 2, text_dim=4), info, {})
    (found,) = predict_images(load_classifier(tmp_path), [folder / "grey.png"])
    assert sorted(found.classes) == ["a", "b"]
    assert sum(found.probabilities) == pytest.approx(1)


def test_an_empty_folder_and_a_missing_file_are_named(tmp_path):
    (tmp_path / ".a.png").touch()
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=rf"{tmp_path}: holds no image; known endings are .bmp, .gif, "):
        find_images([tmp_path])
    with pytest.raises(UserError, match=r"none.png: no such file or folder"):
        find_images([tmp_path / "none.png"])


def test_names_from_standard_input_to_csv(exported, folder, predictions, tmp_path):
    images = [folder / "upright.png", folder / "cmyk.jpg"]
    listed = "\n".join(map(str, images)) + "\n\n"
    run("--checkpoint", exported / "a.onnx", "-", "--csv", tmp_path / "out.csv", stdin=listed)
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = [
        (str(image), str(rank), name)
        for image in images
        for rank, name in enumerate(predictions[image.name].classes, 1)
    ]
    assert [(row["image"], row["rank"], row["class"]) for row in rows] == expected
    assert float(rows[0]["probability"]) == pytest.approx(predictions["upright.png"].probabilities[0], abs=1e-5)
    error = run("--checkpoint", exported / "a.onnx", "-", stdin="\n", code=1).stderr
    assert error == "error: standard input: names no image; write one a line\n"


def test_onnx_needs_neither_mindspore_nor_torch(exported, folder):
    arguments = ["predict.py", "--checkpoint", str(exported / "a.onnx"), str(folder)]
    code = f"""{blocking((*MINDSPORE, *TORCH, "onnx"))}
import runpy
sys.argv = {arguments!r}
runpy.run_path({str(TOOLS / "predict.py")!r}, run_name="__main__")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == run("--checkpoint", exported / "a.onnx", folder).stdout


def test_an_exported_file_alone_is_not_enough(exported, folder, tmp_path):
    (tmp_path / "b.onnx").write_bytes((exported / "a.onnx").read_bytes())
    (line,) = run("--checkpoint", tmp_path / "b.onnx", folder / "grey.png", code=1).stderr.splitlines()
    assert line == (
        f"error: {tmp_path / 'model.yaml'}: cannot be read (No such file or directory); "
        "it belongs beside every exported model"
    )


def test_wrong_syntax_exits_with_2():
    run("--checkpoint", "x", code=2)
