"""A store of prepared pictures that is opened and compared with its checksums; `store` builds it.

A store holds `images.npy` (n, side, side, 3) uint8, `digests.npy` (sha256 of each picture's bytes),
`pixels.npy` (digest of each row of images.npy), `store.json` with checksums of the last two, and
`verified.json` (see `pixels`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fairtune_hf.data.decode import DIGEST_BYTES
from fairtune_hf.data.pixels import (
    DIGEST_SIZE,
    Digests,
    digest_bytes,
    digest_file,
    equal_rows,
    is_vouched_for,
    vouch_for,
)

STORE_VERSION = 2  # greater with every change of what pixels are made of a file
IMAGES, DIGESTS, PIXELS, RECORD = "images.npy", "digests.npy", "pixels.npy", "store.json"


class DamagedStoreError(ValueError):
    """A store whose files no longer hold what was written; the message says which, and how."""


@dataclass(frozen=True)
class PictureStore:
    """Prepared pictures that were opened; pixels are read from disk when touched."""

    path: Path = field(metadata={"help": "the store's folder"})
    key: str = field(metadata={"help": "hash of the sources, the side and the version"})
    shape: tuple[int, int, int, int] = field(metadata={"help": "(n, side, side, 3)"})
    offset: int = field(metadata={"help": "bytes before the first pixel in images.npy"})
    digests: npt.NDArray[np.uint8] = field(repr=False, metadata={"help": "(n, 32) sha256"})
    pixels: Digests = field(repr=False, metadata={"help": "(n, 16) digests of the stored rows"})
    failures: dict[int, str] = field(metadata={"help": "row -> why its picture is unusable"})
    notes: dict[int, str] = field(metadata={"help": "row -> what was noted on its picture"})

    def rows(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the pictures of the rows `index`, and map no other row into memory.

        A run of consecutive rows is a memory map whose changes stay private; others are copied.
        """
        if not len(index):
            return np.zeros((0, *self.shape[1:]), dtype=np.uint8)
        low, high = int(index.min()), int(index.max()) + 1
        mapped = np.memmap(
            self.path / IMAGES,
            dtype=np.uint8,
            # Copy on write: PyTorch wants arrays it may write to; the file is never changed.
            mode="c",
            offset=self.offset + low * row_bytes(self.shape[1]),
            shape=(high - low, *self.shape[1:]),
        )
        consecutive = np.array_equal(index, np.arange(low, high))
        return np.asarray(mapped if consecutive else mapped[index - low])


def row_bytes(side: int) -> int:
    """Return the bytes of one stored picture."""
    return side * side * 3


def open_store(path: Path, key: str | None = None) -> PictureStore | None:
    """Open a complete store; None if there is none, or it has another key.

    Without a `key` a store of an earlier version is opened too.

    Raises:
        DamagedStoreError: if a file is not what was written.
    """
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DamagedStoreError(f"{RECORD} cannot be read ({error})") from error
    version = record.get("version", STORE_VERSION + 1)
    if version > STORE_VERSION or (
        key is not None and (record["key"], version) != (key, STORE_VERSION)
    ):
        return None
    shape, offset = _read_shape(path / IMAGES)
    sums = record.get("checksums", {})
    return PictureStore(
        path=path,
        key=record["key"],
        shape=shape,
        offset=offset,
        digests=_read_digests(path / DIGESTS, shape[0], DIGEST_BYTES, sums.get(DIGESTS)),
        pixels=_read_pixels(path, shape, offset, sums.get(PIXELS)),
        failures=by_row(record["failures"]),
        notes=by_row(record.get("notes", {})),
    )


def _read_shape(images: Path) -> tuple[tuple[int, int, int, int], int]:
    """Return the shape of images.npy and the bytes before its first pixel."""
    try:
        with images.open("rb") as file:
            np.lib.format.read_magic(file)
            read, _, _ = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
        shape = (read[0], read[1], read[2], read[3])
    except (OSError, ValueError, IndexError) as error:
        raise DamagedStoreError(f"{IMAGES} cannot be read ({error})") from error
    expected, found = offset + shape[0] * row_bytes(shape[1]), images.stat().st_size
    if found != expected:
        raise DamagedStoreError(f"{IMAGES} has {found} bytes and had {expected}")
    return shape, offset


def _read_digests(path: Path, rows: int, width: int, checksum: str | None) -> Digests:
    try:
        read: Digests = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DamagedStoreError(f"{path.name} cannot be read ({error})") from error
    if read.shape != (rows, width) or checksum not in (None, digest_bytes(read)):
        raise DamagedStoreError(f"{path.name} is not what was written")
    return read


def _read_pixels(
    path: Path, shape: tuple[int, int, int, int], offset: int, checksum: str | None
) -> Digests:
    """Return the digests of the rows; those of an earlier release's store are made from what it holds."""
    images = path / IMAGES
    if checksum is None:
        return digest_file(images, offset, shape[0], row_bytes(shape[1]))
    told = _read_digests(path / PIXELS, shape[0], DIGEST_SIZE, checksum)
    if not is_vouched_for(images):
        same = equal_rows(told, digest_file(images, offset, shape[0], row_bytes(shape[1])))
        if not same.all():
            raise DamagedStoreError(
                f"{int((~same).sum())} of {len(same)} pictures in {IMAGES} changed"
            )
        vouch_for(images)
    return told


def by_row(told: dict[str, str]) -> dict[int, str]:
    """Return what JSON holds by row, whose names there are text."""
    return {int(row): text for row, text in told.items()}
