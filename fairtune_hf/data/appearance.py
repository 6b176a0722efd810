"""What pictures are like in plain numbers, so that a picture unlike the training pictures is noticed.

Sizes are those of the files, before anything is resized; colour, brightness and contrast those of the
stored squares, which the model sees. A warning says what was measured, not that a score is wrong.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fairtune_hf.data.dicom import MAGIC, PREAMBLE, is_dicom
from fairtune_hf.data.folder_hf import HfSource
from fairtune_hf.data.image_source import ImageError
from fairtune_hf.data.images import ORIENTATION, FileSource
from fairtune_hf.data.table import ImageTable

FILES_LOOKED_AT = 256
ROWS_MEASURED = 2048
_SIZE_SLACK, _ASPECT_SLACK, _RANGE_SLACK = 1.25, 1.1, 0.1
_TURNED = 5  # from this EXIF orientation on, width and height change places
_FEW = 0.001
_AT_ONCE = 64
_HEAD = 1 << 16  # of DICOM without a preamble, more than its first elements is looked at

Range = list[float]


def measure_originals(sources: Sequence[Any]) -> dict[str, Any] | None:
    """Return the ranges of size among some of the files that rows were read from; None where there are no files.

    Args:
        sources: `ImageSource`s; what is no file of a picture is passed over.
    """
    step = max(1, len(sources) // FILES_LOOKED_AT)
    sizes = [size for source in sources[::step] if (size := _size_of(source)) is not None]
    if not sizes:
        return None
    sides = np.sort(np.asarray(sizes, dtype=np.float64), axis=1)
    return {
        "files_looked_at": len(sizes),
        "short_side": _range(sides[:, 0]),
        "aspect": _range(sides[:, 1] / sides[:, 0]),
    }


def _size_of(source: Any) -> tuple[int, int] | None:
    """Return the size of a source's picture, of a file from its header alone."""
    try:
        if isinstance(source, FileSource):
            with Path(source.path).open("rb") as file:
                return picture_size(file)
        if isinstance(source, HfSource):
            return picture_size(io.BytesIO(source.raw()))
    except (ImageError, OSError):  # it has been refused or counted already
        return None
    return None


def picture_size(file: IO[bytes]) -> tuple[int, int] | None:
    """Return width and height of a picture as it is seen upright, from its header; None of a volume.

    Args:
        file: A file that decodes.
    """
    start = file.read(_HEAD)
    file.seek(0)
    if is_dicom(start):
        import pydicom

        force = start[PREAMBLE : PREAMBLE + 4] != MAGIC
        told = pydicom.dcmread(file, stop_before_pixels=True, force=force)
        return int(told.Columns), int(told.Rows)
    try:
        with Image.open(file) as image:
            width, height = image.size
            turned = image.getexif().get(ORIENTATION, 1) >= _TURNED
    except (OSError, ValueError, TypeError, SyntaxError):
        return None
    return (height, width) if turned else (width, height)


def measure_pixels(images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """Return mean and standard deviation (0 to 255) of stored pictures, (n,) each, and whether each is grey.

    Args:
        images: (n, side, side, 3) uint8.
    """
    values = images.reshape(len(images), -1).astype(np.float32)
    brightness = values.mean(axis=1)
    # Around the mean, or what single precision keeps of the squares of a flat bright picture is noise.
    values -= brightness[:, None]
    contrast = np.sqrt(np.einsum("ij,ij->i", values, values) / values.shape[1])
    grey = [bool((image[..., :2] == image[..., 1:]).all()) for image in images]
    return {"brightness": brightness, "contrast": contrast, "grey": np.asarray(grey)}


def describe_pictures(table: ImageTable) -> dict[str, Any]:
    """Describe the pictures of a table in ranges; of many rows an even share is looked at."""
    step = max(1, len(table) // ROWS_MEASURED)
    rows = np.arange(0, len(table), step)
    found = [
        measure_pixels(np.asarray(table.images[rows[start : start + _AT_ONCE]]))
        for start in range(0, len(rows), _AT_ONCE)
    ]
    joined = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    return {
        **(table.originals or {}),
        "pictures_measured": len(rows),
        "brightness": _range(joined["brightness"]),
        "contrast": _range(joined["contrast"]),
        "grey_share": round(float(joined["grey"].mean()), 4),
    }


def unlike(
    described: Mapping[str, Any] | None,
    sizes: Sequence[tuple[int, int]],
    images: npt.NDArray[np.uint8],
) -> list[tuple[str, ...]]:
    """Say for each picture in what it is unlike those described.

    Args:
        described: What `describe_pictures` returned, or None, of which nothing is said.
        sizes: Width and height of each picture, upright.
        images: Its stored square, (n, side, side, 3) uint8.
    """
    if not described:
        return [()] * len(images)
    measured = measure_pixels(images)
    return [
        _unlike(described, size, {name: values[row] for name, values in measured.items()})
        for row, size in enumerate(sizes)
    ]


def _unlike(
    described: Mapping[str, Any], size: tuple[int, int], measured: Mapping[str, Any]
) -> tuple[str, ...]:
    short, long = sorted(size)
    return (
        *_off(described, "short_side", short, "the shorter side in pixels", _SIZE_SLACK),
        *_off(described, "aspect", long / short, "longer by shorter side", _ASPECT_SLACK),
        *_of_colour(described, bool(measured["grey"])),
        *_off(described, "brightness", measured["brightness"], "mean brightness (0 to 255)"),
        *_off(described, "contrast", measured["contrast"], "spread of brightness (0 to 255)"),
    )


def _off(
    described: Mapping[str, Any], name: str, value: float, words: str, factor: float | None = None
) -> list[str]:
    """Say that a value is outside a range and what is allowed around it: a factor, or a share of its width."""
    if name not in described:
        return []
    low, high = described[name]
    around = 1 + _RANGE_SLACK * (high - low)
    least, most = (low - around, high + around) if factor is None else (low / factor, high * factor)
    if least <= value <= most:
        return []
    return [f"{words} is {value:.4g}, in training {low:.4g} to {high:.4g}"]


def _of_colour(described: Mapping[str, Any], grey: bool) -> list[str]:
    share = described.get("grey_share")
    if share is not None and grey and share < _FEW:
        return ["grey, in training in colour"]
    if share is not None and not grey and share > 1 - _FEW:
        return ["in colour, in training grey"]
    return []


def _range(values: npt.NDArray[Any]) -> Range:
    return [round(float(values.min()), 3), round(float(values.max()), 3)]
