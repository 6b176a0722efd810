"""Turns between processes at one thing in a folder, by a lock of the file system.

Such a lock holds between containers and, where a network file system has locks, between machines, and
falls open when its holder dies. (`filelock`, which the prepared pictures are built under, cannot be shared by
those who join a run, and changes to a kind of lock that outlives its holder where a file system has none.)
Imports neither torch nor another part of the package.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType

# What a file system answers that has no locks, as some network file systems and mounted buckets.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class FileTurn:
    """A turn by `flock` on a file of its own, which stays; a context manager that holds it.

    Releasing a turn that is not held does nothing.

    Raises:
        PermissionError: The lock's file cannot be written.
        ValueError: The file system has no locks.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._handle = path, -1

    def acquire(self) -> None:
        """Wait for the turn."""
        self._take(fcntl.LOCK_EX)

    def acquire_now(self) -> bool:
        """Take the turn if nobody has it; return whether it is held."""
        try:
            self._take(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share(self) -> None:
        """Let others share what is held, or wait for a share; nobody can then have it alone."""
        self._take(fcntl.LOCK_SH)

    def release(self) -> None:
        """End the turn."""
        if self._handle >= 0:
            os.close(self._handle)  # the lock goes with it
            self._handle = -1

    def __enter__(self) -> FileTurn:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _take(self, operation: int) -> None:
        if self._handle >= 0:
            if operation == fcntl.LOCK_SH:
                fcntl.flock(self._handle, operation)
            return
        while self._handle < 0:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._lock(handle, operation)
                if self._is_at_its_place(handle):
                    self._handle = handle
            finally:  # also at Ctrl-C while waiting, in a notebook that lives on
                if self._handle < 0:
                    os.close(handle)

    def _lock(self, handle: int, operation: int) -> None:
        try:
            fcntl.flock(handle, operation)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise ValueError(
                f"--out: expected a file system with locks, by which processes keep off each other's files, and that of "
                f"{self._path.parent} has none ({error.strerror}). Choose an --out on a local disk."
            ) from error

    def _is_at_its_place(self, handle: int) -> bool:
        """Whether the file was not deleted, with its folder, while this process waited for it."""
        try:
            return os.path.samestat(os.fstat(handle), self._path.stat())
        except FileNotFoundError:
            return False
