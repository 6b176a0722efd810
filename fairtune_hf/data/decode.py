"""Decode many pictures on all cores, with a bar when it takes long, every failure kept.

Threads, not processes: Pillow and hashlib release the interpreter's lock where the time goes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fairtune_hf.data.images import ImageError, ImageSource
from fairtune_hf.data.naming import shortened

CHUNK = 64
BAR_AFTER_SECONDS = 2.0

Digests = npt.NDArray[np.uint8]


def decode_rows(
    sources: Sequence[ImageSource],
    rows: range,
    images: npt.NDArray[np.uint8],
    digests: Digests,
) -> dict[int, str]:
    """Decode `rows` into `images` and `digests` in place; return row -> reason for each failure."""
    failures: dict[int, str] = {}
    side = images.shape[1]
    for row in rows:
        try:
            pixels, digest = sources[row].read(side)
        except ImageError as error:
            failures[row] = str(error)
            continue
        images[row] = pixels
        digests[row] = np.frombuffer(digest, dtype=np.uint8)
    return failures


def decode_all(
    sources: Sequence[ImageSource],
    images: npt.NDArray[np.uint8],
    digests: Digests,
    *,
    chunks: Sequence[range] | None = None,
    workers: int | None = None,
    progress: bool = True,
    on_chunk: Callable[[range, dict[int, str]], None] | None = None,
) -> dict[int, str]:
    """Decode every row of `chunks` (all rows by default) on `workers` threads.

    `on_chunk` is called in the calling thread after each chunk. Rows that fail are left as they
    are in `images` and returned with the reason.
    """
    todo = list(chunks if chunks is not None else row_chunks(len(sources)))
    failures: dict[int, str] = {}
    total = sum(len(c) for c in todo)
    bar = tqdm(
        total=total, unit="img", desc="preparing", delay=BAR_AFTER_SECONDS, disable=not progress
    )
    with ThreadPoolExecutor(max_workers=workers or os.cpu_count() or 1) as pool, bar:
        waiting: dict[Future[dict[int, str]], range] = {}
        queue = iter(todo)
        try:
            while True:
                while len(waiting) < 4 * (workers or os.cpu_count() or 1):
                    chunk = next(queue, None)
                    if chunk is None:
                        break
                    job = pool.submit(decode_rows, sources, chunk, images, digests)
                    waiting[job] = chunk
                if not waiting:
                    return failures
                for job in wait(waiting, return_when=FIRST_COMPLETED).done:
                    chunk = waiting.pop(job)
                    found = job.result()
                    failures |= found
                    bar.update(len(chunk))
                    if on_chunk:
                        on_chunk(chunk, found)
        finally:
            for job in waiting:
                job.cancel()


def row_chunks(rows: int, size: int = CHUNK) -> list[range]:
    """Cut `rows` into consecutive ranges of at most `size`."""
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def failure_message(failures: dict[int, str], sources: Sequence[ImageSource]) -> str:
    """Name the first pictures that cannot be used and count all."""
    listed = [f"{sources[row].name} {reason}" for row, reason in sorted(failures.items())]
    return (
        f"every picture was expected to be readable and {len(failures)} of {len(sources)} are not: "
        f"{shortened(listed)}. Replace or remove them, or go on without them with --skip-corrupt."
    )
