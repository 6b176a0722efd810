"""A search that is interrupted ends soon, keeps what it has, and goes on to the exact total."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from fairtune_hf.search import interrupt

COMMAND = str(Path(sys.executable).parent / "fairtune")


def finished(out: Path) -> int:
    file = out / "trials.csv"
    return len(pd.read_csv(file)) if file.is_file() else 0


def interrupted(words: list[str], out: Path, sent: signal.Signals) -> tuple[int, str]:
    """Start a search and interrupt it after three trials; return its exit code and what it said."""
    process = subprocess.Popen(
        words,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        # A test run in the background is told to ignore Ctrl-C; the command it starts must not be.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 300
        while finished(out) < 3 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(sent)
        _, message = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)],
    ids=["ctrl-c", "term", "kill"],
)
def test_interrupted_search_resumes_to_the_exact_total(
    sent: signal.Signals,
    code: int,
    finished_run: Path,
    folder_flags: list[str],
    tiny_vit: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    fit = ["--trials=8", "--epochs=2", "--batch-size=16", "--learning-rate-max=0.01"]
    words = [COMMAND, "search", *folder_flags, f"--model={tiny_vit}", *fit, f"--out={out}"]
    ended, message = interrupted(words, out, sent)
    while ended == 0:  # on a busy machine this test may sleep through the whole search: once more
        shutil.rmtree(out)
        ended, message = interrupted(words, out, sent)
    assert ended == code, message
    if code == 130:
        assert "go on with\n  fairtune search" in message
        assert "Traceback" not in message
    subprocess.run(words, check=True)
    columns = ["value", "learning_rate", "mask"]
    trials, whole = (
        pd.read_csv(f / "trials.csv", dtype={"mask": str}) for f in (out, finished_run)
    )
    done = trials[trials["state"].isin(["COMPLETE", "PRUNED"])]
    assert len(done) == 8
    assert "RUNNING" not in set(trials["state"])
    # The same points with the same values as without the interruption, in whatever order.
    pd.testing.assert_frame_equal(
        done[columns].sort_values(columns, ignore_index=True),
        whole[columns].sort_values(columns, ignore_index=True),
    )


@pytest.mark.parametrize("words", [["--help"], ["search", "--help"], ["recipes"]], ids=" ".join)
def test_a_command_ends_quietly_when_its_reader_has_gone(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run([COMMAND, *words], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (found.returncode, found.stderr) == (141, b"")


@pytest.mark.parametrize(("asked", "name"), [(True, "KeyboardInterrupt"), (False, "RuntimeError")])
def test_what_fails_after_an_interrupt_that_python_dropped_is_the_interrupt(
    asked: bool, name: str
) -> None:
    """Run apart, as signals go to the main thread alone; the module needs nothing of the package."""
    script = f"""
import importlib.util, os, signal
spec = importlib.util.spec_from_file_location("interrupt", {interrupt.__file__!r})
interrupt = importlib.util.module_from_spec(spec)
spec.loader.exec_module(interrupt)
signal.signal(signal.SIGTERM, lambda *_: None)  # as dropped
try:
    with interrupt.prompt_exit():
        if {asked}:
            os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("connection closed by peer")
except BaseException as error:
    print(type(error).__name__)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (found.stdout.strip(), found.stderr) == (name, "")


def test_a_process_that_does_not_end_when_asked_is_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "GRACE_SECONDS", 0.2)
    deaf = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    process.stdout.readline()
    interrupt.end_processes([process])
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
