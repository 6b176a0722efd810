"""Decode many pictures on all cores, with a bar when it takes long, every failure kept.

Threads, not processes: Pillow and hashlib release the interpreter's lock where the time goes.
Chunks are handed on as they come and not kept, so memory does not grow with the data set.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fairtune_hf.data.image_source import ImageError, ImageSource, noted
from fairtune_hf.naming import shortened

CHUNK_ROWS = 64
DIGEST_BYTES = 32
BAR_AFTER_SECONDS = 2.0
AHEAD = 3


@dataclass
class Chunk:
    """Decoded rows `rows`: pictures, digests of their bytes, reasons for failures, and notes."""

    rows: range
    images: npt.NDArray[np.uint8]
    digests: npt.NDArray[np.uint8]
    failures: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)


def decode_chunk(sources: Sequence[ImageSource], rows: range, side: int) -> Chunk:
    """Decode some rows; a row that fails stays black."""
    chunk = Chunk(
        rows,
        np.zeros((len(rows), side, side, 3), dtype=np.uint8),
        np.zeros((len(rows), DIGEST_BYTES), dtype=np.uint8),
    )
    for i, row in enumerate(rows):
        try:
            with noted() as told:
                chunk.images[i], digest = sources[row].read(side)
        except ImageError as error:
            chunk.failures[row] = str(error)
            continue
        chunk.digests[i] = np.frombuffer(digest, dtype=np.uint8)
        if told:
            chunk.notes[row] = "; ".join(told)
    return chunk


def decode_rows(
    sources: Sequence[ImageSource],
    side: int,
    keep: Callable[[Chunk], None],
    *,
    chunks: Sequence[range] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Decode every row of `chunks` (all rows if None) and hand each chunk to `keep`.

    `keep` runs in the calling thread, in the order in which chunks finish. An error it raises, or
    an interrupt, stops the work.
    """
    todo = list(chunks if chunks is not None else row_chunks(len(sources)))
    threads = workers or os.cpu_count() or 1
    queue = iter(todo)
    waiting: set[Future[Chunk]] = set()
    bar = tqdm(
        total=sum(len(c) for c in todo),
        unit="img",
        desc="preparing",
        delay=BAR_AFTER_SECONDS,
        disable=not progress,
    )
    with ThreadPoolExecutor(max_workers=threads) as pool, bar, warnings.catch_warnings():
        # Set here, once: the filters are shared by all threads. Odd EXIF data is no news.
        warnings.filterwarnings("ignore", module="PIL")
        try:
            while True:
                for rows in queue:
                    waiting.add(pool.submit(decode_chunk, sources, rows, side))
                    if len(waiting) >= AHEAD * threads:
                        break
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for job in done:
                    chunk = job.result()
                    keep(chunk)
                    bar.update(len(chunk.rows))
        finally:
            for job in waiting:
                job.cancel()


def row_chunks(rows: int, size: int = CHUNK_ROWS) -> list[range]:
    """Cut `rows` into consecutive ranges of at most `size`."""
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def failure_message(failures: dict[int, str], sources: Sequence[ImageSource]) -> str:
    """Name the first pictures that cannot be used and count all."""
    listed = [f"{sources[row].name} {reason}" for row, reason in sorted(failures.items())]
    return (
        f"every picture was expected to be readable and {len(failures)} of {len(sources)} are not: "
        f"{shortened(listed)}. Replace or remove them, or go on without them with --skip-corrupt."
    )
