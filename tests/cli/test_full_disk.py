"""A disk that is full, or standard output that cannot be written: words and an exit code, no traceback."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fairtune_hf.cli.disk import full_words, is_full
from fairtune_hf.cli.main import main

COMMAND = Path(sys.executable).with_name("fairtune")


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Let no file of this process and its children grow further, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kilobytes", [0, 20, 60])
@pytest.mark.parametrize("command", ["prepare", "search"])
def test_a_full_disk_is_told_in_megabytes_and_the_same_command_goes_on(
    command: str,
    kilobytes: int,
    folder_flags: list[str],
    tiny_vit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FAIRTUNE_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    words = {
        "prepare": ["--image-size=32"],
        "search": [f"--model={tiny_vit}", "--trials=1", "--epochs=1", "--top-k=0"],
    }[command]
    words = [command, *folder_flags, *words, f"--out={out}"]
    with files_of_at_most(kilobytes * 1000):
        code = main(words)
    said = capsys.readouterr().err
    assert code == 2, said
    assert "Traceback" not in said
    said = " ".join(said.split())
    assert f"fairtune {command}: the disk is full: expected room to write" in said
    assert f"no file may exceed 0.0{kilobytes:02d} MB here (ulimit -f)" in said
    assert "what was finished is kept" in said
    assert main(words) == 0


@pytest.mark.parametrize("kilobytes", [0, 1, 20])
@pytest.mark.parametrize("command", ["finetune", "evaluate", "report", "card", "compare"])
def test_later_steps_on_a_full_disk_say_so_and_go_on_where_they_stopped(
    command: str,
    kilobytes: int,
    finished_run: Path,
    folder_flags: list[str],
    tiny_vit: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    compare = [*folder_flags, f"--model={tiny_vit}", f"--out={tmp_path / 'compared'}"]
    compare += ["--methods", "linear_readout", "--trials=1", "--epochs=1", "--seeds=1"]
    words = {
        "finetune": [f"--run={run}", "--seeds=2"],
        "evaluate": [f"--run={run}", "--resamples=200"],
        "report": [f"--run={run}"],
        "card": [f"--run={run}", f"--out={tmp_path / 'card'}"],
        "compare": compare,
    }[command]
    if command == "finetune":  # has something to do
        (run / "predictions.parquet").unlink()
    before = (run / "run.json").read_bytes()
    with files_of_at_most(kilobytes * 1000):
        code = main([command, *words])
    said = capsys.readouterr().err
    assert code == 2 or (command == "card" and kilobytes == 20), said
    assert "Traceback" not in said
    if code:
        assert "the disk is full: expected room to write" in " ".join(said.split())
        assert (run / "run.json").read_bytes() == before
    assert main([command, *words]) == 0


def test_an_array_of_which_a_part_could_be_written_is_a_full_disk(tmp_path: Path) -> None:
    with files_of_at_most(5000), pytest.raises(OSError, match="written") as caught:
        np.save(tmp_path / "array.npy", np.zeros(10_000))
    assert is_full(caught.value)
    said = "there was none (10000 requested and 609 written)"
    assert said in full_words(caught.value, ["prepare", f"--out={tmp_path}"])


def test_standard_output_on_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(
            [COMMAND, "recipes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert found.returncode == 2
    said = "fairtune: standard output could not be written: No space left on device."
    assert " ".join(found.stderr.split()) == said


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_command_whose_output_is_closed_does_its_work(closed: str) -> None:
    found = subprocess.run(
        ["/bin/sh", "-c", f'"{COMMAND}" recipes {closed}'], capture_output=True, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


def test_a_reader_that_wants_one_line_ends_the_command_quietly() -> None:
    script = f'("{COMMAND}" recipes; echo $? >&2) | head -1'
    found = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert len(found.stdout.splitlines()) == 1
    assert found.stderr in ("0\n", "141\n")  # the whole list may fit into the pipe
