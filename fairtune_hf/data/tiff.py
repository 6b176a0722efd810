"""TIFF pictures of more than 8 bits, or with a sign, from Pillow's decoders.

Pillow reads 8 unsigned bits rightly. Of the rest it drops signs, keeps one byte of two, turns no
WhiteIsZero of 16 bits round, swaps the bytes of compressed big-endian numbers twice, and scrambles
separate planes of 16 bits. Each is mended here, or refused.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np

from fairtune_hf.data.deep import Values, raw_mode, two_bytes, with_raw_mode
from fairtune_hf.data.image_source import ImageError

BITS, COMPRESSION, PHOTOMETRIC, PLANAR, EXTRA, FORMAT = 258, 259, 262, 284, 338, 339
WHITE_IS_ZERO, RGB, LAB, CMYK, YCBCR = 0, 2, 8, 5, 6
UNSIGNED, SIGNED = 1, 2
SEPARATE, PREMULTIPLIED = 2, 1
NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""Raw modes of big-endian numbers, and those of numbers that libtiff has already swapped."""
MEANT = {1: "unsigned", 2: "signed", 3: "floating point", 5: "complex", 6: "complex"}
AS_USUAL = "save it as 8- or 16-bit grey or RGB with interleaved channels"


def tiff_values(raw: bytes, image: Any) -> Values | None:
    """Return the values of a TIFF of more than 8 bits or with a sign; see `deep_values`.

    Raises:
        ImageError: if Pillow would read them wrongly.
    """
    tags = image.tag_v2
    photometric = tags.get(PHOTOMETRIC, WHITE_IS_ZERO)
    depth = max(tags.get(BITS, (1,)))
    if photometric == YCBCR and raw_mode(image) == "RGBX" and tags.get(COMPRESSION, 1) == 1:
        # Before version 13 Pillow takes it for what libjpeg hands on: four bytes a pixel, where there are three.
        image._mode, image.tile = "YCbCr", [with_raw_mode(t, "YCbCr") for t in image.tile]
    separate = tags.get(PLANAR, 1) == SEPARATE
    if separate and (photometric == LAB or (depth > 8 and len(tags[BITS]) > 1)):
        raise ImageError(f"is a TIFF with separate planes of {depth} bits; {AS_USUAL}")
    if depth <= 8:
        return np.asarray(image).view(np.int8) if tags.get(FORMAT, (1,))[0] == SIGNED else None
    if photometric == CMYK:
        raise ImageError(f"is a TIFF in CMYK of {depth} bits, of which 8 would be kept; {AS_USUAL}")
    if photometric == RGB:
        return _colour(raw, image)
    return _grey(image, photometric == WHITE_IS_ZERO)


def _grey(image: Any, white_is_zero: bool) -> Values:
    tags = image.tag_v2
    if tags.get(COMPRESSION, 1) != 1 and sys.byteorder == "little":
        # libtiff hands on numbers in this machine's order, whatever the file's.
        native = NATIVE.get(raw_mode(image))
        image.tile = [with_raw_mode(t, native) for t in image.tile] if native else image.tile
    values = np.asarray(image)
    if values.dtype == np.int32 and tags.get(FORMAT, (1,))[0] == UNSIGNED:
        values = values.view(np.uint32)
    return _turned(values) if white_is_zero else values


def _turned(values: Values) -> Values:
    """Turn grey round within its type's range, floating point within its own."""
    if values.dtype.kind == "f":
        return -values
    return np.asarray(np.iinfo(values.dtype).max - values)


def _colour(raw: bytes, image: Any) -> Values:
    order = sys.byteorder
    if image.tag_v2.get(COMPRESSION, 1) == 1:
        order = "big" if image.tag_v2.prefix == b"MM" else "little"
    mode = raw_mode(image).split(";")[0].replace("a", "A")
    values = two_bytes(raw, order, mode)
    if PREMULTIPLIED in image.tag_v2.get(EXTRA, ()):
        numbers = values.astype(np.float64)
        return np.minimum(numbers[..., :3] * 65535 / np.maximum(numbers[..., 3:4], 1), 65535)
    return values[..., :3]


def unreadable(raw: bytes) -> str:
    """Say what kind of TIFF it is that Pillow cannot read."""
    from PIL import TiffImagePlugin

    stream = io.BytesIO(raw)
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
        stream.seek(tags.next)
        tags.load(stream)
        bits, kind = tags.get(BITS, (1,)), tags.get(FORMAT, (1,))[0]
        told = f"{len(bits)} x {bits[0]} bits, {MEANT.get(kind, f'sample format {kind}')}"
    except Exception:
        # A damaged directory: Pillow raises many kinds, and there is nothing to tell.
        told = "or a damaged one"
    return f"is a TIFF of a kind that Pillow does not read ({told}); {AS_USUAL}"
