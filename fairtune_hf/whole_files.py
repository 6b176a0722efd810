"""Files and folders that are whole or not there: written beside their place, flushed, then renamed.

What a killed process leaves has a name that says whose it is, `.NAME.PID.partial`, so that nobody takes
it for a result and the next process can put it away. Imports nothing of the package.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

_PARTIAL = re.compile(r"\.(?P<name>.+?)(\.(?P<pid>\d+))?\.partial")


def write_text(path: Path, text: str) -> Path:
    """Write a text file so that a reader sees the old one or the new one, never a half."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name of this process's own to write under; the file takes its place once it is on the disk.

    Raises:
        IsADirectoryError: A folder is in its place.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "A folder is in the place of a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        flush(partial)
        partial.replace(path)
        flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a new folder to write into; it takes the place of `path` once all in it is on the disk."""
    partial = _partial(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in partial.rglob("*"):
            flush(file)
        if path.exists():
            shutil.rmtree(path)  # killed here there is none, which is seen; never a mixture of two
        partial.rename(path)
        flush(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk: a rename may else get there first."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_left_over(path: Path, names: Collection[str]) -> bool:
    """Whether this is the half of one of these names, written by whatever process."""
    match = _PARTIAL.fullmatch(path.name)
    return match is not None and match["name"] in names


def remove_left_overs(folder: Path, names: Collection[str]) -> None:
    """Delete what processes that are no more left half-written of these names."""
    for left in folder.glob(".*.partial"):
        match = _PARTIAL.fullmatch(left.name)
        if match is None or match["name"] not in names:
            continue
        if match["pid"] is not None and not is_running(int(match["pid"])):
            remove(left)


def remove(path: Path) -> None:
    """Delete a file, a folder or a link, of which what it points to stays; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def is_running(pid: int) -> bool:
    """Whether a process of this host has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True
