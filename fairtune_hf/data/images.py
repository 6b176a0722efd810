"""Picture files of every kind, told apart by their bytes: DICOM, volumes, and what Pillow reads.

What comes out is upright RGB of 8 bits; see `image_source` for what every source promises.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fairtune_hf.data.deep import deep_values
from fairtune_hf.data.dicom import decode_dicom, is_dicom
from fairtune_hf.data.image_source import (
    DECODER,
    ImageError,
    Pixels,
    file_stamp,
    scale_to_uint8,
    square,
)
from fairtune_hf.data.tiff import tiff_values, unreadable
from fairtune_hf.data.volumes import is_volume, middle_slice

MAX_PIXELS = 178_956_970
"""Twice Pillow's own limit for a warning: a larger picture is refused as a decompression bomb."""

ORIENTATION = 0x0112
"""The EXIF tag that says which side of the camera was up."""
_TURN = Image.Transpose
TURNS = {
    2: _TURN.FLIP_LEFT_RIGHT,
    3: _TURN.ROTATE_180,
    4: _TURN.FLIP_TOP_BOTTOM,
    5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_270,
    7: _TURN.TRANSVERSE,
    8: _TURN.ROTATE_90,
}
"""What brings a picture of each orientation upright."""


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
        return f"{self.name} {told.st_size} {told.st_mtime_ns} {self.depth16} {DECODER}"

    def stamp(self) -> str:
        """Return the file's own stamp."""
        return file_stamp(self.path)

    def read(self, side: int) -> tuple[Pixels, bytes]:
        """Decode the file; see `ImageSource.read`."""
        image, raw = self.decode()
        return square(image, side), hashlib.sha256(raw).digest()

    def decode(self) -> tuple[Image.Image, bytes]:
        """Decode the whole picture to upright RGB, and return it with the file's bytes.

        Raises:
            ImageError: if there is no usable picture.
        """
        raw = self.raw()
        return decode_bytes(raw, self.depth16), raw

    def raw(self) -> bytes:
        """Return the file's bytes.

        Raises:
            ImageError: if there are none.
        """
        try:
            path = Path(self.path)
            if not stat.S_ISREG(path.stat().st_mode):
                raise ImageError("is not a file")
            raw = path.read_bytes()
        except OSError as error:
            raise ImageError(f"cannot be opened ({error.strerror})") from error
        if not raw:
            raise ImageError("is empty (0 bytes)")
        return raw


def decode_bytes(raw: bytes, depth16: str = "minmax") -> Image.Image:
    """Decode the bytes of a picture of any kind: DICOM, a slice of a volume, or what Pillow reads.

    See `decode_dicom`, `middle_slice` and `decode_picture`.
    """
    if is_dicom(raw):
        return decode_dicom(raw)
    return middle_slice(raw) if is_volume(raw) else decode_picture(raw, depth16)


def decode_picture(raw: bytes, depth16: str = "minmax") -> Image.Image:
    """Decode the bytes of a picture file to an upright RGB image.

    More than 8 bits are scaled, all channels alike: from the picture's own range, or under
    `depth16="full"` from 0..65535. An alpha channel is left off.

    Raises:
        ImageError: if Pillow cannot decode it, it is huge, or it has several frames.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(raw))
        _check_header(image)
        values = (tiff_values if image.format == "TIFF" else deep_values)(raw, image)
        # After the values: a TIFF is turned, and its tag taken off, as it is loaded.
        image.load()
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
        rgb = to_rgb(image) if values is None else scaled_rgb(values, depth16)
    except UnidentifiedImageError as error:
        raise ImageError(_unknown(raw)) from error
    except ImageError:
        raise
    except Exception as error:
        # Pillow's decoders raise any kind on damaged data (struct.error, zlib.error, KeyError).
        # Each becomes a reason beside the file's name; the caller stops or counts.
        raise ImageError(f"cannot be decoded ({str(error) or type(error).__name__})") from error
    return rgb if turn is None else rgb.transpose(turn)


def _unknown(raw: bytes) -> str:
    if raw[:4] in (b"II*\0", b"MM\0*"):
        return unreadable(raw)
    return "is not a picture that Pillow knows, nor DICOM, NIfTI or MGH"


def _check_header(image: Image.Image) -> None:
    check_pixels(*image.size)
    frames = getattr(image, "n_frames", 1)
    # What else a multi-picture JPEG holds is a preview, a depth map or another eye's view.
    if frames > 1 and image.format != "MPO":
        raise ImageError(f"holds {frames} frames where one picture was expected")


def check_pixels(width: int, height: int) -> None:
    """Raise ImageError for more pixels than are decoded."""
    if width * height > MAX_PIXELS:
        raise ImageError(f"has {width} x {height} pixels, more than {MAX_PIXELS} in all")


def scaled_rgb(values: npt.NDArray[Any], depth16: str) -> Image.Image:
    """Bring numbers of more than 8 bits, (height, width) or (..., 3), to RGB, all channels alike; see `decode_picture`."""
    numbers = values.astype(np.float64)
    bounds = (0.0, 65535.0) if depth16 == "full" else None
    if values.dtype == np.int8:
        bounds = (-128.0, 127.0)
    return Image.fromarray(scale_to_uint8(numbers, bounds)).convert("RGB")


def to_rgb(image: Image.Image) -> Image.Image:
    """Bring any mode of 8 bits to RGB; an alpha channel is left off."""
    if image.mode == "RGB":
        return image
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")
