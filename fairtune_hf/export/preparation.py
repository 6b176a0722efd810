"""From a picture's file to what the model beside this file takes. Needs Pillow and NumPy alone.

    from preparation import open_picture, prepare

`open_picture` gives the square RGB picture to hand to an image-classification pipeline; `prepare` gives the
normalised array for ONNX and for a traced program. What it cannot bring to 8 bits as it was done for the
training pictures (DICOM, volumes, colour of 16 bits) it refuses.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

INPUT: dict[str, Any] = {}  # filled in where this file stands beside a model

FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP", "TIFF", None)
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_OTHERWISE = (
    "Read it with fairtune_hf (`fairtune predict`), or decode it there: "
    "load_predictor(RUN).decode(FILE) returns a square array that this takes."
)


def open_picture(picture: Any, given: dict[str, Any] | None = None) -> Image.Image:
    """Return the upright square RGB picture that the training would have stored.

    Args:
        picture: A path, the bytes of a file, a Pillow image, or an array (height, width[, 3]) of uint8.
        given: Sides of the squares and depth; by default those of the model beside this file.

    Raises:
        ValueError: It is no picture of 8 bits or grey of 16 bits.
    """
    given = INPUT if given is None else given
    last = given["stored_sides"][-1]
    if isinstance(picture, np.ndarray) and picture.shape == (last, last, 3):
        return _load(picture)  # decoded by fairtune_hf
    image = _to_rgb(_load(picture), given["depth16"])
    for side in given["stored_sides"]:
        image = _square(image, side)
    return image


def prepare(picture: Any, given: dict[str, Any] | None = None) -> np.ndarray:
    """Return what the model takes of one picture: (3, size, size) float32; stack several for a batch."""
    given = INPUT if given is None else given
    values = np.asarray(open_picture(picture, given), dtype=np.float32).transpose(2, 0, 1)
    size = given["image_size"]
    start = (values.shape[-1] - size) // 2
    values = values[:, start : start + size, start : start + size]
    mean, std = (np.asarray(given[name], np.float32) for name in ("image_mean", "image_std"))
    scale, shift = 1 / (np.float32(255) * std), -mean / std
    return np.ascontiguousarray(values * scale[:, None, None] + shift[:, None, None])


def _load(picture: Any) -> Image.Image:
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3):
            raise ValueError(
                f"picture: expected an array (height, width[, 3]) of uint8, got {picture.shape} of {picture.dtype}."
            )
        return Image.fromarray(picture)
    if isinstance(picture, str | os.PathLike):
        picture = Path(picture).read_bytes()
    if isinstance(picture, bytes):
        picture = _open(picture)
    if not isinstance(picture, Image.Image):
        raise ValueError(
            f"picture: expected a path, bytes, a Pillow image or an array, got {type(picture).__name__}."
        )
    return ImageOps.exif_transpose(picture)


def _open(raw: bytes) -> Image.Image:
    if raw[128:132] == b"DICM":
        raise ValueError(f"picture: is DICOM, which this file does not read. {_OTHERWISE}")
    try:
        image = Image.open(io.BytesIO(raw))
    except OSError as error:
        raise ValueError(f"picture: is nothing that Pillow reads. {_OTHERWISE}") from error
    deep_colour = image.format == "PNG" and image.mode not in _DEEP and _is_deep_png(raw)
    deep_tiff = image.format == "TIFF" and (image.mode in _DEEP or _tiff_bits(image) != {8})
    if image.format not in FORMATS or deep_colour or deep_tiff:
        raise ValueError(
            f"picture: is {image.format} of a kind that Pillow would change. {_OTHERWISE}"
        )
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise ValueError("picture: holds several frames, and one picture was expected.")
    return image


def _is_deep_png(raw: bytes) -> bool:
    return raw[24] == 16  # the bit depth, in the header's ninth byte


def _tiff_bits(image: Any) -> set[int]:
    return set(image.tag_v2.get(258, (1,))) | {8 * image.tag_v2.get(339, (1,))[0]}


def _to_rgb(image: Image.Image, depth16: str) -> Image.Image:
    """Scale deep grey to 8 bits, from its own range or from 0..65535; leave alpha off."""
    if image.mode in _DEEP:
        values = np.asarray(image).astype(np.float64)
        low, high = (0.0, 65535.0) if depth16 == "full" else (values.min(), values.max())
        shares = np.clip((values - low) / (high - low if high > low else 1.0), 0.0, 1.0)
        image = Image.fromarray(np.rint(shares * 255.0).astype(np.uint8))
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")


def _square(image: Image.Image, side: int) -> Image.Image:
    """Resize the centre square, which may begin between two pixels, to `side`."""
    width, height = image.size
    edge = min(width, height)
    left, top = (width - edge) / 2, (height - edge) / 2
    if image.size == (side, side):
        return image
    box = (left, top, left + edge, top + edge)
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box)
