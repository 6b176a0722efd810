"""Pictures that are arrays in HDF5, ANALYZE/NIfTI or NPZ files, as `ImageSource`s.

Scanner units are windowed and scaled to 0..255, never cast, so that nothing wraps around. The
libraries (h5py, nibabel) are imported when first needed.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fairtune_hf.data.image_source import (
    DECODER,
    ImageError,
    Pixels,
    file_stamp,
    note,
    noted,
    scale_to_uint8,
    square,
)

_H5_LOCK = threading.Lock()
PERCENTILES = (0.5, 99.5)


def file_signature(path: Path) -> str:
    """Return name, size and time of change of a file, or "NAME missing"."""
    try:
        stat = path.stat()
    except OSError:
        return f"{path.name} missing"
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"


def grey_to_square(values: Pixels, side: int) -> Pixels:
    """Bring a 2-d uint8 array to (side, side, 3)."""
    return square(Image.fromarray(values).convert("RGB"), side)


def plane(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the two-dimensional array in `values`, axes of length 1 taken off.

    Raises:
        ImageError: if it has another number of dimensions, is empty, or has no numbers.
    """
    flat = values.squeeze()
    if flat.ndim != 2 or not flat.size or flat.dtype.kind not in "uif":
        raise ImageError(f"holds an array {values.shape} {values.dtype} where a picture was due")
    return flat


@dataclass(frozen=True)
class H5Source:
    """One dataset of an HDF5 file; what is not uint8 is windowed."""

    path: Path
    key: str
    present: bool
    window: tuple[float, float]

    @property
    def name(self) -> str:
        """File and dataset."""
        return f"{self.path.name}:{self.key}"

    def signature(self) -> str:
        """Return the file's signature, the dataset and the window."""
        if not self.present:
            return f"{self.name} missing"
        return f"{file_signature(self.path)} {self.key} {self.window}"

    def stamp(self) -> str:
        """Return the file's stamp."""
        return file_stamp(self.path)

    def read(self, side: int) -> tuple[Pixels, bytes]:
        """Read the dataset; see `ImageSource.read`."""
        try:
            with _H5_LOCK:
                values = plane(np.asarray(_open_h5(self.path)[self.key]))
        except (OSError, KeyError, TypeError) as error:
            raise ImageError(f"cannot be read ({error})") from error
        digest = hashlib.sha256(np.ascontiguousarray(values).data).digest()
        if values.dtype != np.uint8:
            values = scale_to_uint8(values.astype(np.float64), self.window)
        return grey_to_square(values, side), digest


_OPEN_H5: dict[Path, tuple[str, Any]] = {}
_OPEN_AT_MOST = 4


def _open_h5(path: Path) -> Any:
    """Open a file, or take it from the few that are kept open; one that has been replaced is opened anew."""
    import h5py

    stamp = file_stamp(path)
    held, file = _OPEN_H5.pop(path, ("", None))
    if file is not None and held != stamp:
        file.close()  # else the library gives what it has read of the earlier file
        file = None
    _OPEN_H5[path] = (stamp, file or h5py.File(path, "r"))
    while len(_OPEN_H5) > _OPEN_AT_MOST:
        _OPEN_H5.pop(next(iter(_OPEN_H5)))[1].close()
    return _OPEN_H5[path][1]


def h5_keys(path: Path) -> frozenset[str]:
    """Return the names of the datasets at the top of an HDF5 file.

    Raises:
        ValueError: if it is no HDF5 file, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise missing_library("h5py", path) from error
    try:
        with h5py.File(path, "r") as file:
            return frozenset(file.keys())
    except OSError as error:
        raise ValueError(
            f"{path} was expected to be an HDF5 file and cannot be opened: {error}. "
            "Download it again."
        ) from error


@dataclass(frozen=True)
class SliceSource:
    """One slice of an ANALYZE or NIfTI volume, scaled by the whole volume's range."""

    path: Path
    name: str
    index: int
    axis: int = 1
    scale: str = "percentile"

    def signature(self) -> str:
        """Return the signatures of header and voxels, and which slice."""
        voxels = self.path.with_suffix(".img")
        pair = file_signature(self.path)
        if voxels.exists():
            pair += f" {file_signature(voxels)}"
        end = " missing" if pair.endswith("missing") else ""
        return f"{pair} {self.name} {self.index} {self.axis} {self.scale} {DECODER}{end}"

    def stamp(self) -> str:
        """Return the stamps of header and voxels."""
        return f"{file_stamp(self.path)} {file_stamp(self.path.with_suffix('.img'))}"

    def read(self, side: int) -> tuple[Pixels, bytes]:
        """Cut the slice, the third axis upwards; see `ImageSource.read`."""
        volume, digest, told = _volume(self.path, self.scale, self.stamp())
        for text in told:
            note(text)
        if self.index >= volume.shape[self.axis]:
            raise ImageError(f"has {volume.shape[self.axis]} slices; slice {self.index} was due")
        cut = np.ascontiguousarray(np.rot90(volume.take(self.index, axis=self.axis)))
        # The volume's digest, not the slice's: an empty slice is the same in every volume.
        return grey_to_square(cut, side), hashlib.sha256(
            digest + bytes([self.index % 256])
        ).digest()


@lru_cache(maxsize=6)
def _volume(path: Path, scale: str, stamp: str) -> tuple[Pixels, bytes, tuple[str, ...]]:
    """Load a volume as uint8, scaled by its own percentiles or range; with its digest and notes.

    The stamp is there so that a volume that has been replaced is not taken from memory.
    """
    import nibabel

    try:
        values = np.asarray(nibabel.load(path).dataobj).squeeze()
    except Exception as error:
        # nibabel raises many kinds: ImageFileError, HeaderDataError, EOFError, zlib errors.
        raise ImageError(f"cannot be read as a volume ({error})") from error
    if values.ndim != 3:
        raise ImageError(f"holds {values.ndim} dimensions where a volume was due")
    digest = hashlib.sha256(np.ascontiguousarray(values).data).digest()
    with noted() as told:
        pixels = volume_to_uint8(values, scale)
    return pixels, digest, tuple(told)


def volume_to_uint8(values: npt.NDArray[Any], scale: str = "percentile") -> Pixels:
    """Scale a volume by the percentiles, or the range, of its finite voxels; the others are black.

    Raises:
        ImageError: if it has no finite voxel, or no numbers.
    """
    if values.dtype.kind not in "uif":
        raise ImageError(f"holds voxels of the type {values.dtype} where numbers were due")
    numbers = values if values.dtype.kind == "f" else values.astype(np.float32)
    bounds = None
    finite = numbers[np.isfinite(numbers)]
    if scale == "percentile" and finite.size:
        low, high = np.percentile(finite, PERCENTILES)
        bounds = (float(low), float(high)) if high > low else None
    return scale_to_uint8(numbers, bounds)


def volume_slices(path: Path, axis: int) -> int:
    """Return the number of slices along an axis, from the header alone.

    Raises:
        ValueError: if nibabel is not installed.
    """
    try:
        import nibabel
    except ImportError as error:
        raise missing_library("nibabel", path) from error
    try:
        shape = nibabel.load(path).shape
    except Exception:
        # Named and counted when its slices are read.
        return 0
    return int(shape[axis]) if len(shape) > axis else 0


@dataclass(frozen=True)
class NpzSource:
    """One array of an NPZ file, scaled from fixed bounds."""

    path: Path
    key: str
    bounds: tuple[float, float]

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def signature(self) -> str:
        """Return the file's signature, the array and the bounds."""
        told = file_signature(self.path)
        return told if told.endswith(" missing") else f"{told} {self.key} {self.bounds}"

    def stamp(self) -> str:
        """Return the file's stamp."""
        return file_stamp(self.path)

    def read(self, side: int) -> tuple[Pixels, bytes]:
        """Read the array; see `ImageSource.read`."""
        values = plane(read_npz(self.path, [self.key])[self.key])
        digest = hashlib.sha256(np.ascontiguousarray(values).data).digest()
        return grey_to_square(scale_to_uint8(values.astype(np.float64), self.bounds), side), digest


def read_npz(path: Path, keys: list[str]) -> dict[str, npt.NDArray[Any]]:
    """Read some arrays of an NPZ file; pickled objects are refused.

    Raises:
        ImageError: if the file or an array cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in keys}
    except KeyError as error:
        raise ImageError(f"has no array {error}") from error
    except Exception as error:
        # zipfile, zlib and numpy raise many kinds for a damaged file.
        raise ImageError(f"cannot be read as NPZ ({error})") from error


def missing_library(name: str, path: Path) -> ValueError:
    """Build the error for an optional library that a file needs."""
    return ValueError(
        f"{path.name} needs the package {name}, which is not installed. "
        "Run pip install 'fairtune_hf[all]'."
    )
