"""The prepared pictures on disk: one folder, built once, complete or not there.

A store holds `images.npy` (n, side, side, 3) uint8, `digests.npy` (sha256 of each picture's bytes),
`pixels.npy` (digest of each row of images.npy), `store.json` with checksums of the last two, and
`verified.json` (see `pixels`). Its key is a hash of what the pixels follow from: the sources' signatures, the
side, the version of this code. It is built beside its place, in `NAME.partial`, chunk by chunk,
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fairtune_hf.data.decode import DIGEST_BYTES, Chunk, decode_rows, failure_message, row_chunks
from fairtune_hf.data.images import ImageSource
from fairtune_hf.data.pixels import (
    DIGEST_SIZE,
    Digests,
    digest_bytes,
    digest_file,
    digest_pictures,
    equal_rows,
    is_vouched_for,
    vouch_for,
)

try:
    import fcntl
except ImportError:  # Windows: two processes may then prepare the same set at once.
    fcntl = None  # type: ignore[assignment]

STORE_VERSION = 1
IMAGES, DIGESTS, PIXELS, RECORD = "images.npy", "digests.npy", "pixels.npy", "store.json"
PROGRESS, LOCK = "progress.jsonl", "lock"


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


def store_key(signatures: Iterable[str], side: int) -> str:
    """Return the hash that names a store, from the signatures of its sources."""
    digest = hashlib.sha256(f"fairtune_hf store {STORE_VERSION} side {side}\n".encode())
    for signature in signatures:
        digest.update(signature.encode() + b"\n")
    return digest.hexdigest()


def default_cache() -> Path:
    """Return the folder for prepared pictures: FAIRTUNE_CACHE, else the user's cache folder."""
    given = os.environ.get("FAIRTUNE_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fairtune_hf"


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
        failures=_by_row(record["failures"]),
        notes=_by_row(record.get("notes", {})),
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
    key = key or store_key((s.signature() for s in sources), side)
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
            if not (path / PIXELS).is_file():
                _add_checksums(found)
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


def _add_checksums(store: PictureStore) -> None:
    """Add to a store of an earlier release what a later look at it compares."""
    with contextlib.suppress(OSError):  # what cannot be written to is read as it is
        record = json.loads((store.path / RECORD).read_text(encoding="utf-8"))
        np.save(store.path / PIXELS, store.pixels)
        vouch_for(store.path / IMAGES)
        record["checksums"] = _checksums(store.digests, store.pixels)
        draft = store.path / f".{RECORD}.{os.getpid()}.partial"
        draft.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        draft.replace(store.path / RECORD)


def _checksums(digests: Digests, pixels: Digests) -> dict[str, str]:
    return {DIGESTS: digest_bytes(digests), PIXELS: digest_bytes(pixels)}


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[Path]:
    """Hold the one lock on `partial`; another process that prepares the same waits here."""
    while True:
        partial.mkdir(parents=True, exist_ok=True)
        with (partial / LOCK).open("a") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            # The other process may have finished and moved the folder while this one waited.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(file.fileno()).st_ino == (partial / LOCK).stat().st_ino:
                    yield partial
                    return


def _by_row(told: dict[str, str]) -> dict[int, str]:
    return {int(row): text for row, text in told.items()}


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
            "checksums": _checksums(self.digests, self.pixels),
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
        failures, notes = _by_row(note["failures"]), _by_row(note.get("notes", {}))
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
