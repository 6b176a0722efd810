"""What is said to the user while a command runs."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


class RefusedError(Exception):
    """Bad input that shows only while a command runs: said in words, with the exit code of bad input."""


def say(message: str) -> None:
    """Tell the user something, once, whatever the number of processes."""
    if is_first_process():
        print(message, file=sys.stderr)


def say_next(command: str, run: str | Path, *words: str) -> None:
    """Show the command that comes next on a run, as it can be typed here."""
    say(f"Next: {command_line(command, run, *words)}")


def command_line(command: str, run: str | Path, *words: str) -> str:
    """Return a command on a run, as it can be typed here; words that are to be replaced stay as they are."""
    return " ".join([_program(), command, "--run", shlex.quote(str(run)), *words])


def _program() -> str:
    """Return how `fairtune` is called here: by its name, or by its path where a shell would not find it."""
    called = Path(sys.argv[0])
    if called.name != "fairtune" or shutil.which("fairtune") or not called.is_file():
        return "fairtune"
    return shlex.quote(os.path.relpath(called))


def is_first_process() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0
