"""Whatever holds a picture (a path, bytes, Pillow's image, an array) as the square that training stored of it.

Files go through the very reader of the training's pictures. What was decoded by somebody else is
brought to 8 bits by the same rules: more than 8 bits are scaled from the picture's own range.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from fairtune_hf.data.image_source import ImageError, Pixels, square
from fairtune_hf.data.images import FileSource, check_pixels, decode_bytes, scaled_rgb, to_rgb
from fairtune_hf.model_description import InputRecord

Picture = str | PathLike[str] | bytes | Image.Image | np.ndarray
"""What a picture may be given as."""


def decode(picture: Any, depth16: str = "minmax") -> Image.Image:
    """Decode a picture to upright RGB of 8 bits.

    Args:
        picture: A path, the bytes of a file, an image of Pillow, or an array of shape (height, width) or
            (height, width, channels) with 1, 3 or 4 channels: uint8 as it is, other numbers scaled.
        depth16: `minmax` scales more than 8 bits from the picture's own range, `full` from 0..65535.

    Raises:
        ImageError: It cannot be read as one picture.
    """
    if isinstance(picture, bytes | bytearray | memoryview):
        if not len(picture):
            raise ImageError("is empty (0 bytes)")
        return decode_bytes(bytes(picture), depth16)
    if isinstance(picture, str | PathLike):
        return FileSource(Path(picture), Path(picture).name, depth16).decode()[0]
    if isinstance(picture, Image.Image):
        return _from_pillow(picture, depth16)
    if isinstance(picture, np.ndarray):
        return _from_array(picture, depth16)
    raise ImageError(
        f"is a {type(picture).__name__}, where a path, bytes, a PIL image or a numpy array was expected"
    )


def stored_square(image: Image.Image, described: InputRecord) -> Pixels:
    """Return the square, (side, side, 3) uint8, that training would have stored of a decoded picture."""
    first, *others = described.stored_sides
    pixels = square(image, first)
    for side in others:
        resized = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized)
    return pixels


def _from_pillow(image: Image.Image, depth16: str) -> Image.Image:
    check_pixels(*image.size)
    try:
        image = ImageOps.exif_transpose(image)
    except OSError as error:
        raise ImageError(f"cannot be decoded ({error})") from error
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return scaled_rgb(np.asarray(image), depth16)
    return to_rgb(image)


def _from_array(values: np.ndarray, depth16: str) -> Image.Image:
    channels = values.shape[2] if values.ndim == 3 else 1
    if values.ndim not in (2, 3) or channels not in (1, 3, 4) or not values.size:
        raise ImageError(
            f"is an array of shape {values.shape}, where (height, width) or (height, width, 1, 3 or 4) was expected"
        )
    check_pixels(values.shape[1], values.shape[0])
    if values.ndim == 3:  # grey in one channel; an alpha channel is left off
        values = values[..., 0] if channels == 1 else values[..., :3]
    if values.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(values)).convert("RGB")
    if values.dtype.kind not in "iufb":
        raise ImageError(f"is an array of {values.dtype}, where numbers were expected")
    return scaled_rgb(values, depth16)
