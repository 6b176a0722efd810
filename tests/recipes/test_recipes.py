"""Every recipe parses; the scripts under accelerate do what the command does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fairtune_hf.cli import search
from fairtune_hf.cli.recipes import list_recipes

ROOT = Path(__file__).parents[2]
SEARCHES = [path for path in list_recipes() if path.name != "compare.yaml"]


def test_there_are_recipes() -> None:
    assert SEARCHES


@pytest.mark.parametrize("path", SEARCHES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_recipe_parses_and_says_what_it_is_for(path: Path) -> None:
    search.PARSER.parse([f"--config={path}"])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert "fairtune search --config" in text


@pytest.mark.slow
def test_accelerate_launch_gives_the_same_trials_as_the_command(tmp_path: Path) -> None:
    recipe = [
        "--config",
        str(ROOT / "recipes" / "demo" / "search.yaml"),
        "--trials=3",
        "--epochs=1",
    ]
    python = Path(sys.executable)
    launched = [
        str(python.parent / "accelerate"), "launch", "--num_processes", "1", str(ROOT / "recipes" / "search.py"),
    ]  # fmt: skip
    for command, out in (
        (launched, "launched"),
        ([str(python.parent / "fairtune"), "search"], "plain"),
    ):
        subprocess.run([*command, *recipe, f"--out={tmp_path / out}"], check=True, cwd=tmp_path)
    one, two = (
        pd.read_csv(tmp_path / out / "trials.csv", dtype={"mask": str}).drop(columns="seconds")
        for out in ("launched", "plain")
    )
    pd.testing.assert_frame_equal(one, two)
