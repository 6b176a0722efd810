"""Files are on the disk before they have their name, and what is left half-written is nobody's result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fairtune_hf.run_folder import OURS, RunFolder
from fairtune_hf.whole_files import remove_left_overs, replacing_folder, write_text


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is flushed and renamed, in order; both are done."""
    seen: list[tuple[str, str]] = []
    flush, rename = os.fsync, os.replace

    def note_flush(handle: int) -> None:
        seen.append(("flush", Path(f"/proc/self/fd/{handle}").resolve().name))
        flush(handle)

    def note_rename(source: Path, target: Path) -> None:
        seen.append(("rename", Path(target).name))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(os, "replace", note_rename)
    monkeypatch.setattr(os, "rename", note_rename)
    return seen


def test_a_file_is_flushed_before_it_has_its_name_and_the_folder_after(
    tmp_path: Path, steps: list[tuple[str, str]]
) -> None:
    write_text(tmp_path / "trials.csv", "number\n")
    partial = f".trials.csv.{os.getpid()}.partial"
    assert steps == [("flush", partial), ("rename", "trials.csv"), ("flush", tmp_path.name)]


def test_a_folder_is_flushed_file_by_file_before_it_takes_the_old_ones_place(
    tmp_path: Path, steps: list[tuple[str, str]]
) -> None:
    for content in ("old", "new"):
        steps.clear()
        with replacing_folder(tmp_path / "adapter") as partial:
            (partial / "weights").write_text(content)
        assert steps == [("flush", "weights"), ("rename", "adapter"), ("flush", tmp_path.name)]
    assert (tmp_path / "adapter" / "weights").read_text() == "new"


def test_what_fails_leaves_the_old_file_and_no_half(tmp_path: Path) -> None:
    write_text(tmp_path / "run.json", "{}")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "run.json", "\ud800")
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
    assert (tmp_path / "run.json").read_text() == "{}"


def test_left_overs_of_processes_that_are_no_more_are_removed_and_nothing_else(
    tmp_path: Path,
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept = [f".run.json.{os.getpid()}.partial", ".notes.txt.1.partial", "run.json.1.partial"]
    for name in (*kept, f".run.json.{ended.pid}.partial"):
        (tmp_path / name).write_text("half")
    (tmp_path / f".adapter.{ended.pid}.partial").mkdir()
    remove_left_overs(tmp_path, OURS)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


def test_a_folder_with_left_overs_alone_is_empty(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / ".config.yaml.123.partial").write_text("data")
    assert folder.is_empty()
    (tmp_path / ".mine.123.partial").write_text("data")
    assert not folder.is_empty()


def test_clearing_a_run_leaves_what_no_step_wrote(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("kept")
    run = tmp_path / "run"
    mine = ["notes.txt", "best_trial.2026.backup/w", "controls/full_blocks/mine.txt"]
    ours = ["run.json", "config.yaml", "adapter/w", "controls/full_blocks/run.json"]
    ours += ["methods/full/adapter/w", "confirm/trials.csv", "best_trial/w", ".best_trial.old/w"]
    for name in (*mine, *ours):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("x")
    (run / "figures").symlink_to(elsewhere)
    RunFolder(run).clear()
    left = sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if not p.is_dir())
    assert left == sorted(mine)
    assert (elsewhere / "precious").read_text() == "kept"


def test_a_flipped_bit_in_the_predictions_is_no_other_score(tmp_path: Path) -> None:
    """Whatever byte of the pages is changed, the file cannot be read or holds what was written."""
    folder = RunFolder(tmp_path)
    columns = {"row_id": list("abcd"), "seed": 0, "split": "test", "label": [0, 1, 0, 1]}
    frame = pd.DataFrame({**columns, "score": [0.125, 0.5, 0.75, 0.875]})
    folder.write_predictions(frame)
    whole = folder.predictions_file.read_bytes()
    refused = 0
    for place in range(4, whole.index(b"pandas")):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        folder.predictions_file.write_bytes(damaged)
        try:
            found = folder.read_predictions()
        except ValueError:
            refused += 1
        else:
            pd.testing.assert_frame_equal(found, frame)
    assert refused > 100
