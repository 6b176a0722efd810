"""Digests of prepared pictures, and whether a file of them still holds what was written.

A picture's digest is the 128-bit xxh3 of its pixels as prepared, so equal pictures have equal
digests wherever they come from. A file of pictures is read whole and compared with its digests
when it is first met in a place; from then on its size, inode and times of change vouch for it, as
they do in a version control system's index. Every write changes them, and so does a copy.
"""

from __future__ import annotations

import contextlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from fairtune_hf.whole_files import write_text

DIGEST_SIZE = 16
VERIFIED = "verified.json"
_BLOCK = 8 << 20  # bytes read at once: small enough to be hashed while it is in the cache

Digests = npt.NDArray[np.uint8]


def digest_pictures(images: npt.NDArray[np.uint8]) -> Digests:
    """Return the (n, 16) digests of (n, side, side, 3) uint8 pictures."""
    joined = b"".join(xxhash.xxh3_128_digest(np.ascontiguousarray(image).data) for image in images)
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(images), DIGEST_SIZE)


def digest_file(path: Path, offset: int, rows: int, row_bytes: int) -> Digests:
    """Return the digests of the rows of a file of pictures, on all cores.

    Args:
        path: The file.
        offset: Bytes before the first row.
        rows: How many rows there are.
        row_bytes: Bytes of one row.
    """
    step = max(1, _BLOCK // row_bytes)

    def block(start: int) -> Digests:
        count = min(step, rows - start)
        data = np.fromfile(path, np.uint8, count * row_bytes, offset=offset + start * row_bytes)
        return digest_pictures(data.reshape(count, row_bytes))

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        parts = list(pool.map(block, range(0, rows, step)))
    return np.concatenate([np.zeros((0, DIGEST_SIZE), np.uint8), *parts])


def digest_bytes(values: npt.NDArray[Any]) -> str:
    """Return one digest of a whole array, as hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(values).data)


def equal_rows(one: Digests, other: Digests) -> npt.NDArray[np.bool_]:
    """Say for each row whether two lists of digests agree."""
    return np.asarray((one == other).all(axis=1))


def is_vouched_for(file: Path) -> bool:
    """Whether a file has the size, inode and times that it had when it was last compared."""
    try:
        held = json.loads((file.parent / VERIFIED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(held == _signs(file))


def vouch_for(file: Path) -> None:
    """Keep a file's size, inode and times beside it; where nothing can be written it is compared each time."""
    with contextlib.suppress(OSError):
        write_text(file.parent / VERIFIED, json.dumps(_signs(file)) + "\n")


def _signs(file: Path) -> dict[str, int]:
    found = file.stat()
    return {
        "size": found.st_size,
        "inode": found.st_ino,
        "modified_ns": found.st_mtime_ns,
        "changed_ns": found.st_ctime_ns,
    }
