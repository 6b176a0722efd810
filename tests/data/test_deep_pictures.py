"""Pictures of more than 8 bits or with a sign, written byte by byte and read with all they hold."""

from __future__ import annotations

import io
import itertools
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from fairtune_hf.data import load_dataset_table
from fairtune_hf.data.image_source import ImageError
from fairtune_hf.data.images import decode_bytes, decode_picture

RAMP = (np.arange(64).reshape(8, 8) * 65).astype(np.uint16)
OTHER = RAMP.T.copy()
KINDS = {"u": 1, "i": 2, "f": 3}


def tiff(values, *, order="<", compressed=False, photometric=None, separate=False, extra=None):
    """A TIFF of one strip a plane, its tags written by hand."""
    values = values.astype(values.dtype.newbyteorder(order))
    samples = 1 if values.ndim == 2 else values.shape[2]
    planes = [values[..., i] for i in range(samples)] if separate else [values]
    strips = [p.tobytes() for p in planes]
    strips = [zlib.compress(s) for s in strips] if compressed else strips
    height, width = values.shape[:2]
    colour = 2 if samples >= 3 else 1
    tags = [
        (256, [width]), (257, [height]), (258, [8 * values.itemsize] * samples),
        (259, [8 if compressed else 1]), (262, [colour if photometric is None else photometric]),
        (273, None), (277, [samples]), (278, [height]), (279, [len(s) for s in strips]),
        (284, [2 if separate else 1]), *([] if extra is None else [(338, [extra])]),
        (339, [KINDS[values.dtype.kind]] * samples),
    ]  # fmt: skip
    after = 8 + 2 + 12 * len(tags) + 4
    room = sum(4 * len(v or strips) for _, v in tags)
    starts = [after + room + n for n in itertools.accumulate([0, *map(len, strips)])][:-1]
    entries, outside = b"", b""
    for tag, numbers in tags:
        numbers = starts if numbers is None else numbers
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers))
        if len(numbers) > 1:
            entries += struct.pack(f"{order}I", after + len(outside))
            outside += packed
        else:
            entries += packed
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return head + entries + bytes(4) + outside.ljust(room, b"\0") + b"".join(strips)


def png(values):
    height, width = values.shape[:2]
    samples = 1 if values.ndim == 2 else values.shape[2]

    def part(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[samples], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def stretched(values):
    values = values.astype(np.float64)
    return np.rint((values - values.min()) / (values.max() - values.min()) * 255)


def assert_shows(raw, expected, tolerance=0):
    found = np.asarray(decode_bytes(raw)).astype(int)
    expected = np.stack([expected] * 3, -1) if expected.ndim == 2 else expected
    assert np.abs(found - expected).max() <= tolerance


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["u2", "i2", "i4", "f4", "i1"])
def test_tiff_numbers_of_any_kind_and_order(order, compressed, kind):
    values = (RAMP.astype(int) - 2000).astype(kind)
    if kind == "u2":
        values = RAMP * np.uint16(16)
    if kind == "i1":
        values = (RAMP // 16).astype(int) - 128
        values = values.astype(np.int8)
    expected = values.astype(int) + 128 if kind == "i1" else stretched(values)
    assert_shows(tiff(values, order=order, compressed=compressed), expected)


@pytest.mark.parametrize("compressed", [False, True])
def test_tiff_of_32_unsigned_bits(compressed):
    values = RAMP.astype(np.uint32) * 1_000_000
    assert_shows(tiff(values, compressed=compressed), stretched(values))


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_tiff_where_white_is_zero(kind):
    values = (RAMP // 16).astype(kind) if kind == "u1" else RAMP.astype(kind)
    expected = 255 - values.astype(int) if kind == "u1" else 255 - stretched(values)
    assert_shows(tiff(values, photometric=0), expected, 1)
    if kind == "u2":
        full = np.asarray(decode_picture(tiff(values, photometric=0), "full"))[..., 0]
        np.testing.assert_array_equal(full, np.rint((65535 - values.astype(int)) / 257))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("extra", [None, 0, 2])
def test_tiff_colour_of_16_bits(order, compressed, extra):
    rgb = np.stack([RAMP, RAMP[::-1], OTHER], -1)
    values = rgb if extra is None else np.concatenate([rgb, np.full_like(rgb, 65535)], -1)[..., :4]
    raw = tiff(values, order=order, compressed=compressed, extra=extra)
    assert_shows(raw, stretched(rgb))
    full = np.asarray(decode_picture(raw, "full"))
    np.testing.assert_array_equal(full, np.rint(rgb / 257))


def test_tiff_colour_multiplied_by_its_alpha():
    rgb = np.stack([RAMP, RAMP[::-1], OTHER], -1) * 4
    alpha = np.full((8, 8, 1), 32768, np.uint16)
    held = np.rint(rgb * (32768 / 65535)).astype(np.uint16)
    assert_shows(tiff(np.concatenate([held, alpha], -1), extra=1), stretched(rgb), 1)


@pytest.mark.parametrize("compressed", [False, True])
def test_tiff_with_separate_planes(compressed):
    rgb = np.stack([RAMP, RAMP[::-1], OTHER], -1)
    with pytest.raises(
        ImageError, match="a TIFF with separate planes of 16 bits; save it as 8- or"
    ):
        decode_picture(tiff(rgb, compressed=compressed, separate=True))
    eight = (rgb // 16).astype(np.uint8)
    assert_shows(tiff(eight, compressed=compressed, separate=True), eight.astype(int))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (RAMP.astype(np.float64), "1 x 64 bits, floating point"),
        (RAMP.astype(np.float16), "1 x 16 bits, floating point"),
        (np.stack([RAMP] * 3, -1).astype(np.int16), "3 x 16 bits, signed"),
    ],
)
def test_tiff_that_is_not_read_is_named(values, told):
    with pytest.raises(ImageError, match=f"a TIFF of a kind that Pillow does not read .{told}"):
        decode_picture(tiff(values))


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_png_of_16_bits(samples):
    channels = [RAMP, RAMP[::-1], OTHER][: 1 if samples < 3 else 3]
    if samples in (2, 4):
        channels = [*channels, np.full_like(RAMP, 65535)]
    colour = np.stack(channels[:3] if samples > 2 else [RAMP] * 3, -1)
    raw = png(np.stack(channels, -1) if samples > 1 else RAMP)
    assert_shows(raw, stretched(colour))
    full = np.asarray(decode_picture(raw, "full"))
    np.testing.assert_array_equal(full, np.rint(colour / 257))


def test_png_of_12_bits_keeps_its_levels():
    grey = np.arange(4096).reshape(64, 64).astype(np.uint16)
    full = np.full_like(grey, 65535)
    for channels in ([grey], [grey, full], [grey] * 3, [grey, grey, grey, full]):
        raw = png(np.stack(channels, -1) if len(channels) > 1 else grey)
        assert len(np.unique(np.asarray(decode_bytes(raw)))) == 256


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("greatest", [4095, 65535])
def test_pnm_of_16_bits(plain, greatest):
    rgb = np.stack([RAMP, RAMP[::-1], OTHER], -1)
    head = f"P{3 if plain else 6} 8 8 {greatest}\n".encode()
    body = " ".join(map(str, rgb.ravel())).encode() if plain else rgb.astype(">u2").tobytes()
    assert_shows(head + body, stretched(rgb))
    full = np.asarray(decode_picture(head + body, "full"))
    np.testing.assert_array_equal(full, np.rint(rgb / greatest * 255))


def test_jpeg_2000_of_16_bits():
    openjpeg = pytest.importorskip("openjpeg")
    grey = np.kron(RAMP, np.ones((8, 8), np.uint16))
    rgb = np.stack([grey, grey[::-1], grey.T], -1) * np.uint16(16)
    for codec in (0, 1):  # the bare codestream, and JP2
        raw = openjpeg.encode(rgb, photometric_interpretation=1, codec_format=codec)
        assert_shows(bytes(raw), stretched(rgb))
        assert_shows(bytes(openjpeg.encode(grey, codec_format=codec)), stretched(grey))


def test_orientation_turns_a_picture_of_16_bits_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = png(np.stack([RAMP, RAMP[::-1], OTHER], -1))
    data = exif.tobytes()[6:]
    part = struct.pack(">I", len(data)) + b"eXIf" + data
    part += struct.pack(">I", zlib.crc32(b"eXIf" + data))
    turned = np.asarray(decode_picture(whole[:33] + part + whole[33:]))
    np.testing.assert_array_equal(turned, np.rot90(np.asarray(decode_picture(whole)), k=-1))


def test_the_first_picture_of_a_multi_picture_jpeg():
    rng = np.random.default_rng(0)
    first, second = (Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)) for _ in "ab")
    several, one = io.BytesIO(), io.BytesIO()
    first.save(several, "MPO", save_all=True, append_images=[second], quality=90)
    first.save(one, "JPEG", quality=90)
    assert_shows(several.getvalue(), np.asarray(decode_picture(one.getvalue())).astype(int))


def test_values_that_are_no_numbers_are_counted():
    values = RAMP.astype(np.float32)
    values[0, :2] = np.nan, np.inf
    with pytest.warns(UserWarning, match="2 of 64 values are not finite and drawn black"):
        grey = np.asarray(decode_picture(tiff(values)))[..., 0]
    assert grey[0, 0] == grey[0, 1] == 0
    known = values[np.isfinite(values)]
    assert grey[4, 4] == round(float((values[4, 4] - known.min()) / np.ptp(known)) * 255)
    with pytest.raises(ImageError, match="holds no finite value"):
        decode_picture(tiff(np.full((8, 8), np.nan, np.float32)))


def test_a_folder_with_a_deep_tiff_is_prepared_alike(make_folder, columns, table_of):
    source = table_of()
    root = make_folder(source)
    rgb = np.stack([RAMP, RAMP[::-1], OTHER], -1)
    (root / source["file_name"][3]).write_bytes(tiff(rgb, order=">", compressed=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = load_dataset_table("folder", root, image_size=8, **columns)
    at = list(table.frame["row_id"]).index(source["file_name"][3])
    np.testing.assert_array_equal(table.images[at], stretched(rgb))


@pytest.mark.parametrize("cache", [True, False])
def test_a_table_says_which_pictures_hold_values_that_are_no_numbers(
    make_folder, columns, table_of, cache
):
    source = table_of()
    root = make_folder(source)
    values = RAMP.astype(np.float32)
    values[0, :2] = np.nan
    (root / source["file_name"][3]).write_bytes(tiff(values))
    for _ in range(2):  # decoded, then from the cache
        table = load_dataset_table("folder", root, image_size=8, cache=cache, **columns)
        said = [w for w in table.warnings if "finite" in w]
        assert said == [
            "pictures of metadata.csv that are used, with a note: 1 (line 5: 2 of 64 values are "
            "not finite and drawn black)"
        ]


@pytest.mark.parametrize("rows_a_strip", [40, 8])
@pytest.mark.parametrize("behind", [0, 4096])
def test_plain_ycbcr_has_three_bytes_a_pixel(rows_a_strip, behind):
    """Whatever follows the pixels in the file."""
    rgb = np.random.default_rng(0).integers(0, 255, (40, 52, 3), dtype=np.uint8)
    stored, file = Image.fromarray(rgb).convert("YCbCr"), io.BytesIO()
    stored.save(file, "TIFF", tiffinfo={278: rows_a_strip})
    found = np.asarray(decode_bytes(file.getvalue() + bytes(behind)))
    np.testing.assert_array_equal(found, np.asarray(stored.convert("RGB")))
