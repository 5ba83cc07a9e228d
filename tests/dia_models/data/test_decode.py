"""Image files: each kind gives the bytes worked out by hand, and what is no image gives a reason."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dia_models.data.decode import PICTURES, UnreadableImageError, image_size, read_image

JPEG = {".jpg", ".jpeg", ".jpe", ".jfif"}
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
GREYS = {RED: 76, GREEN: 150, BLUE: 29, WHITE: 255}  # 0.299 R + 0.587 G + 0.114 B


def grey(rows):
    return Image.fromarray(np.array(rows, dtype=np.uint8))


def read(tmp_path, image, channels, size=None, suffix=".png", **options):
    """Write an image, a list of rows or the bytes of a file; read it, and check what holds for every result."""
    path = tmp_path / f"image{suffix}"
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        (grey(image) if isinstance(image, list) else image).save(path, **options)
    pixels = read_image(path, size, channels)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == channels
    assert size is None or pixels.shape[:2] == size
    assert pixels.flags.c_contiguous
    return pixels[:, :, 0].tolist() if channels == 1 else [[tuple(p) for p in row] for row in pixels.tolist()]


def reason(tmp_path, content, suffix=".png", match=None):
    (tmp_path / f"bad{suffix}").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=match) as caught:
        read_image(tmp_path / f"bad{suffix}", (8, 8), 3)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(width, height, bits, colour, rows=b""):
    """A PNG file, of a kind that the imaging library reads but cannot write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("suffix", sorted(PICTURES - {*JPEG, ".webp", ".pbm"}))
def test_grey_levels_are_kept_and_repeated_for_rgb(tmp_path, suffix):
    rows = [[0, 1, 127], [128, 254, 255]]
    assert read(tmp_path, rows, 1, suffix=suffix) == rows
    assert read(tmp_path, rows, 3, suffix=suffix) == [[(v, v, v) for v in row] for row in rows]


@pytest.mark.parametrize("suffix", sorted(PICTURES - {".gif", ".pbm"}))
def test_colours_are_kept_and_weighted_for_grey(tmp_path, suffix):
    options = {".webp": {"lossless": True}}.get(suffix, {"quality": 100} if suffix in JPEG else {})
    for colour, level in GREYS.items():
        image = Image.new("RGB", (3, 2), colour)
        found = np.array(read(tmp_path, image, 3, suffix=suffix, **options))
        assert np.abs(found - colour).max() <= (2 if "quality" in options else 0)
        found = np.array(read(tmp_path, image, 1, suffix=suffix, **options))
        assert np.abs(found - level).max() <= (2 if "quality" in options else 0)


def palette_image():
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    return image


def test_palettes_are_looked_up(tmp_path):
    for suffix in (".png", ".gif", ".bmp", ".tif"):
        assert read(tmp_path, palette_image(), 3, suffix=suffix) == [[RED, GREEN, BLUE]]
    assert read(tmp_path, palette_image(), 1) == [[GREYS[RED], GREYS[GREEN], GREYS[BLUE]]]


def test_transparent_palette_entries_are_laid_on_white(tmp_path):
    for suffix in (".png", ".gif"):
        assert read(tmp_path, palette_image(), 3, suffix=suffix, transparency=1) == [[RED, WHITE, BLUE]]
    half = bytes([255, 0, 128])
    assert read(tmp_path, palette_image(), 3, transparency=half) == [[RED, WHITE, (127, 127, 255)]]


def test_transparency_is_laid_on_white(tmp_path):
    image = Image.new("RGBA", (4, 1))
    image.putdata([(*RED, 255), (*RED, 128), (*RED, 51), (*RED, 0)])
    for suffix in (".png", ".tif"):
        assert read(tmp_path, image, 3, suffix=suffix) == [[RED, (255, 127, 127), (255, 204, 204), WHITE]]
    image = Image.new("LA", (4, 1))
    image.putdata([(100, 255), (100, 51), (100, 0), (0, 128)])
    assert read(tmp_path, image, 1) == [[100, 224, 255, 127]]
    assert read(tmp_path, image, 3) == [[(v, v, v) for v in (100, 224, 255, 127)]]


def test_a_transparent_colour_is_laid_on_white(tmp_path):
    image = Image.new("RGB", (2, 1))
    image.putdata([RED, BLUE])
    assert read(tmp_path, image, 3, transparency=RED) == [[WHITE, BLUE]]
    assert read(tmp_path, [[10, 20]], 1, transparency=20) == [[10, 255]]


@pytest.mark.parametrize(
    ("inks", "colour"),
    [
        ((0, 0, 0, 0), WHITE),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 255, 0), RED),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 0, 0, 155), (100, 100, 100)),
        ((51, 0, 0, 155), (80, 100, 100)),
    ],
)
def test_cmyk_jpegs_become_rgb(tmp_path, inks, colour):
    image = Image.new("CMYK", (8, 8), inks)
    found = np.array(read(tmp_path, image, 3, suffix=".jpg", quality=100))
    assert np.abs(found - colour).max() <= 2
    level = np.array(read(tmp_path, image, 1, suffix=".jpg", quality=100))
    assert np.abs(level - np.dot(colour, (0.299, 0.587, 0.114))).max() <= 2


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bit_grey_keeps_its_upper_8_bits(tmp_path, suffix):
    values = np.array([[0, 255, 256, 0x7FFF], [0x8000, 0xABCD, 0xFEFF, 0xFFFF]], dtype=np.uint16)
    expected = [[0, 0, 1, 0x7F], [0x80, 0xAB, 0xFE, 0xFF]]
    assert read(tmp_path, Image.fromarray(values), 1, suffix=suffix) == expected
    colours = read(tmp_path, Image.fromarray(values), 3, suffix=suffix)
    assert colours == [[(v, v, v) for v in row] for row in expected]


def test_16_bit_colour_and_transparency_keep_their_upper_8_bits(tmp_path):
    rgb = png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 0x1234, 0xFFFF, 0x00FF, 0x80FF, 0x7FFF, 0x0100))
    assert read(tmp_path, rgb, 3) == [[(0x12, 0xFF, 0), (0x80, 0x7F, 1)]]
    with_alpha = png(3, 1, 16, 4, b"\0" + struct.pack(">6H", 0x6400, 0xFFFF, 0x6400, 0x3333, 0x6400, 0))
    assert read(tmp_path, with_alpha, 1) == [[100, 224, 255]]


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("kind", ["I;16", "I", "PGM"])
def test_fewer_bits_in_a_16_bit_image_are_read_as_they_are_and_said(tmp_path, bits, kind):
    """White is 65535 for each image alike, whatever the others hold, so that one image alone gives the same bytes."""
    values = np.array([[0, 2 ** (bits - 1), 2**bits - 1]], dtype=np.int32 if kind == "I" else np.uint16)
    suffix = {"I;16": ".png", "I": ".tif", "PGM": ".pgm"}[kind]
    with pytest.warns(UserWarning, match="no value above 16383; .* 12 bits, multiply their values by 16") as said:
        found = [read(tmp_path, Image.fromarray(values), 1, suffix=suffix) for _ in range(2)]
    assert found == [(values >> 8).tolist()] * 2
    assert len(said) == 1
    assert len(str(said[0].message)) <= 300


def test_16_bits_that_are_used_are_not_warned_of(tmp_path):
    """The warning is for images below a quarter of white, but not for one that is black throughout."""
    assert read(tmp_path, Image.fromarray(np.array([[0, 2**14]], dtype=np.uint16)), 1) == [[0, 64]]
    assert read(tmp_path, Image.new("I;16", (2, 1)), 1) == [[0, 0]]


def test_12_bit_colours_in_16_bits_are_said(tmp_path):
    dark = png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 4095, 0, 256, 0, 0, 0))
    with pytest.warns(UserWarning, match="no value above 16383"):
        assert read(tmp_path, dark, 3) == [[(15, 0, 1), (0, 0, 0)]]


def test_12_bit_grey_with_transparency_in_16_bits_is_said(tmp_path):
    with_alpha = png(1, 1, 16, 4, b"\0" + struct.pack(">2H", 4095, 0xFFFF))
    with pytest.warns(UserWarning, match="no value above 16383"):
        assert read(tmp_path, with_alpha, 1) == [[15]]


def tiff_of_12_bits(values):
    """A TIFF file of one row, two values in three bytes, of a kind that the imaging library reads but cannot write."""
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in zip(values[::2], values[1::2], strict=True)
    )
    tags = {256: len(values), 257: 1, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: len(packed)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed


def test_a_file_that_says_it_has_12_bits_keeps_the_upper_8_of_them(tmp_path):
    assert read(tmp_path, tiff_of_12_bits([0, 15, 16, 4095]), 1, suffix=".tif") == [[0, 0, 1, 255]]


def test_pgm_files_say_what_is_white(tmp_path):
    rows = b"P5 3 1 4095\n" + struct.pack(">3H", 0, 2048, 4095)
    assert read(tmp_path, rows, 1, suffix=".pgm") == [[0, 128, 255]]


def frames(count):
    return [Image.new("L", (2, 2), value) for value in range(10, 10 * count + 1, 10)]


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_of_several_frames_the_first_is_read_and_that_is_said(tmp_path, suffix):
    first, *rest = frames(3)
    lossless = {"lossless": True} if suffix == ".webp" else {}
    with pytest.warns(UserWarning, match="several frames .*; of each such image the first is read"):
        found = read(tmp_path, first, 1, suffix=suffix, save_all=True, append_images=rest, **lossless)
    assert found == [[10, 10]] * 2


def test_the_preview_that_phones_add_to_a_jpeg_is_no_second_frame(tmp_path):
    first, second = frames(2)
    content = encoded(first, "MPO", save_all=True, append_images=[second])
    assert read(tmp_path, content, 1, suffix=".jpg") == [[10, 10]] * 2


def test_damage_behind_the_first_frame_does_not_matter(tmp_path):
    content = encoded(Image.new("L", (2, 2), 10), "GIF")
    for garbage in (b"", b",", b",\xff\xff", b"!\xf9\x04"):
        assert read(tmp_path, content[:-1] + garbage, 1, suffix=".gif") == [[10, 10]] * 2


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_without_reading_is_the_size_that_is_read(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read(tmp_path, Image.new("L", (3, 2)), 1, suffix=suffix, exif=exif)
    assert image_size(tmp_path / f"image{suffix}") == np.shape(pixels)


def test_a_reason_is_one_short_line(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("\x1b[31mmany\nlines\x1b[0m " + "x" * 30_000)

    monkeypatch.setattr("dia_models.data.decode.Image.open", fail)
    assert reason(tmp_path, b"GIF89a") == f"many lines {'x' * 188}…"


@pytest.mark.parametrize("value", [-1, 65_536])
def test_values_that_are_not_16_bit_are_refused(tmp_path, value):
    content = encoded(Image.fromarray(np.array([[0, value]], dtype=np.int32)), "TIFF")
    assert "values outside 0 to 65535" in reason(tmp_path, content, ".tif")


@pytest.mark.parametrize("value", [float("nan"), 1.0, 1e9])
def test_float_values_are_refused(tmp_path, value):
    content = encoded(Image.fromarray(np.array([[0, value]], dtype=np.float32)), "TIFF")
    assert "floating-point values have no known range" in reason(tmp_path, content, ".tif")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".gif"])
def test_1_bit_images_are_black_and_white(tmp_path, suffix):
    image = Image.new("1", (3, 2))
    image.putdata([0, 1, 1, 1, 0, 0])
    assert read(tmp_path, image, 1, suffix=suffix) == [[0, 255, 255], [255, 0, 0]]
    assert read(tmp_path, image, 3, suffix=suffix)[0] == [(0, 0, 0), WHITE, WHITE]


UPRIGHT = {  # how the stored rows 1 2 3, 4 5 6 are to be seen
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_cameras_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert read(tmp_path, UPRIGHT[1], 1, exif=exif) == UPRIGHT[orientation]
    blocks = grey(UPRIGHT[1]).point(lambda v: v * 40).resize((24, 16), Image.Resampling.NEAREST)
    found = np.array(read(tmp_path, blocks, 1, suffix=".jpg", exif=exif, quality=100))
    assert np.abs(found[4::8, 4::8] - 40 * np.array(UPRIGHT[orientation])).max() <= 3


@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [
        ([[1, 2], [3, 4]], (2, 2), [[1, 2], [3, 4]]),
        ([[1, 2, 3, 4], [5, 6, 7, 8]], (2, 2), [[2, 3], [6, 7]]),
        ([[1], [2], [3], [4], [5]], (3, 1), [[2], [3], [4]]),
        ([[1, 2, 3, 4, 5]], (1, 1), [[3]]),
        ([[0, 200]] * 2, (4, 4), [[0, 50, 150, 200]] * 4),
        ([[0, 0, 255, 255]] * 4, (2, 2), [[36, 219]] * 2),
        ([[9, 9, 0, 200, 9, 9]] * 2, (4, 4), [[2, 50, 150, 152]] * 4),
    ],
    ids=["same", "crop width", "crop height", "crop to one", "enlarge", "shrink", "enlarge and crop"],
)
def test_an_image_is_scaled_to_cover_the_size_then_cropped_to_its_centre(tmp_path, rows, size, expected):
    assert read(tmp_path, rows, 1, size) == expected


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (300, 2)])
@pytest.mark.parametrize("shape", [(1, 1), (1, 999), (999, 1), (7, 7)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_every_shape_covers_every_size(tmp_path, mode, shape, size):
    value = {"L": 9, "RGB": (9, 9, 9), "RGBA": (9, 9, 9, 255), "I;16": 99 * 256}[mode]
    expected = 99 if mode == "I;16" else 9
    assert np.all(np.array(read(tmp_path, Image.new(mode, shape, value), 3, size)) == expected)


def test_what_is_no_image_has_a_reason(tmp_path):
    assert reason(tmp_path, b"") == "the file is empty"
    for content in (b"hello\n", b"\0" * 1000, b"<svg/>", b"P", b"%PDF-1.7\n"):
        assert reason(tmp_path, content) == "not an image in a known format"
    with pytest.raises(UnreadableImageError, match="No such file"):
        read_image(tmp_path / "none.png", None, 3)
    with pytest.raises(UnreadableImageError, match="directory"):
        read_image(tmp_path, None, 3)


def test_no_other_program_is_run_for_a_file_that_only_pretends_to_be_an_image(tmp_path, monkeypatch):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/it-ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it is looked for once, then remembered
    reason(tmp_path, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("side", [9_000, 12_000, 100_000, 2**31 - 1])
@pytest.mark.filterwarnings("ignore:Image size .* exceeds limit")  # Pillow's own, before the refusal
def test_gigantic_headers_are_refused(tmp_path, side):
    reason(tmp_path, png(side, side, 8, 2), match="pixels")
    reason(tmp_path, b"P6 %d %d 255\n" % (side, side), ".ppm", match="pixels")


FORMS = {
    ".png": {},
    ".jpg": {"quality": 95},
    ".bmp": {},
    ".gif": {},
    ".tif": {"compression": "tiff_lzw"},
    ".webp": {"lossless": True},
    ".ppm": {},
}


def sample(suffix):
    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    form = Image.registered_extensions()[suffix]
    return encoded(Image.fromarray(noise), form, **FORMS[suffix])


@pytest.mark.parametrize("suffix", FORMS)
def test_a_truncated_image_is_refused(tmp_path, suffix):
    content = sample(suffix)
    for length in {1, 2, 5, 8, 12, *range(0, len(content) * 3 // 4, len(content) // 12)}:
        assert reason(tmp_path, content[:length], suffix)


@pytest.mark.parametrize("suffix", FORMS)
def test_a_damaged_image_gives_pixels_or_a_reason(tmp_path, suffix):
    content, draw, path = sample(suffix), random.Random(suffix), tmp_path / f"bad{suffix}"
    for _ in range(150):
        changed = bytearray(content)
        for _ in range(draw.choice((1, 1, 2, 8))):
            changed[draw.randrange(draw.choice((60, len(changed))))] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            pixels = read_image(path, (8, 8), 3)
        except UnreadableImageError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017  (either outcome is right)
        else:
            assert pixels.shape == (8, 8, 3)
