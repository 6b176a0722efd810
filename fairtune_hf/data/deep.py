"""Pictures of more than 8 bits a channel, with all their bits.

Pillow has no mode for several channels of 16 bits and keeps the high byte of each. Its decoders can
be told which byte to keep, though, so two passes give both.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fairtune_hf.data.image_source import ImageError

Values = npt.NDArray[Any]
PNG_HEADER = slice(12, 29)
SIZ_MARKER = b"\xff\x4f\xff\x51"
"""Start of a JPEG 2000 codestream: SOC, then SIZ, which holds the bits of each component."""
AS_PNG = "save it as PNG or TIFF"


def deep_values(raw: bytes, image: Any) -> Values | None:
    """Return the values of a picture of more than 8 bits that is no TIFF: (height, width) or (..., 3).

    Alpha is left off. None if the picture has 8 bits, which Pillow gives as they are.

    Args:
        raw: The file's bytes.
        image: The same, opened by Pillow and not yet loaded.

    Raises:
        ImageError: if there are more than 8 bits and they cannot be had.
    """
    if image.format == "JPEG2000" and image.mode not in ("L", "I;16"):
        return _jpeg2000(raw)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return np.asarray(image)
    if image.format == "PNG" and raw_mode(image).endswith(";16B"):
        # Pillow calls grey with alpha RGBA, as PNG of 8 bits would be.
        return _png_grey(raw) if raw_mode(image)[:2] == "LA" else two_bytes(raw, "big")[..., :3]
    if image.format == "PPM" and image.mode == "RGB":
        return _pnm(raw, image)
    if image.format == "SGI" and raw[3] == 2:
        raise ImageError(f"is SGI of 16 bits, of which 8 would be kept; {AS_PNG}")
    return None


def raw_mode(image: Any) -> str:
    """Return how an opened picture's pixels are written in the file, as Pillow calls it."""
    args = image.tile[0][3] if image.tile else ""
    return str(args if isinstance(args, str) else (args or ("",))[0])


def two_bytes(raw: bytes, order: str, mode: str | None = None) -> Values:
    """Decode channels of 16 bits in two passes, one for each byte.

    Args:
        raw: The file's bytes.
        order: "big" or "little": the order in which the decoder hands on the two bytes.
        mode: Pillow's name of the channels, if not the picture's own mode.
    """
    # Of what the decoder hands on, ";16B" keeps the first byte and ";16L" the second.
    first, second = (_pass(raw, letter, mode) for letter in "BL")
    high, low = (first, second) if order == "big" else (second, first)
    return high.astype(np.uint16) << 8 | low


def _pass(raw: bytes, letter: str, mode: str | None) -> npt.NDArray[np.uint8]:
    image: Any = Image.open(io.BytesIO(raw))
    wanted = f"{mode or image.mode};16{letter}"
    image.tile = [with_raw_mode(tile, wanted) for tile in image.tile]
    return np.asarray(image)


def with_raw_mode(tile: Any, wanted: str) -> Any:
    """Return one of Pillow's tiles (decoder, box, offset, arguments) with another raw mode."""
    args = wanted if isinstance(tile[3], str) else (wanted, *tile[3][1:])
    return tile._replace(args=args)


def _png_grey(raw: bytes) -> Values:
    """Read grey and alpha of 16 bits: four bytes a pixel, so as 8-bit RGBA whose red is high."""
    head = bytearray(raw[PNG_HEADER])  # "IHDR" and its 13 bytes
    head[12], head[13] = 8, 6
    changed = raw[: PNG_HEADER.start] + bytes(head) + struct.pack(">I", zlib.crc32(head))
    pixels = np.asarray(Image.open(io.BytesIO(changed + raw[PNG_HEADER.stop + 4 :])))
    return np.asarray(pixels[..., 0].astype(np.uint16) << 8 | pixels[..., 1])


def _pnm(raw: bytes, image: Any) -> Values | None:
    """Read a colour PNM whose greatest value needs two bytes, plain or binary."""
    decoder, _, offset, args = image.tile[0]
    greatest = int(args[1]) if isinstance(args, tuple) and len(args) > 1 else 255
    if greatest <= 255:
        return None
    width, height = image.size
    count = width * height * 3
    if decoder == "ppm_plain":
        values = np.asarray(raw[offset:].split()[:count], dtype=np.int64)
    else:
        values = np.frombuffer(raw[offset : offset + 2 * count], dtype=">u2").astype(np.int64)
    if len(values) < count:
        raise ImageError("cannot be decoded (image file is truncated)")
    # As Pillow does for grey: the greatest value named in the header is white of 16 bits.
    return np.asarray(np.rint(values.reshape(height, width, 3) * (65535 / greatest)))


def _jpeg2000(raw: bytes) -> Values | None:
    start = raw.find(SIZ_MARKER)
    if start < 0:
        return None
    count = struct.unpack_from(">H", raw, start + 40)[0]
    signs = [raw[start + 42 + 3 * i] for i in range(count)]
    if max(b & 0x7F for b in signs) < 8:
        return None
    try:
        import openjpeg
    except ImportError as error:
        raise ImageError(
            "is JPEG 2000 of more than 8 bits a channel, which needs pylibjpeg-openjpeg: "
            "pip install 'fairtune_hf[dicom]'"
        ) from error
    values = np.asarray(openjpeg.decode(raw))
    if values.ndim == 3:
        return values[..., :3] if values.shape[2] >= 3 else values[..., 0]
    return values
