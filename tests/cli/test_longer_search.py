"""A finished run whose search goes on: what was refitted and measured before belongs to another choice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairtune_hf.cli.main import main
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import SearchRecord

EVALUATED = ("validation", "test", "seeds", "comparisons", "verdict")


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, in which a longer search chose another learning rate."""
    shutil.copytree(finished_run, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    with folder.editing() as record:
        record.choice.learning_rate *= 0.5
        record.methods["full_blocks"].choice.mask = "011111"
    return folder.path


def read(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text()))


def test_refits_of_another_choice_are_neither_measured_nor_kept(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pd.read_parquet(run / "predictions.parquet")
    kept = pd.read_parquet(run / "controls" / "linear_readout" / "predictions.parquet")
    assert main(["evaluate", f"--run={run}", "--resamples=100"]) == 2
    assert "none of what the search chose" in " ".join(capsys.readouterr().err.split())
    assert main(["finetune", f"--run={run}", "--seeds=2"]) == 0
    after = pd.read_parquet(run / "predictions.parquet")
    assert after.shape == before.shape
    assert (after["score"] != before["score"]).mean() > 0.9
    config = json.loads((run / "controls/full_blocks/adapter/adapter_config.json").read_text())
    assert config["mask"] == {"layernorm": "01", "attention": "11", "mlp": "11"}
    same = pd.read_parquet(run / "controls" / "linear_readout" / "predictions.parquet")
    pd.testing.assert_frame_equal(kept, same)  # its choice is what it was: not trained again
    assert main(["evaluate", f"--run={run}", "--resamples=100"]) == 0
    assert main(["finetune", f"--run={run}", "--seeds=2"]) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_a_longer_search_takes_back_what_was_measured_of_another_choice(
    finished_run: Path, folder_flags: list[str], tiny_vit: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    run = tmp_path / "run"
    words = ["search", *folder_flags, f"--model={tiny_vit}", f"--out={run}", "--trials=9"]
    words += ["--epochs=2", "--batch-size=16", "--learning-rate-max=0.01"]
    earlier = read(run)
    assert all(earlier[part] for part in EVALUATED)
    with RunFolder(run).editing() as record:
        record.choice.learning_rate *= 2
    assert main(words) == 0  # chooses by the trials: another than what the record says
    assert not any(read(run)[part] for part in EVALUATED)


def test_a_search_of_the_same_outcome_keeps_what_was_measured(
    finished_run: Path, folder_flags: list[str], tiny_vit: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    run = tmp_path / "run"
    (run / "search-again").touch()
    record = read(run)
    with RunFolder(run).editing() as edited:
        edited.own.search = SearchRecord()  # as if it had been killed before its last word
    words = ["search", *folder_flags, f"--model={tiny_vit}", f"--out={run}", "--trials=8"]
    words += ["--epochs=2", "--batch-size=16", "--learning-rate-max=0.01"]
    assert main(words) == 0
    assert read(run)["test"] == record["test"]


def test_overwrite_deletes_runs_alone(
    folder_flags: list[str], tiny_vit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "config.yaml").write_text("dataset: mine\nepochs: 3\n")
    (project / "precious.py").write_text("pass")
    words = ["search", *folder_flags, f"--model={tiny_vit}", "--trials=1", "--epochs=1"]
    assert main([*words, f"--out={project}", "--overwrite"]) == 2
    assert "holds other files" in " ".join(capsys.readouterr().err.split())
    assert sorted(p.name for p in project.iterdir()) == ["config.yaml", "precious.py"]


@pytest.mark.slow
def test_trials_in_a_shared_storage_are_not_forgotten(
    folder_flags: list[str], tiny_vit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", *folder_flags, f"--model={tiny_vit}", "--epochs=1", "--top-k=0"]
    shared = f"--storage=sqlite:///{tmp_path}/shared.db"
    assert main([*words, "--trials=2", f"--out={tmp_path / 'a'}", shared]) == 0
    assert main([*words, "--trials=3", f"--out={tmp_path / 'a'}"]) == 2
    assert "the storage of the earlier trials" in " ".join(capsys.readouterr().err.split())
    assert main([*words, "--trials=2", f"--out={tmp_path / 'b'}"]) == 0
    assert main([*words, "--trials=3", f"--out={tmp_path / 'b'}", shared]) == 2
    assert "expected none, since the trials of this search" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.slow
def test_overwrite_does_not_go_on_with_trials_in_a_shared_storage(
    folder_flags: list[str], tiny_vit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", *folder_flags, f"--model={tiny_vit}", "--epochs=1", "--top-k=0"]
    words += ["--trials=2", f"--storage=sqlite:///{tmp_path}/shared.db", "--overwrite"]
    assert main([*words, f"--out={tmp_path / 'a'}"]) == 0  # a new folder: nothing to begin anew
    before = (tmp_path / "a" / "trials.csv").read_bytes()
    assert main([*words, f"--out={tmp_path / 'a'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--overwrite: expected a study without trials" in said
    assert "holds 2, which other machines may share" in said
    assert (tmp_path / "a" / "trials.csv").read_bytes() == before
    assert main([*words, f"--out={tmp_path / 'a'}", "--study-name=second"]) == 0
    assert (tmp_path / "a" / "trials.csv").read_bytes() != before
