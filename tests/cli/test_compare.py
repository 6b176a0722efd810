"""`fairtune compare`: names, the report from run.json alone, failures as rows, resumption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from fairtune_hf.baselines import METHODS
from fairtune_hf.cli.main import main

BUDGET = ["--trials=2", "--epochs=2", "--seeds=2", "--batch-size=32", "--resamples=100"]
RATES = ["--pruner=none", "--learning-rate-min=0.001", "--learning-rate-max=0.03"]


@pytest.fixture(scope="module")
def flags(folder_flags: list[str], tiny_vit: Path) -> list[str]:
    return [*folder_flags, f"--model={tiny_vit}", *BUDGET, *RATES]


@pytest.fixture(scope="module")
def compared(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "out"
    methods = ["--methods", "linear_readout", "full", "groupdro+fairtune_attention"]
    assert main(["compare", *flags, *methods, f"--out={out}"]) == 0
    return out


def table(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "comparison.csv")


def test_methods_are_listed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--list-methods"]) == 0
    assert capsys.readouterr().out == "\n".join(METHODS) + "\n"


def test_every_method_is_a_row_with_intervals_and_is_tested(compared: Path) -> None:
    found = table(compared)
    overall = found[found["metric"] == "overall_auc"].set_index("method")
    assert list(overall.index) == ["full", "linear_readout", "groupdro+fairtune_attention"]
    assert overall[["value", "low", "high", "mean_over_seeds"]].notna().all(axis=None)
    assert overall["difference"].isna().tolist() == [True, False, False]
    tested = overall["p_value"].dropna()
    low, high = sorted(tested)
    expected = {low: min(1.0, 2 * low), high: max(min(1.0, 2 * low), high)}
    adjusted = overall.loc[tested.index, "p_holm"]
    assert adjusted.tolist() == pytest.approx([expected[p] for p in tested])


def test_the_run_says_what_was_done(compared: Path) -> None:
    run = json.loads(
        (compared / "methods" / "groupdro+fairtune_attention" / "run.json").read_text()
    )
    assert run["method"]["tunes"] == ["learning_rate", "step_size", "weight_decay", "mask"]
    assert set(run["choice"]["hyperparameters"]) == {"step_size", "weight_decay"}
    assert len(run["choice"]["mask"]) == 2
    assert (run["search"]["completed"], run["search"]["trained_epochs"]) == (2, 4)
    full = json.loads((compared / "methods" / "full" / "run.json").read_text())
    assert full["choice"]["train_also"] == ["everything_else"]
    assert full["choice"]["preset"] == "full"


def test_refit_trains_the_choice_with_all_it_trains(compared: Path) -> None:
    config = json.loads(
        (compared / "methods" / "full" / "adapter" / "adapter_config.json").read_text()
    )
    assert config["train_also"] == ["everything_else"]
    assert config["mask"]["mlp"] == "11"


def test_report_is_rebuilt_from_run_json_alone(compared: Path, tmp_path: Path) -> None:
    """Whatever order the folders are given in, the methods stand in that of --list-methods."""
    copies = []
    for folder in sorted((compared / "methods").iterdir()):
        copies.append(tmp_path / folder.name)
        copies[-1].mkdir()
        shutil.copy(folder / "run.json", copies[-1])
    assert main(["report", "--runs", *map(str, copies), f"--out={tmp_path / 'again'}"]) == 0
    for name in ("comparison.csv", "comparison.md", "comparison.tex", "comparison.html"):
        assert (tmp_path / "again" / name).read_text() == (compared / name).read_text()


def test_done_is_done(compared: Path, flags: list[str]) -> None:
    study = compared / "methods" / "full" / "study.sqlite3"
    before = study.read_bytes()
    methods = ["--methods", "linear_readout", "full", "groupdro+fairtune_attention"]
    shown = (compared / "comparison.csv").read_text()
    assert main(["compare", *flags, *methods, f"--out={compared}"]) == 0
    assert study.read_bytes() == before
    assert (compared / "comparison.csv").read_text() == shown


def test_another_configuration_in_the_folder_is_bad_input(
    compared: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *flags, "--epochs=3", f"--out={compared}"]) == 2
    assert "epochs was 2, now 3" in capsys.readouterr().err.replace("\n", " ")


def test_a_method_that_failed_is_a_row_that_says_why(flags: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    methods = ["--methods", "full", "fscl"]
    one = [*flags, "--epochs=1", "--trials=1", "--seeds=1"]
    assert main(["compare", *one, *methods, f"--out={out}"]) == 0
    lines = (out / "comparison.md").read_text().splitlines()
    row = next(line for line in lines if line.startswith("| fscl |"))
    assert "failed: ValueError: epochs: expected at least 2 for the two stages" in row
    found = table(out)
    assert found[found["method"] == "full"]["value"].notna().all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--methods", "fairtun"], "Did you mean fairtune"),
        (["--layout", "attention"], "unknown flag: --layout"),
        (["--search-fraction", "0"], "--search-fraction: expected a share in (0, 1]"),
        (["--workers", "0"], "--workers: expected at least 1"),
    ],
)
def test_bad_input_is_named_and_nothing_written(
    flags: list[str],
    given: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", *flags, *given, f"--out={tmp_path / 'out'}"]) == 2
    assert words in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_to_the_same_table(
    flags: list[str], tmp_path: Path
) -> None:
    """Killed as soon as the first study has a finished trial; the other run is spread over two processes."""
    methods = ["--methods", "full", "fscl", "fairtune"]
    command = [sys.executable, "-m", "fairtune_hf.cli.main", "compare", *flags, *methods]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*command, f"--out={killed}"], env=environment)
    while not list(killed.glob("methods/*/trials.csv")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "comparison.csv").exists()
    subprocess.run([*command, f"--out={killed}"], env=environment, check=True)
    subprocess.run([*command, f"--out={whole}", "--workers=2"], env=environment, check=True)
    pd.testing.assert_frame_equal(table(killed), table(whole))
    for name in ("full", "fscl", "fairtune"):
        run = json.loads((killed / "methods" / name / "run.json").read_text())
        assert run["search"]["completed"] == 2


@pytest.mark.slow
def test_demo_compares_all_methods_at_one_small_budget(tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = ["--trials=1", "--seeds=1", "--resamples=200", "--workers=2"]
    recipe = Path(__file__).parents[2] / "recipes" / "demo" / "compare.yaml"
    assert main(["compare", f"--config={recipe}", *small, f"--out={out}"]) == 0
    found = table(out)
    assert list(found["method"].unique()) == list(METHODS)
    assert len(found) == 5 * len(METHODS)
    assert found["failure"].isna().all()
    assert found[["value", "low", "high"]].notna().all(axis=None)
    rest = found[(found["method"] != "full") & (found["metric"] == "min_auc")]
    assert (
        rest[["difference", "difference_low", "difference_high", "p_holm"]].notna().all(axis=None)
    )
