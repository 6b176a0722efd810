"""What stands beside an export prepares every picture as the run did, with Pillow and NumPy alone."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fairtune_hf.export.folders import input_of, processor_of, write_preparation
from fairtune_hf.export.preparation import open_picture, prepare
from fairtune_hf.inference import Predictor
from fairtune_hf.model_description import InputRecord, ModelDescription

SIDES = {"one side": [32], "a crop": [37], "two sides": [48, 37]}
GENERATOR = np.random.default_rng(0)


def given(sides: list[int], depth16: str = "minmax") -> InputRecord:
    return InputRecord(
        image_size=32,
        image_mean=[0.4, 0.5, 0.6],
        image_std=[0.2, 0.25, 0.3],
        stored_sides=sides,
        depth16=depth16,
    )


def predictor(told: InputRecord) -> Predictor:
    described = ModelDescription(id2label={"0": "well", "1": "ill"}, input=told)
    return Predictor(torch.nn.Identity(), described, device=torch.device("cpu"))


def encode(image: Image.Image, kind: str = "PNG", **words: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **words)
    return buffer.getvalue()


def noise(width: int, height: int, *channels: int) -> Image.Image:
    return Image.fromarray(GENERATOR.integers(0, 256, (height, width, *channels), dtype=np.uint8))


def upside_down() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(noise(50, 70, 3), "JPEG", exif=exif)


DEEP = GENERATOR.integers(300, 40000, (70, 50)).astype(np.uint16)
PICTURES = {
    "square": encode(noise(32, 32, 3)),
    "larger": encode(noise(96, 96, 3), "JPEG"),
    "wide": encode(noise(640, 480, 3), "JPEG"),
    "tall": encode(noise(48, 64, 3)),
    "strip": encode(noise(100, 30, 3)),
    "odd": encode(noise(47, 64, 3)),
    "grey": encode(noise(60, 40)),
    "alpha": encode(noise(60, 40, 4)),
    "palette": encode(noise(60, 40, 3).quantize(16)),
    "one bit": encode(noise(60, 40).convert("1")),
    "turned": upside_down(),
    "bmp": encode(noise(33, 44, 3), "BMP"),
    "tiff": encode(noise(33, 44, 3), "TIFF"),
    "grey of 16 bits": encode(Image.fromarray(DEEP)),
}


@pytest.mark.parametrize("depth16", ["minmax", "full"])
@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)
def test_every_kind_of_picture_is_prepared_as_the_run_does(sides: list[int], depth16: str) -> None:
    told = given(sides, depth16)
    own = predictor(told)
    for name, raw in PICTURES.items():
        np.testing.assert_array_equal(
            np.asarray(open_picture(raw, input_of(told))), own.decode(raw), err_msg=name
        )
        found = prepare(raw, input_of(told))
        np.testing.assert_allclose(found, own.prepare(raw).numpy(), atol=1e-6, err_msg=name)


def test_what_was_decoded_by_the_product_is_taken_as_it_is() -> None:
    told = given(SIDES["two sides"])
    stored = predictor(told).decode(PICTURES["wide"])
    np.testing.assert_array_equal(np.asarray(open_picture(stored, input_of(told))), stored)


def deep_colour() -> bytes:
    """A PNG of 16 bits a channel, written by hand: Pillow would keep the high bytes alone."""
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    rows = GENERATOR.integers(0, 65536, (8, 8, 3)).astype(">u2")
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    parts = (
        chunk(b"IHDR", head),
        chunk(b"IDAT", zlib.compress(lines)),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\0" * 128 + b"DICM" + b"\0" * 20, "DICOM"),
        (b"not a picture", "nothing that Pillow reads"),
        (deep_colour(), "would change"),
        (encode(Image.fromarray(DEEP), "TIFF"), "would change"),
    ],
    ids=["dicom", "text", "colour of 16 bits", "tiff of 16 bits"],
)
def test_what_would_be_read_otherwise_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_picture(raw, input_of(given([32])))


def test_the_written_module_needs_pillow_and_numpy_alone(tmp_path: Path) -> None:
    told = given([37])
    write_preparation(tmp_path, told)
    (tmp_path / "wide.png").write_bytes(PICTURES["tall"])
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "for name in ('fairtune_hf', 'torch', 'transformers', 'peft'): sys.modules[name] = None\n"
        "import numpy; from preparation import prepare; numpy.save('found.npy', prepare('wide.png'))"
    )
    subprocess.run([sys.executable, "-B", "-c", script], cwd=tmp_path, check=True, timeout=60)
    right = predictor(told).prepare(PICTURES["tall"]).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), right, atol=1e-6)


@pytest.mark.parametrize("sides", [[32], [37]], ids=["one side", "a crop"])
def test_the_processor_has_equal_pixels_for_square_pictures(
    sides: list[int], tmp_path: Path
) -> None:
    import json

    from transformers import AutoImageProcessor

    told = given(sides)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor_of(told)))
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    default = AutoImageProcessor.from_pretrained(tmp_path)
    for name in ("square", "larger", "bmp" if sides == [32] else "square"):
        raw = PICTURES[name]
        image = Image.open(io.BytesIO(raw))
        image = image.crop((0, 0, 33, 33)) if name == "bmp" else image
        found = processor(images=image, return_tensors="pt")["pixel_values"][0]
        right = predictor(told).prepare(image)
        np.testing.assert_allclose(found.numpy(), right.numpy(), atol=1e-6, err_msg=name)
        near = default(images=image, return_tensors="pt")["pixel_values"][0]
        assert (near - right).abs().max() < 1.01 / 255 / 0.2, name  # one grey level
