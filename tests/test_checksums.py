"""Digests beside the files of a folder: every flipped bit is seen, and no kill and no second process makes one lie."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fairtune_hf.checksums import NOTES, read_fact, read_noted, write_noted


def in_fork(do: Callable[[], object]) -> int:
    """Do something in a process of its own; return its number."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            do()
            code = 0
        finally:
            os._exit(code)
    return pid


def killed_at(step: int, do: Callable[[], object]) -> bool:
    """Do something in a process that is killed right before its n-th file is opened or renamed; return whether it was."""

    def arm_and_do() -> None:
        count = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event in ("open", "os.rename"):
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        do()

    _, status = os.waitpid(in_fork(arm_and_do), 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    write_noted(tmp_path, {"run.json": '{"a": 0.5}', "trials.csv": "number\n7\n"})
    for name in ("run.json", "trials.csv"):
        whole = read_noted(tmp_path / name)
        for bit in range(8 * len(whole)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(ValueError, match="damaged or edited"):
                read_noted(tmp_path / name)
        (tmp_path / name).write_bytes(whole)
        assert read_noted(tmp_path / name) == whole


def test_files_without_notes_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert read_noted(tmp_path / "run.json") == b"{}"
    write_noted(tmp_path, {"trials.csv": "number\n"})
    (tmp_path / "run.json").write_text("[]")
    assert read_noted(tmp_path / "run.json") == b"[]"


def test_damaged_notes_accuse_nobody_and_are_made_again(tmp_path: Path) -> None:
    write_noted(tmp_path, {"run.json": "{}"}, study={"name": "one"})
    whole = (tmp_path / NOTES).read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (tmp_path / NOTES).write_bytes(damaged)
        assert read_noted(tmp_path / "run.json") == b"{}"
    for content in (b"", whole[:40], b"[]", b"null", b"[" * 100_000):
        (tmp_path / NOTES).write_bytes(content)
        assert read_noted(tmp_path / "run.json") == b"{}"
        assert read_fact(tmp_path, "study") is None
    write_noted(tmp_path, {"run.json": "[]"})
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="damaged or edited"):
        read_noted(tmp_path / "run.json")


def test_a_kill_at_any_moment_leaves_whole_files(tmp_path: Path) -> None:
    old, new = ({name: f"{word} {name}" for name in ("a", "b")} for word in ("old", "new"))
    seen = set()
    for step in range(1, 100):
        write_noted(tmp_path, old, study={"trials": 1})
        was_killed = killed_at(step, lambda: write_noted(tmp_path, new, study={"trials": 2}))
        found = {name: read_noted(tmp_path / name).decode() for name in old}
        assert all(found[name] in (old[name], new[name]) for name in old)
        if found["a"] != old["a"]:  # what a table tells, the notes told before
            assert read_fact(tmp_path, "study") == {"trials": 2}
        seen.add(tuple(found.values()))
        if not was_killed:
            break
    assert len(seen) == 3  # none, the first and both are new
    assert step > 8


def test_processes_that_write_at_once_leave_no_file_that_seems_damaged(tmp_path: Path) -> None:
    def write(worker: int) -> None:
        for number in range(40):
            write_noted(tmp_path, {f"{number % 2}.csv": f"{worker}: {number}\n" * 100})

    write(0)
    pids = {in_fork(lambda worker=worker: write(worker)) for worker in range(1, 4)}
    reads = 0
    while pids:
        for name in ("0.csv", "1.csv"):
            assert len(read_noted(tmp_path / name).splitlines()) == 100
            reads += 1
        for pid in list(pids):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                assert status == 0
                pids.remove(pid)
    assert reads > 4
    for name in ("0.csv", "1.csv"):
        read_noted(tmp_path / name)
