"""Every recipe parses; the scripts under accelerate do what the command does."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fairtune_hf.baselines import METHODS
from fairtune_hf.cli import compare, search
from fairtune_hf.cli.main import main
from fairtune_hf.cli.parser import RecipeParser
from fairtune_hf.cli.recipes import list_recipes
from fairtune_hf.data import dataset_spec

ROOT = Path(__file__).parents[2]
COMPARISONS = [path for path in list_recipes() if path.name.startswith("compare")]
SEARCHES = [path for path in list_recipes() if path not in COMPARISONS]
# The paper's 14 settings and its overlapping attribute, with the trials of its searches.
PAPER = {
    "fitzpatrick17k": (["skin_type"], 40),
    "ham10000": (["age", "sex"], 60),
    "papila": (["age", "sex"], 100),
    "ol3i": (["age", "sex"], 100),
    "oasis1": (["age", "sex"], 60),
    "harvard_gf3300": (["age", "sex", "race"], 60),
    "chexpert": (["age", "sex", "age+sex"], 40),
}
SETTINGS = [(name, a) for name, (attributes, _) in PAPER.items() for a in attributes]
PRETRAININGS = {"": "google/vit-base-patch16-224", "_mae": "timm/vit_base_patch16_224.mae"}


def given(path: Path) -> list[str]:
    """What a user gives with a recipe: the folder of the data too, where the set is not drawn."""
    needs_root = dataset_spec(path.parent.name).needs_root
    return [f"--config={path}", *(["--data-root=DIR"] if needs_root else [])]


def parsed(parser: RecipeParser, path: Path) -> dict[str, object]:
    parts, _ = parser.parse(given(path))
    return {key: value for part in parts for key, value in dataclasses.asdict(part).items()}


def test_there_are_recipes() -> None:
    assert SEARCHES


@pytest.mark.parametrize("path", SEARCHES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_recipe_parses_and_says_what_it_is_for(path: Path) -> None:
    search.PARSER.parse(given(path))
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert "fairtune search --config" in text


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_comparison_parses_and_says_what_it_is_for(path: Path) -> None:
    read = parsed(compare.PARSER, path)
    assert read["dataset"] == path.parent.name
    assert read["sensitive"] in dataset_spec(path.parent.name).attributes
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert f"fairtune compare --config recipes/{path.parent.name}/{path.name}" in text


@pytest.mark.parametrize("pretraining", PRETRAININGS)
@pytest.mark.parametrize(("name", "attribute"), SETTINGS)
def test_every_setting_of_the_paper_has_its_recipe(
    name: str, attribute: str, pretraining: str
) -> None:
    path = ROOT / "recipes" / name / f"{attribute.replace('+', '_')}{pretraining}.yaml"
    read = parsed(search.PARSER, path)
    expected = {
        "dataset": name,
        "sensitive": attribute,
        "model": PRETRAININGS[pretraining],
        "trials": PAPER[name][1],
        "epochs": 30,
        "batch_size": 512,
        "class_weight": dataset_spec(name).class_weight or "none",
        "search_fraction": 0.1 if name == "chexpert" else 1.0,
    }
    assert {key: read[key] for key in expected} == expected
    assert set(attribute.split("+")) <= set(dataset_spec(name).attributes)


def test_the_paper_s_settings_are_all_there() -> None:
    assert len(SETTINGS) == 15
    assert {path.parent.name for path in COMPARISONS} == {"demo", *PAPER}


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
    for command, out, threads in (
        (launched, "launched", "1"),  # what accelerate sets where nothing is set
        ([str(python.parent / "fairtune"), "search"], "plain", "2"),
    ):
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        words = [*command, *recipe, f"--out={tmp_path / out}"]
        subprocess.run(words, check=True, cwd=tmp_path, env=environment)
        record = json.loads((tmp_path / out / "run.json").read_text())
        assert record["hardware"]["threads"] == 2  # the recipe's
    one, two = (
        pd.read_csv(tmp_path / out / "trials.csv", dtype={"mask": str}).drop(columns="seconds")
        for out in ("launched", "plain")
    )
    pd.testing.assert_frame_equal(one, two)


def test_ham10000_results_are_rebuilt_from_the_committed_runs(tmp_path: Path) -> None:
    """RESULTS.md holds the tables that `fairtune report --runs` makes of the run.json files beside it."""
    recipe = ROOT / "recipes" / "ham10000"
    runs = sorted(map(str, (recipe / "results").iterdir()))
    assert len(runs) == 2 * len(METHODS)
    assert main(["report", "--runs", *runs, f"--out={tmp_path}"]) == 0
    rebuilt = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert rebuilt.strip()
    assert (recipe / "RESULTS.md").read_text(encoding="utf-8").endswith(rebuilt)
