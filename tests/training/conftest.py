"""What several tests of trainings need."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def run_alone_and_in_two(
    run_in_processes: Callable[..., None], tmp_path: Path
) -> Callable[..., dict[int, Any]]:
    """Runs a script with words and a folder to write to in one process, then in two.

    The script leaves `found.json` in the folder, with the number of its processes; returns its contents by
    that number, without it.
    """

    def run(script: str, *words: Path) -> dict[int, Any]:
        found = {}
        for processes in (1, 2):
            out = tmp_path / str(processes)
            out.mkdir()
            run_in_processes(script, *words, out, processes=processes)
            found[processes] = json.loads((out / "found.json").read_text())
            assert found[processes].pop("processes") == processes
        return found

    return run
