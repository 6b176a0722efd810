"""What a run cost: added up over processes and trainings, and written where reports look for it."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pandas as pd
import pytest

from fairtune_hf.training.costs import add_costs, spread_cost

ONE = {
    "seconds": 10.0, "images": 1000, "images_per_second": 100.0, "device": "GPU A", "peak_flops": 1e12,
    "operations": 4e12, "share_of_peak": 0.4, "by_part": {"forward": 6.0, "data": 4.0},
}  # fmt: skip
OTHER = {
    "seconds": 30.0, "images": 9000, "images_per_second": 300.0, "device": "GPU B", "peak_flops": 2e12,
    "operations": 20e12, "share_of_peak": 1 / 3, "by_part": {"forward": 20.0, "data": 9.0, "other": 1.0},
}  # fmt: skip


def test_costs_add_up_and_rates_are_those_of_the_whole() -> None:
    both = add_costs([ONE, None, OTHER])
    assert both is not None
    assert (both["seconds"], both["images"], both["images_per_second"]) == (40.0, 10_000, 250.0)
    assert both["share_of_peak"] == pytest.approx(24e12 / (10 * 1e12 + 30 * 2e12), abs=1e-4)
    assert both["by_part"] == {"forward": 26.0, "data": 13.0, "other": 1.0}
    assert both["device"] == "GPU A, GPU B"
    assert add_costs([both, ONE])["seconds"] == 50.0  # sums can be added to


def test_nothing_adds_up_to_nothing_and_the_unknown_stays_unknown() -> None:
    assert add_costs([]) is None
    assert add_costs([None, None]) is None
    cpu = ONE | {"peak_flops": None, "share_of_peak": None}
    mixed = add_costs([cpu, OTHER])
    assert mixed is not None
    assert mixed["share_of_peak"] is None
    assert mixed["operations"] == 24e12
    assert add_costs([ONE | {"operations": None}, OTHER])["share_of_peak"] is None


def test_processes_of_one_training_do_the_same_work() -> None:
    two = spread_cost(ONE, 2)
    assert (two["seconds"], two["images"], two["images_per_second"]) == (20.0, 2000, 100.0)
    assert two["share_of_peak"] == pytest.approx(0.4)
    assert two["by_part"] == {"forward": 12.0, "data": 8.0}


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
