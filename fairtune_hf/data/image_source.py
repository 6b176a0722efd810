"""What every kind of picture file becomes: a square uint8 array, one `ImageSource` per row.

A source knows its name for messages, a signature and a stamp for the cache's key, and how to give
its pixels.
Values are scaled or windowed to 0..255, never wrapped.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


DECODER = "decoder 2"
"""Part of each signature: pictures prepared by another way of decoding are not taken over."""


class ImageError(Exception):
    """A picture that cannot be used; the message says why, without its path."""


_NOTES: ContextVar[list[str] | None] = ContextVar("notes on the picture being read", default=None)


def note(text: str) -> None:
    """Say something about the picture being read that does not make it unusable."""
    told = _NOTES.get()
    if told is None:
        warnings.warn(text, stacklevel=3)
    else:
        told.append(text)


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collect what `note` says within the block, on this thread."""
    told: list[str] = []
    before = _NOTES.set(told)
    try:
        yield told
    finally:
        _NOTES.reset(before)


class ImageSource(Protocol):
    """Where one row's picture comes from."""

    @property
    def name(self) -> str:
        """The name a message calls the picture by."""

    def signature(self) -> str:
        """Return what changes when the picture changes and stays when its folder moves (name, size, time)."""

    def stamp(self) -> str:
        """Return what tells the picture's file from every other on this machine; see `file_stamp`."""

    def read(self, side: int) -> tuple[Pixels, bytes]:
        """Return (side, side, 3) uint8 pixels and a digest of the picture's bytes.

        Raises:
            ImageError: if there is no usable picture.
        """


def file_stamp(path: str | Path) -> str:
    """Return where a file lies, its inode and when it last changed in any way.

    Two files differ in it even where an archive or a copy gave them one name, size and time. So
    does a file from its own copy: it says which file this is, and nothing of what is in it.
    """
    try:
        told = os.stat(path)  # noqa: PTH116  a Path a picture is slow over many thousands
    except (OSError, ValueError):
        return "missing"
    return f"{os.path.abspath(path)} {told.st_ino} {told.st_ctime_ns}"  # noqa: PTH100


def scale_to_uint8(
    values: npt.NDArray[np.floating], bounds: tuple[float, float] | None = None
) -> Pixels:
    """Map `bounds` (the values' own range if None) to 0..255; what lies outside is clipped.

    Values that are not finite become 0, and are counted in a note.

    Raises:
        ImageError: if there is no finite value.
    """
    finite = np.isfinite(values)
    missing = finite.size - int(np.count_nonzero(finite))
    if missing == finite.size:
        raise ImageError("holds no finite value")
    if missing:
        note(f"{missing} of {finite.size} values are not finite and drawn black")
    if bounds is None:
        known = values[finite]
        bounds = (float(known.min()), float(known.max()))
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
