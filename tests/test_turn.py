"""Turns: one at a time, shares, a file that is deleted under a waiting process, a file system without locks."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from fairtune_hf.turn import FileTurn


def test_one_has_it_and_shares_it_and_then_nobody_has_it_alone(tmp_path: Path) -> None:
    one, two, three = (FileTurn(tmp_path / "lock") for _ in range(3))
    assert one.acquire_now()
    assert not two.acquire_now()
    one.share()
    assert not two.acquire_now()
    two.share()
    one.release()
    assert not three.acquire_now()
    two.release()
    with three:
        assert not one.acquire_now()
    assert one.acquire_now()


def test_a_lock_whose_file_was_deleted_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, real = tmp_path / "lock", fcntl.flock

    def delete_while_it_waits(handle: int, operation: int) -> None:
        monkeypatch.undo()
        lock.unlink()
        real(handle, operation)

    one, two = FileTurn(lock), FileTurn(lock)
    monkeypatch.setattr(fcntl, "flock", delete_while_it_waits)
    one.acquire()
    assert not two.acquire_now()  # both have the new file


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(
        ValueError, match=r"--out: expected a file system with locks.*No locks available"
    ):
        FileTurn(tmp_path / "lock").acquire()
