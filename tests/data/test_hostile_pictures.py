"""Two hundred hostile pictures: each is decoded or refused with a reason; none crashes."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from fairtune_hf.data import load_dataset_table
from fairtune_hf.data.image_source import ImageError, square
from fairtune_hf.data.images import FileSource, decode_picture

SIDE = 16
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP")


def pixels(width=40, height=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(kind, image=None, **options):
    buffer = io.BytesIO()
    (image or Image.fromarray(pixels())).save(buffer, format=kind, **options)
    return buffer.getvalue()


def bomb_header(width, height):
    """A PNG that claims to be large and holds next to nothing."""

    def part(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", head)
        + part(b"IDAT", zlib.compress(b"\0"))
        + part(b"IEND", b"")
    )


def frames(kind):
    images = [Image.fromarray(pixels(seed=i)) for i in range(3)]
    return encoded(kind, images[0], save_all=True, append_images=images[1:])


def broken():
    """Name -> bytes that no decoder should accept."""
    cases = {f"zero bytes {i}": b"" for i in range(2)}
    for kind in FORMATS:
        whole = encoded(kind)
        for share in (0.02, 0.2, 0.4, 0.6):
            cases[f"{kind} cut to {share}"] = whole[: max(1, int(len(whole) * share))]
        cases[f"{kind} header then text"] = whole[:24] + b"hello world " * 20
        cases[f"{kind} header then zeros"] = whole[:24] + bytes(500)
    for name, data in {
        "text": b"this is no picture\n",
        "html": b"<html><body>404 Not Found</body></html>",
        "json": b'{"error": "quota exceeded"}',
        "zip": b"PK\x03\x04" + bytes(60),
        "pdf": b"%PDF-1.7\n%",
        "pickle": b"\x80\x04\x95\x10",
        "git lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "elf": b"\x7fELF" + bytes(60),
        "null bytes": bytes(1000),
        "one byte": b"\xff",
        "utf16 text": "bild".encode("utf-16"),
        "eps that asks for ghostscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }.items():
        cases[name] = data
    cases["png 30000 x 30000"] = bomb_header(30_000, 30_000)
    cases["png 2 billion pixels wide"] = bomb_header(2**31 - 1, 1)
    cases["png of width 0"] = bomb_header(0, 10)
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        cases[f"{kind} of three frames"] = frames(kind)
    return cases


def damaged():
    """Name -> bytes with random bits turned; a decoder may or may not notice."""
    rng = np.random.default_rng(1)
    cases = {}
    for kind in FORMATS:
        whole = bytearray(encoded(kind))
        for i in range(18):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 1 + i):
                data[place] ^= 1 << int(rng.integers(8))
            cases[f"{kind} with {1 + i} bits turned"] = bytes(data)
        for i in range(4):
            noise = rng.integers(0, 256, 300, dtype=np.uint8).tobytes()
            cases[f"{kind} magic and noise {i}"] = bytes(whole[:12]) + noise
    return cases


def odd_but_good():
    """Name -> bytes of unusual pictures that must be read."""
    image = Image.fromarray(pixels())
    grey16 = Image.fromarray(pixels()[..., 0].astype(np.uint16) * 16)
    return {
        "CMYK jpeg": encoded("JPEG", image.convert("CMYK")),
        "CMYK tiff": encoded("TIFF", image.convert("CMYK")),
        "palette png": encoded("PNG", image.convert("P")),
        "palette gif of one frame": encoded("GIF", image.convert("P")),
        "palette with transparency": encoded("PNG", image.convert("P"), transparency=0),
        "1 bit": encoded("PNG", image.convert("1")),
        "grey": encoded("JPEG", image.convert("L")),
        "grey with alpha": encoded("PNG", image.convert("LA")),
        "rgb with alpha": encoded("PNG", image.convert("RGBA")),
        "lab tiff": encoded("TIFF", image.convert("LAB")),
        "ycbcr tiff": encoded("TIFF", image.convert("YCbCr")),
        "16 bit png": encoded("PNG", grey16),
        "16 bit tiff": encoded("TIFF", grey16),
        "32 bit integer tiff": encoded("TIFF", Image.fromarray(pixels()[..., 0].astype(np.int32))),
        "float tiff": encoded("TIFF", Image.fromarray(pixels()[..., 0].astype(np.float32))),
        "float tiff with nan": encoded(
            "TIFF", Image.fromarray(np.where(pixels()[..., 0] > 9, 1.5, np.nan).astype(np.float32))
        ),
        "constant 16 bit": encoded("PNG", Image.fromarray(np.full((9, 9), 700, np.uint16))),
        "one pixel": encoded("PNG", Image.new("RGB", (1, 1))),
        "30000 x 2": encoded("PNG", Image.new("RGB", (30_000, 2), "red")),
        "2 x 30000": encoded("PNG", Image.new("RGB", (2, 30_000), "red")),
        "30000 x 300 jpeg": encoded("JPEG", Image.new("RGB", (30_000, 300), "red")),
        "progressive jpeg": encoded("JPEG", image, progressive=True),
        "jpeg with junk behind": encoded("JPEG", image) + b"junk" * 100,
        "interlaced bmp name": encoded("BMP", image.convert("L")),
        "webp without loss": encoded("WEBP", image, lossless=True),
        "jpeg 2000": encoded("JPEG2000", image),
    }


BROKEN, DAMAGED, ODD = broken(), damaged(), odd_but_good()


def test_there_are_two_hundred():
    assert len(BROKEN) + len(DAMAGED) + len(ODD) >= 200


@pytest.mark.parametrize("name", BROKEN)
def test_broken_is_refused_with_a_reason(tmp_path, name):
    path = tmp_path / "x.jpg"
    path.write_bytes(BROKEN[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as caught:
            FileSource(path, "x.jpg").read(SIDE)
    assert 5 < len(str(caught.value)) < 400
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_is_decoded_or_refused(tmp_path, name):
    path = tmp_path / "x.jpg"
    path.write_bytes(DAMAGED[name])
    try:
        image, digest = FileSource(path, "x.jpg").read(SIDE)
    except ImageError:
        return
    assert image.shape == (SIDE, SIDE, 3)
    assert image.dtype == np.uint8
    assert len(digest) == 32


@pytest.mark.parametrize("name", ODD)
def test_odd_but_good_is_read(tmp_path, name):
    path = tmp_path / "x.png"
    path.write_bytes(ODD[name])
    image, _ = FileSource(path, "x.png").read(SIDE)
    assert image.shape == (SIDE, SIDE, 3)


def test_many_hostile_files_in_one_folder_are_quarantined_and_counted(
    make_folder, columns, table_of, capsys
):
    source = table_of(200)
    root = make_folder(source)
    names = list(source["file_name"])
    for name, data in zip(names, BROKEN.values(), strict=False):
        (root / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{len(BROKEN)} of 400 are not: .*; and \d+ more"):
        load_dataset_table("folder", root, image_size=SIDE, **columns)
    table = load_dataset_table("folder", root, image_size=SIDE, skip_corrupt=True, **columns)
    assert table.dropped == {"picture unreadable": len(BROKEN)}
    assert len(table) == 400 - len(BROKEN)
    assert not set(table.frame["row_id"]) & set(names[: len(BROKEN)])
    said = capsys.readouterr().err
    assert all(name in said for name in names[: len(BROKEN)])
    assert not any(name in w for name in names for w in table.warnings)


def test_16_bits_are_scaled_not_wrapped():
    values = np.asarray([[0, 1000], [2000, 4000]], dtype=np.uint16)
    raw = encoded("PNG", Image.fromarray(values))
    grey = np.asarray(decode_picture(raw))[..., 0]
    assert grey.tolist() == [[0, 64], [128, 255]]
    full = np.asarray(decode_picture(raw, "full"))[..., 0]
    assert full.tolist() == [[0, 4], [8, 16]]


def test_cmyk_and_palette_keep_their_colours():
    image = Image.new("RGB", (8, 8), (200, 30, 60))
    for changed in (image.convert("CMYK"), image.convert("P", palette=Image.Palette.ADAPTIVE)):
        raw = encoded("TIFF", changed)
        got = np.asarray(decode_picture(raw))[4, 4].astype(int)
        assert np.abs(got - (200, 30, 60)).max() <= 2


def test_exif_orientation_is_applied():
    image = Image.fromarray(pixels(8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = encoded("JPEG", image, exif=exif, quality=100, subsampling=0)
    plain = encoded("JPEG", image, quality=100, subsampling=0)
    turned = np.rot90(np.asarray(decode_picture(plain)), k=-1)
    np.testing.assert_array_equal(np.asarray(decode_picture(raw)), turned)


def test_square_is_resize_and_centre_crop():
    image = Image.fromarray(pixels(60, 40))
    got = square(image, 20)
    cropped = image.resize((30, 20), Image.Resampling.BILINEAR).crop((5, 0, 25, 20))
    np.testing.assert_array_equal(got, np.asarray(cropped))


def test_a_folder_or_a_pipe_in_place_of_a_picture(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(ImageError, match="is not a file"):
            FileSource(tmp_path / name, name).read(SIDE)
