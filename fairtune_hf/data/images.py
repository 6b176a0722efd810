"""From a picture file to a square uint8 array: one `ImageSource` per row.

A source knows its name for messages, a signature for the cache's key, and how to give its pixels.
Values are scaled or windowed to 0..255, never wrapped.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 178_956_970
"""Twice Pillow's own limit for a warning: a larger picture is refused as a decompression bomb."""

ORIENTATION = 0x0112
"""The EXIF tag that says which side of the camera was up."""

Pixels = npt.NDArray[np.uint8]


class ImageError(Exception):
    """A picture that cannot be used; the message says why, without its path."""


class ImageSource(Protocol):
    """Where one row's picture comes from."""

    @property
    def name(self) -> str:
        """The name a message calls the picture by."""

    def signature(self) -> str:
        """Return what changes when the picture changes (path, size, time of change)."""

    def read(self, side: int) -> tuple[Pixels, bytes]:
        """Return (side, side, 3) uint8 pixels and a digest of the picture's bytes.

        Raises:
            ImageError: if there is no usable picture.
        """


@dataclass(frozen=True)
class FileSource:
    """A picture file: what Pillow reads (JPEG, PNG, TIFF, BMP, any mode), or DICOM."""

    path: str | Path
    name: str
    depth16: str = "minmax"

    def signature(self) -> str:
        """Return name, size and time of change."""
        try:
            told = os.stat(self.path)  # noqa: PTH116  a Path a picture is slow over many thousands
        except (OSError, ValueError):
            return f"{self.name} missing"
        return f"{self.name} {told.st_size} {told.st_mtime_ns} {self.depth16}"

    def read(self, side: int) -> tuple[Pixels, bytes]:
        """Decode the file; see `ImageSource.read`."""
        try:
            path = Path(self.path)
            if not stat.S_ISREG(path.stat().st_mode):
                raise ImageError("is not a file")
            raw = path.read_bytes()
        except OSError as error:
            raise ImageError(f"cannot be opened ({error.strerror})") from error
        if not raw:
            raise ImageError("is empty (0 bytes)")
        return square(decode_bytes(raw, self.depth16), side), hashlib.sha256(raw).digest()


def decode_bytes(raw: bytes, depth16: str = "minmax") -> Image.Image:
    """Decode a picture file of any kind, DICOM too; see `decode_picture`."""
    from fairtune_hf.data.dicom import decode_dicom, is_dicom

    return decode_dicom(raw) if is_dicom(raw) else decode_picture(raw, depth16)


def decode_picture(raw: bytes, depth16: str = "minmax") -> Image.Image:
    """Decode the bytes of a picture file to an upright RGB image.

    Raises:
        ImageError: if Pillow cannot decode it, it is huge, or it has several frames.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(raw))
        _check_header(image)
        image.load()
        if image.getexif().get(ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise ImageError("is not a picture that Pillow knows") from error
    except ImageError:
        raise
    except Exception as error:
        # Pillow's decoders raise any kind on damaged data (struct.error, zlib.error, KeyError).
        # Each becomes a reason beside the file's name; the caller stops or counts.
        raise ImageError(f"cannot be decoded ({str(error) or type(error).__name__})") from error
    return to_rgb(image, depth16)


def _check_header(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"has {width} x {height} pixels, more than {MAX_PIXELS} in all")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageError(f"holds {frames} frames where one picture was expected")


def to_rgb(image: Image.Image, depth16: str = "minmax") -> Image.Image:
    """Bring any mode to RGB; more than 8 bits are scaled, an alpha channel is left off."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.asarray(image, dtype=np.float64)
        bounds = (0.0, 65535.0) if depth16 == "full" else None
        return Image.fromarray(scale_to_uint8(values, bounds)).convert("RGB")
    if image.mode == "RGB":
        return image
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")


def scale_to_uint8(
    values: npt.NDArray[np.floating], bounds: tuple[float, float] | None = None
) -> Pixels:
    """Map `bounds` (the values' own range if None) to 0..255; what lies outside is clipped.

    Values that are not finite become 0.
    """
    finite = np.isfinite(values)
    if bounds is None:
        known = values[finite]
        bounds = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    low, high = bounds
    width = high - low if high > low else 1.0
    scaled = np.clip((np.where(finite, values, low) - low) / width, 0.0, 1.0)
    return np.rint(scaled * 255.0).astype(np.uint8)


def square(image: Image.Image, side: int) -> Pixels:
    """Resize the shorter side to `side` (bilinear) and crop the centre, in one step."""
    width, height = image.size
    edge = min(width, height)
    left, top = (width - edge) / 2, (height - edge) / 2
    if (width, height) != (side, side):
        box = (left, top, left + edge, top + edge)
        image = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image, dtype=np.uint8)
