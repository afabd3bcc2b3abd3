"""Every kind of file that photographers, scanners and web sites make comes out as upright 8-bit RGB, or is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.decoding import encoded_rgb, is_plain, open_rgb

RED, WHITE, BLUE = (255, 0, 0), (255, 255, 255), (0, 0, 255)


def pixels(path):
    image = open_rgb(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def picture(width=60, height=40):
    """Smooth, so that JPEG keeps it; without symmetry, so that no turn goes unseen."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / width, 255 * y / height, 255 * (x + y) / (width + height)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.ppm"])
def test_lossless_rgb_is_unchanged(tmp_path, name):
    picture().save(tmp_path / name)
    np.testing.assert_array_equal(pixels(tmp_path / name), np.asarray(picture()))


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_lossy_rgb_is_what_pillow_reads(tmp_path, name):
    picture().save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        np.testing.assert_array_equal(pixels(tmp_path / name), np.asarray(image))


@pytest.mark.parametrize("name", ["grey.png", "grey.tiff", "grey.ppm"])
def test_16_bit_grey_stays_a_gradient(tmp_path, name):
    gradient = np.tile(np.arange(0, 65536, 256, dtype=np.uint16), (4, 1))
    Image.fromarray(gradient).save(tmp_path / name)
    expected = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    for channel in range(3):
        np.testing.assert_array_equal(pixels(tmp_path / name)[..., channel], expected)


def test_16_bit_grey_big_endian(tmp_path):
    image = Image.frombytes("I;16B", (2, 1), b"\x80\x00\xff\xff")
    image.save(tmp_path / "grey.tiff")
    assert pixels(tmp_path / "grey.tiff")[0].tolist() == [[128] * 3, [255] * 3]


def test_16_bit_rgb_png_stays_a_gradient(tmp_path):
    values = np.repeat(np.arange(0, 65536, 256, dtype=">u2")[:, None], 3, axis=1)
    (tmp_path / "deep.png").write_bytes(png(values.tobytes(), width=256, height=1, depth=16, colour=2))
    np.testing.assert_array_equal(pixels(tmp_path / "deep.png")[0, :, 1], np.arange(256))
    assert encoded_rgb(tmp_path / "deep.png") != (tmp_path / "deep.png").read_bytes()


def png(row, width, height, depth, colour):
    """A PNG by hand, since Pillow does not write 16-bit RGB: `row` is repeated."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress((b"\0" + row) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_pixels_are_refused(tmp_path, mode):
    Image.new(mode, (4, 4), 7).save(tmp_path / "deep.tiff")
    with pytest.raises(UserError, match=r"deep.tiff: cannot be decoded: 32-bit pixels have no fixed range"):
        open_rgb(tmp_path / "deep.tiff")


@pytest.mark.parametrize("name", ["c.jpg", "c.tiff"])
def test_cmyk_is_not_inverted(tmp_path, name):
    Image.new("RGB", (16, 16), RED).convert("CMYK").save(tmp_path / name)
    np.testing.assert_allclose(pixels(tmp_path / name)[8, 8], RED, atol=3)


def test_transparency_is_laid_on_white(tmp_path):
    clear, half, solid = (255, 0, 0, 0), (0, 0, 255, 128), (0, 0, 255, 255)
    image = Image.new("RGBA", (3, 1))
    image.putdata([clear, half, solid])
    image.save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png")[0].tolist() == [list(WHITE), [127, 127, 255], list(BLUE)]
    image.convert("LA").save(tmp_path / "la.png")
    assert pixels(tmp_path / "la.png")[0, 0].tolist() == list(WHITE)


@pytest.mark.parametrize(("mode", "key"), [("1", 0), ("L", 0), ("P", 0), ("I;16", 0), ("RGB", (0, 0, 0))])
def test_a_colour_that_means_transparent_is_laid_on_white(tmp_path, mode, key):
    Image.new(mode, (2, 2)).save(tmp_path / "key.png", transparency=key)
    assert (pixels(tmp_path / "key.png") == 255).all()
    assert encoded_rgb(tmp_path / "key.png") != (tmp_path / "key.png").read_bytes()


def test_palette_and_black_and_white(tmp_path):
    picture().quantize(16).save(tmp_path / "p.png")
    np.testing.assert_array_equal(pixels(tmp_path / "p.png"), np.asarray(picture().quantize(16).convert("RGB")))
    Image.new("1", (2, 2), 1).save(tmp_path / "bw.png")
    assert (pixels(tmp_path / "bw.png") == 255).all()


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixels(tmp_path / "a.gif")[0, 0].tolist() == list(RED)


# How a camera stores an upright picture under each orientation.
STORED = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.FLIP_LEFT_RIGHT),
    3: lambda image: image.rotate(180),
    4: lambda image: image.transpose(Image.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.TRANSPOSE),
    6: lambda image: image.rotate(90, expand=True),
    7: lambda image: image.transpose(Image.TRANSVERSE),
    8: lambda image: image.rotate(-90, expand=True),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("name", ["o.png", "o.jpg", "o.tiff"])
def test_orientation_is_applied(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    STORED[orientation](picture()).save(tmp_path / name, exif=exif)
    got = pixels(tmp_path / name).astype(int)
    assert got.shape == (40, 60, 3)
    assert np.abs(got - np.asarray(picture())).mean() < (4 if name == "o.jpg" else 1e-9)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0"])
def test_broken_exif_does_not_cost_the_image(tmp_path, exif):
    picture().save(tmp_path / "a.jpg", exif=exif)
    assert pixels(tmp_path / "a.jpg").shape == (40, 60, 3)


def test_content_counts_not_the_extension(tmp_path):
    picture().save(tmp_path / "lies.jpg", format="PNG")
    np.testing.assert_array_equal(pixels(tmp_path / "lies.jpg"), np.asarray(picture()))


@pytest.mark.parametrize("name", ["t.jpg", "t.png", "t.webp", "t.bmp", "t.gif", "t.tiff", "t.ppm"])
def test_truncated_file_is_refused_by_path(tmp_path, name):
    path = tmp_path / name
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(UserError, match=rf"{name}: cannot be decoded: .*; replace or remove it$"):
        open_rgb(path)


def test_a_jpeg_with_a_broken_table_is_found_before_anybody_trains_on_it(tmp_path):
    """MindData's decoder ends the process at such a file, though it ends as a JPEG should."""
    path = tmp_path / "a.jpg"
    picture().save(path)
    assert is_plain(path)
    data = bytearray(path.read_bytes())
    table = data.index(b"\xff\xc4")  # of Huffman codes: length, number, how many codes of each length
    data[table + 5 : table + 21] = b"\xff" * 16
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a.jpg: cannot be decoded: .*; replace or remove it$"):
        is_plain(path)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "the file is empty"),
        (b"text", "not an image of a known format"),
        (b"%!PS-Adobe", "not an image"),
    ],
)
def test_what_is_no_image_is_refused_by_path(tmp_path, content, cause):
    (tmp_path / "x.jpg").write_bytes(content)
    for function in (open_rgb, encoded_rgb):
        with pytest.raises(UserError, match=rf"x.jpg: cannot be decoded: {cause}"):
            function(tmp_path / "x.jpg")


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"gone.jpg: cannot be decoded: No such file or directory"):
        open_rgb(tmp_path / "gone.jpg")


@pytest.mark.parametrize("side", [9_460, 30_000])
def test_absurdly_large_image_is_refused_before_it_is_decoded(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png(b"", width=side, height=side, depth=8, colour=2)[:60])
    with pytest.raises(UserError, match=r"bomb.png: cannot be decoded: .*pixels"):
        encoded_rgb(tmp_path / "bomb.png")


def test_plain_files_are_handed_on_as_they_are(tmp_path):
    picture().save(tmp_path / "a.jpg")
    picture().convert("L").save(tmp_path / "l.jpg")
    picture().save(tmp_path / "a.png")
    picture().convert("L").save(tmp_path / "l.png")
    picture().save(tmp_path / "two.jpg", format="MPO", save_all=True, append_images=[picture().rotate(180)])
    for path in tmp_path.iterdir():
        assert encoded_rgb(path) == path.read_bytes(), path.name


def odd_files(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(folder / "turned.jpg", exif=exif)
    picture().save(folder / "turned.png", exif=exif)
    picture().convert("CMYK").save(folder / "cmyk.jpg")
    picture().quantize(16).save(folder / "palette.png")
    picture().convert("RGBA").save(folder / "alpha.png")
    picture().convert("1").save(folder / "bw.png")
    Image.fromarray(np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)).save(folder / "deep.png")
    for name in ("a.bmp", "a.gif", "a.tiff", "a.webp", "a.ppm"):
        picture().save(folder / name)
    return sorted(folder.iterdir())


def test_odd_files_are_re_encoded_without_loss(tmp_path):
    for path in odd_files(tmp_path):
        data = encoded_rgb(path)
        assert data != path.read_bytes(), path.name
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(image), pixels(path), err_msg=path.name)


def test_mindspore_decodes_the_same_pixels(tmp_path):
    vision = pytest.importorskip("mindspore.dataset.vision")
    paths = odd_files(tmp_path)
    for name, mode in (("a.png", "RGB"), ("l.png", "L"), ("plain.jpg", "RGB"), ("grey.jpg", "L")):
        picture().convert(mode).save(tmp_path / name)
        paths.append(tmp_path / name)
    for path in paths:
        got = vision.Decode()(np.frombuffer(encoded_rgb(path), np.uint8))
        # Two builds of libjpeg may round differently; everything else is lossless.
        tolerance = 3 if path.name in ("plain.jpg", "grey.jpg") else 0
        np.testing.assert_allclose(got.astype(int), pixels(path), atol=tolerance, err_msg=path.name)
