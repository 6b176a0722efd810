"""What a finished run says of its cost, and the training rows of its learning curves."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pandas as pd
import pytest


def test_a_run_holds_the_cost_of_its_search_and_its_refits(finished_run: Path) -> None:
    run = json.loads((finished_run / "run.json").read_text())
    cost, rows = run["cost"], run["dataset"]["rows"]["train"]
    study = f"sqlite:///{finished_run / 'study.sqlite3'}"
    epochs = sum(
        len(trial.user_attrs.get("curve", []))
        for summary in optuna.get_all_study_summaries(study)
        for trial in optuna.load_study(study_name=summary.study_name, storage=study).trials
    )
    assert epochs > run["search"]["trained_epochs"]  # the repetitions are part of the search's cost
    assert cost["search"]["images"] == epochs * rows
    trained = {
        (part["mask"], part["learning_rate"], part["epochs"])
        for part in (run["choice"], *run["controls"].values())
    }
    assert cost["refit"]["images"] == sum(2 * epochs * rows for *_, epochs in trained)
    for part in cost.values():
        assert part["seconds"] == pytest.approx(sum(part["by_part"].values()), abs=0.01)
        assert part["seconds"] > 0
    page = (finished_run / "report.html").read_text()
    assert '<section id="cost">' in page


def test_learning_curves_hold_the_training_rows_of_each_group(finished_run: Path) -> None:
    curves = pd.read_csv(finished_run / "curves.csv")
    fitted = curves[["train_auc_F", "train_auc_M"]]
    assert fitted.notna().all(axis=None)
    assert fitted.stack().between(0, 1).all()
    assert fitted.nunique().min() > 2
