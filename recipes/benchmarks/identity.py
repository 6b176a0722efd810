"""What it costs that a run knows its pictures, against loading them from the prepared folder.

    python recipes/benchmarks/identity.py --rows 20000

Writes noise pictures of 224 px as a store of prepared pictures to a temporary folder, and measures:
one pass over every pixel in blocks, as training loads them, with the file in the page cache and
after it was dropped from it; the digests of a run (opening the store, parts, keyed rows); and the
first look after the folder was copied, which reads and compares the whole file once. All of it is
linear in the rows. Asked for: digests <= 5 % of the pass. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fairtune_hf.data.fingerprint import fingerprint, new_key
from fairtune_hf.data.picture_store import IMAGES, PictureStore, open_store
from fairtune_hf.data.pixels import VERIFIED
from fairtune_hf.data.store import build_store

BLOCK, LIMIT = 256, 0.05


@dataclass(frozen=True)
class Noise:
    number: int
    drawn: np.ndarray

    @property
    def name(self) -> str:
        return f"row {self.number}"

    def signature(self) -> str:
        return self.name

    def stamp(self) -> str:
        return self.name

    def read(self, side: int) -> tuple[np.ndarray, bytes]:
        return np.roll(self.drawn, self.number, axis=0), self.number.to_bytes(32, "little")


def opened(path: Path) -> PictureStore:
    store = open_store(path)
    if store is None:
        raise OSError(f"no store in {path}")
    return store


def load(store: PictureStore) -> int:
    rows, total = store.shape[0], 0
    images = store.rows(np.arange(rows))
    for first in range(0, rows, BLOCK):
        total += int(np.array(images[first : first + BLOCK])[:, 0, 0, 0].sum())
    return total


def drop_from_cache(file: Path) -> None:
    with file.open("rb") as opened_file:
        os.fsync(opened_file.fileno())
        os.posix_fadvise(opened_file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_table(rows: int) -> pd.DataFrame:
    number = pd.Series(range(rows))
    return pd.DataFrame(
        {
            "row_id": "images/" + number.astype(str).str.zfill(6) + ".jpg",
            "patient_id": "p" + (number // 2).astype(str),
            "label": number % 2,
            "sex": np.where(number // 2 % 2, "F", "M"),
            "age": np.where(number // 4 % 2, "<=60", ">60"),
            "split": "train",
        }
    )


def take_digests(path: Path, frame: pd.DataFrame) -> None:
    """Do what a run does at its start: open the store, the parts' digests, the keyed rows."""
    every = np.arange(len(frame))
    store = opened(path)
    none = np.zeros((0, *store.shape[1:]), dtype=np.uint8)
    found = fingerprint(frame, store, every, every[:0], none)
    _ = found.parts
    found.keyed_rows(new_key())


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(rows: int, side: int, folder: Path) -> dict[str, object]:
    drawn = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    path, frame = folder / "pictures", make_table(rows)
    build_store(path, [Noise(i, drawn) for i in range(rows)], side, progress=False)
    load(opened(path))
    warm = min(seconds(lambda: load(opened(path))) for _ in range(3))
    digests = min(seconds(lambda: take_digests(path, frame)) for _ in range(3))
    drop_from_cache(path / IMAGES)
    cold = seconds(lambda: load(opened(path)))
    (path / VERIFIED).unlink()
    compared = seconds(lambda: take_digests(path, frame))
    return {
        "rows": rows,
        "gigabytes": round(rows * side * side * 3 / 1e9, 2),
        "cores": os.cpu_count(),
        "load_seconds": {"in the page cache": round(warm, 3), "from the disk": round(cold, 3)},
        "digest_seconds": round(digests, 4),
        "share_of_loading": {
            "in the page cache": round(digests / warm, 4),
            "from the disk": round(digests / cold, 4),
        },
        "first_look_after_a_copy_seconds": round(compared, 3),
        "met": digests / warm <= LIMIT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if absent")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(json.dumps(measure(arguments.rows, arguments.side, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
