"""What a full or read-only disk is called, in whatever error it comes, and how much room there is.

A disk can fill in any step, and each library says so in its own words: the operating system by a
number, SQLite, safetensors and PyTorch by a text, and some hide the error behind one of their own.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR)
_WORDS = (
    *("No space left on device", "Disk quota exceeded", "File too large"),
    *("database or disk is full", "disk I/O error", "No usable temporary directory"),
    *(f"os error {number}" for number in _FULL),
    " requested and ",  # NumPy, of elements, where a part of an array could be written
)
_ROOMY = 64e6  # bytes free, from which on a folder is not what is full


def is_full(error: BaseException) -> bool:
    """Tell whether an error, or one that it came from, is that a file could not grow."""
    return any(_says_full(each) for each in _chain(error))


def is_closed(error: BaseException) -> bool:
    """Tell whether an error is that a file may not be written, or that a folder is in its place."""
    return isinstance(error, OSError) and error.errno in _CLOSED


def full_words(error: BaseException, arguments: Sequence[str]) -> str:
    """Say that a disk is full: what could not be written, how much room there is, what to do.

    Args:
        error: One of which `is_full` holds.
        arguments: Words of the command line, which name the folders it writes to.
    """
    found = [each for each in _chain(error) if _says_full(each)]
    for each in found:
        if "MB" in str(getattr(each, "strerror", None)):  # said by ourselves, with what was needed
            return str(getattr(each, "strerror", None))
    named = [str(f) for f in (getattr(each, "filename", None) for each in found) if f][:1]
    said = str(getattr(found[-1], "strerror", None) or found[-1]).strip().splitlines()[0]
    what = f" {named[0]}" if named else " what the step makes"
    rooms = _rooms([*named, *_folders(arguments)])
    if resource is not None:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY:
            rooms.append(f"no file may exceed {megabytes(limit)} here (ulimit -f)")
    return (
        f"the disk is full: expected room to write{what}, and there was none ({said}). {'; '.join(rooms)}. Make room, "
        "or choose folders on another disk (--out, FAIRTUNE_CACHE, TMPDIR), and give the same command again; what was "
        "finished is kept."
    )


def closed_words(error: BaseException) -> str:
    """Say that a file may not be read or written."""
    named = getattr(error, "filename", None)
    if getattr(error, "errno", None) == errno.EISDIR:
        return (
            f"expected {named} to be a file, and it is a folder, which none of the commands make. Move it away, and "
            "give the same command again."
        )
    return (
        f"expected to be allowed to read and write {named or 'the folder'}, and it is not ({getattr(error, 'strerror', error)}). "
        "Give a folder that may be written: another --out, or a copy of the run."
    )


def megabytes(size_bytes: float) -> str:
    """Write a size in MB, small ones with decimals, so that nothing but nothing is 0."""
    size = size_bytes / 1e6
    return (
        f"{size:,.0f} MB" if size >= 10 else f"{size:.1f} MB" if size >= 0.1 else f"{size:.3f} MB"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Give an error and those it came from, the outermost first."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        todo += [each.__context__, each.__cause__, getattr(each, "orig", None)]


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # A message of ours may quote one of theirs: it is then in the chain itself.
    return not isinstance(error, KeyboardInterrupt) and any(w in str(error) for w in _WORDS)


def _folders(arguments: Sequence[str]) -> list[str]:
    """Name the folders that a command writes to: those its flags name, the cache, the temporary one."""
    # A second of imports that `--version` can do without.
    from fairtune_hf.data.store import default_cache

    found = []
    for place, word in enumerate(arguments):
        flag, equals, value = word.partition("=")
        if flag in ("--out", "--run"):
            found.append(value if equals else "".join(arguments[place + 1 : place + 2]))
    # Not by tempfile.gettempdir, which tries to write there.
    return [*found, str(default_cache()), os.environ.get("TMPDIR", "/tmp")]


def _rooms(paths: Iterable[str]) -> list[str]:
    """Say how much is free on the disks of these paths, of each disk once; the roomy ones only if all are."""
    found: dict[int, tuple[int, str]] = {}
    for path in paths:
        place = Path(path).absolute()
        while not place.exists():
            place = place.parent
        usage = shutil.disk_usage(place)
        words = f"{megabytes(usage.free)} of {megabytes(usage.total)} are free in {place}"
        found.setdefault(place.stat().st_dev, (usage.free, words))
    tight = [words for free, words in found.values() if free < _ROOMY]
    return tight or [words for _, words in found.values()]
