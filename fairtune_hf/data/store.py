"""The prepared pictures on disk: one folder, built once, complete or not there.

Its files are those of `picture_store`. Its key is a hash of what the pixels follow from: the sources' signatures and
stamps, the side, the version of this code. It is built beside its place, in `NAME.partial`, chunk by chunk,
each chunk recorded with a checksum; a later run takes over the chunks that check out, and the
folder is renamed to its place when all is written. So the bytes do not depend on interruptions.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from fairtune_hf.data.decode import DIGEST_BYTES, Chunk, decode_rows, failure_message, row_chunks
from fairtune_hf.data.image_source import ImageSource
from fairtune_hf.data.picture_store import (
    DIGESTS,
    IMAGES,
    PIXELS,
    RECORD,
    STORE_VERSION,
    DamagedStoreError,
    PictureStore,
    by_row,
    open_store,
    row_bytes,
)
from fairtune_hf.data.pixels import DIGEST_SIZE, digest_bytes, digest_pictures, vouch_for

PROGRESS, LOCK = "progress.jsonl", "lock"


def store_key(signatures: Iterable[str], stamps: Iterable[str], side: int) -> str:
    """Return the hash that names a store, from the signatures and the stamps of its sources."""
    digest = hashlib.sha256(f"fairtune_hf store {STORE_VERSION} side {side}\n".encode())
    for signature, stamp in zip(signatures, stamps, strict=True):
        digest.update(f"{signature}\n{stamp}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


def default_cache() -> Path:
    """Return the folder for prepared pictures: FAIRTUNE_CACHE, else the user's cache folder."""
    given = os.environ.get("FAIRTUNE_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fairtune_hf"


def build_store(
    path: Path,
    sources: Sequence[ImageSource],
    side: int,
    *,
    key: str | None = None,
    skip_corrupt: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> PictureStore:
    """Open the store at `path`, or build it: resumed where an earlier run was interrupted.

    A damaged one is built again, which is said on stderr.

    Raises:
        ValueError: if pictures cannot be decoded and `skip_corrupt` is not set; nothing is left.
        OSError: if the disk has too little room.
    """
    key = key or store_key((s.signature() for s in sources), (s.stamp() for s in sources), side)
    with _locked(path.with_name(path.name + ".partial")) as partial:
        found = _open_or_tell(path, key)
        if found is None:
            build = _Build(partial, key, len(sources), side)
            try:
                build.run(sources, workers=workers, progress=progress)
                if build.failures and not skip_corrupt:
                    raise ValueError(failure_message(build.failures, sources))
            except ValueError:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            build.finish(path)
        else:
            shutil.rmtree(partial, ignore_errors=True)
    store = found or open_store(path, key)
    if store is None:
        raise OSError(f"the prepared pictures in {path} cannot be read back. Check the disk.")
    return store


def _open_or_tell(path: Path, key: str) -> PictureStore | None:
    try:
        return open_store(path, key)
    except DamagedStoreError as damage:
        tqdm.write(
            f"prepared pictures in {path} are damaged ({damage}): made again", file=sys.stderr
        )
        return None


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[Path]:
    """Hold the one lock on `partial`; another process that prepares the same waits here."""
    lock = FileLock(partial / LOCK)
    while not lock.is_locked:
        partial.mkdir(parents=True, exist_ok=True)
        # Not there: the other process has finished and moved the folder while this one waited.
        with contextlib.suppress(FileNotFoundError):
            lock.acquire()
    try:
        yield partial
    finally:
        lock.release()


class _Build:
    """One build of a store in its partial folder."""

    def __init__(self, partial: Path, key: str, rows: int, side: int) -> None:
        self.partial, self.key, self.side = partial, key, side
        self.shape = (rows, side, side, 3)
        self.digests = np.zeros((rows, DIGEST_BYTES), dtype=np.uint8)
        self.pixels = np.zeros((rows, DIGEST_SIZE), dtype=np.uint8)
        self.failures: dict[int, str] = {}
        self.notes: dict[int, str] = {}
        self.header = _npy_header(self.shape)

    def run(self, sources: Sequence[ImageSource], *, workers: int | None, progress: bool) -> None:
        """Decode the chunks that an earlier run has not left complete."""
        done = self._take_over()
        todo = [c for c in row_chunks(len(sources)) if c.start not in done]
        self._check_room()
        with (
            (self.partial / IMAGES).open("r+b") as images,
            (self.partial / PROGRESS).open("a", encoding="utf-8") as log,
        ):

            def keep(chunk: Chunk) -> None:
                images.seek(self._place(chunk.rows))
                images.write(chunk.images.data)
                images.flush()
                log.write(json.dumps(self._note(chunk)) + "\n")
                log.flush()

            decode_rows(sources, self.side, keep, chunks=todo, workers=workers, progress=progress)

    def finish(self, path: Path) -> None:
        """Write the records and move the folder to its place."""
        np.save(self.partial / DIGESTS, self.digests)
        np.save(self.partial / PIXELS, self.pixels)
        record = {
            "version": STORE_VERSION,
            "key": self.key,
            "rows": self.shape[0],
            "side": self.side,
            "checksums": {
                DIGESTS: digest_bytes(self.digests),
                PIXELS: digest_bytes(self.pixels),
            },
            "failures": {str(k): v for k, v in sorted(self.failures.items())},
            "notes": {str(k): v for k, v in sorted(self.notes.items())},
        }
        text = json.dumps(record, indent=1, sort_keys=True) + "\n"
        (self.partial / RECORD).write_text(text, encoding="utf-8")
        for name in (IMAGES, DIGESTS, PIXELS, RECORD):
            with (self.partial / name).open("rb") as file:
                os.fsync(file.fileno())
        vouch_for(self.partial / IMAGES)
        (self.partial / PROGRESS).unlink()
        (self.partial / LOCK).unlink()
        if path.exists():
            shutil.rmtree(path)
        self.partial.rename(path)

    def _place(self, rows: range) -> int:
        return len(self.header) + rows.start * row_bytes(self.side)

    def _note(self, chunk: Chunk) -> dict[str, Any]:
        self._learn(chunk)
        return {
            "start": chunk.rows.start,
            "crc": zlib.crc32(chunk.images.data),
            "digests": chunk.digests.tobytes().hex(),
            "failures": chunk.failures,
            "notes": chunk.notes,
            "key": self.key,
        }

    def _learn(self, chunk: Chunk) -> None:
        place = slice(chunk.rows.start, chunk.rows.stop)
        self.digests[place] = chunk.digests
        self.pixels[place] = digest_pictures(chunk.images)
        self.failures |= chunk.failures
        self.notes |= chunk.notes

    def _take_over(self) -> set[int]:
        """Check the chunks an interrupted run recorded; start afresh if it made something else."""
        size = len(self.header) + self.shape[0] * row_bytes(self.side)
        images, log = self.partial / IMAGES, self.partial / PROGRESS
        notes = list(_complete_lines(log))
        same = images.is_file() and images.stat().st_size == size
        if not same or any(n.get("key") != self.key for n in notes):
            log.unlink(missing_ok=True)
            with images.open("wb") as file:
                file.write(self.header)
                file.truncate(size)
            return set()
        by_start = {c.start: c for c in row_chunks(self.shape[0])}
        done = set()
        kept = []
        with images.open("r+b") as file:
            file.write(self.header)
            for note in notes:
                rows = by_start.get(note["start"])
                if rows is None or not self._verify(file, rows, note):
                    continue
                done.add(rows.start)
                kept.append(note)
        log.write_text("".join(json.dumps(n) + "\n" for n in kept), encoding="utf-8")
        return done

    def _verify(self, file: Any, rows: range, note: dict[str, Any]) -> bool:
        file.seek(self._place(rows))
        data = file.read(len(rows) * row_bytes(self.side))
        digests = np.frombuffer(bytes.fromhex(note["digests"]), dtype=np.uint8)
        if zlib.crc32(data) != note["crc"] or digests.size != len(rows) * DIGEST_BYTES:
            return False
        images = np.frombuffer(data, dtype=np.uint8).reshape(len(rows), -1)
        failures, notes = by_row(note["failures"]), by_row(note.get("notes", {}))
        self._learn(Chunk(rows, images, digests.reshape(-1, DIGEST_BYTES), failures, notes))
        return True

    def _check_room(self) -> None:
        needed = self.shape[0] * row_bytes(self.side)
        there = (self.partial / IMAGES).stat().st_blocks * 512
        free = shutil.disk_usage(self.partial).free
        if needed - there > free:
            raise OSError(
                errno.ENOSPC,
                f"{_megabytes(needed - there)} were expected to be free for the prepared "
                f"pictures in {self.partial.parent} and {_megabytes(free)} are. Make room, choose "
                "a smaller image size, or set FAIRTUNE_CACHE to a folder on another disk.",
            )


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.{0 if size_bytes >= 1e7 else 3}f} MB"


def _complete_lines(log: Path) -> Iterator[dict[str, Any]]:
    """Read the notes of finished chunks; the last line may have been cut off."""
    if not log.is_file():
        return
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()
