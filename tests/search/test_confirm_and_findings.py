"""Choosing among the best, and what is said about bits: against known truths."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.trial import TrialState

from fairtune_hf.metrics import auc_standard_error
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.confirm import best_points, judge_repetitions, plan_confirmation
from fairtune_hf.search.importance import bit_effects, describe_frequency, describe_importance
from fairtune_hf.search.record import _standard_error
from fairtune_hf.search.space import SearchSpace
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.training import FitArguments


def searched(path: Path, values: list[float], **settings: object) -> SearchStudy:
    arguments = SearchArguments(trials=len(values), presets=False, **settings)  # type: ignore[arg-type]
    study = SearchStudy(
        StudyPlan(RunFolder(path), SearchSpace(blocks=2), arguments, FitArguments(epochs=3))
    )
    for value in values:
        trial = study.study.ask()
        study.space.suggest(trial)
        study.study.tell(trial, value)
    return study


def repeat(path: Path, study: SearchStudy, outcome: dict[int, list[float]]) -> SearchStudy:
    """Run the planned repetitions; the i-th of a trial gives the i-th outcome."""
    plan = plan_confirmation(study)
    assert plan is not None
    repeated = SearchStudy(
        StudyPlan(
            RunFolder(path),
            plan.space,
            plan.search,
            FitArguments(epochs=3),
            startup=plan.startup,
            name=plan.name,
            repeats=True,
        )
    )
    by_params = {str(sorted(t.params.items())): t.number for t in best_points(study)}
    while repeated.claim() == "go":
        trial = repeated.study.ask()
        candidate = plan.space.suggest(trial)
        rest = sorted((k, v) for k, v in trial.params.items() if k != "seed")
        value = outcome[by_params[str(rest)]][plan.space.seeds.index(candidate.seed)]
        if np.isnan(value):
            trial.set_user_attr("reason", "FloatingPointError: diverged")
            repeated.study.tell(trial, state=TrialState.FAIL)
        else:
            repeated.study.tell(trial, value)
    return repeated


def test_the_lucky_trial_loses_to_the_steady_one(tmp_path: Path) -> None:
    study = searched(tmp_path / "a", [0.6, 0.95, 0.8, 0.9], top_k=3, top_k_seeds=2)
    repeated = repeat(tmp_path / "b", study, {1: [0.72, 0.74], 3: [0.90, 0.70], 2: [0.79, 0.79]})
    judged = judge_repetitions(study, repeated)
    assert [one.trial.number for one in judged] == [2, 1, 3]
    wild = judged[2]
    assert wild.mean == pytest.approx(0.80)  # the best mean, and too uncertain
    assert wild.standard_error == pytest.approx(0.1)
    assert wild.bound == pytest.approx(0.70)
    assert repeated.finished() == 6
    assert repeated.claim() == "done"


def test_by_the_mean_alone_and_what_is_to_be_small(tmp_path: Path) -> None:
    study = searched(tmp_path / "a", [0.3, 0.1, 0.2], top_k=2, objective="auc_gap", se_multiple=0.5)
    repeated = repeat(tmp_path / "b", study, {1: [0.2, 0.4], 2: [0.25, 0.27]})
    judged = judge_repetitions(study, repeated)
    assert [one.trial.number for one in judged] == [2, 1]
    assert judged[1].bound == pytest.approx(0.3 + 0.5 * 0.1)


def test_a_repetition_that_fails_counts_and_its_trial_is_not_judged(tmp_path: Path) -> None:
    study = searched(tmp_path / "a", [0.5, 0.9, 0.8], top_k=2, top_k_seeds=2)
    repeated = repeat(tmp_path / "b", study, {1: [float("nan"), 0.9], 2: [0.8, 0.8]})
    assert repeated.finished() == 4
    assert [one.trial.number for one in judge_repetitions(study, repeated)] == [2]


@pytest.mark.parametrize(
    ("objective", "expected"), [("min_auc", (5, 10)), ("overall_auc", (25, 50))]
)
def test_the_noise_of_the_best_value_is_that_of_patients(
    tmp_path: Path, objective: str, expected: tuple[int, int]
) -> None:
    """Two groups of 60 and 15 patients, a third of them positive, each with four pictures."""
    study = searched(tmp_path, [0.7, 0.8], objective=objective)
    patients = np.repeat(np.arange(75), 4)
    labels, codes = (patients % 3 == 0).astype(int), (patients >= 60).astype(int)
    rows = SimpleNamespace(labels=labels, group_codes=codes, patients=patients)
    table = SimpleNamespace(groups=("a", "b"), subset=lambda split: rows)
    error = _standard_error(study, table, study.best(), RunFolder(tmp_path))  # type: ignore[arg-type]
    assert error == pytest.approx(auc_standard_error(*expected, auc=0.8))


def test_ridge_finds_the_bits_that_matter_and_covers_their_effects() -> None:
    """36 bits of which 6 matter, 60 noisy trials: the case where Optuna's default does no better than chance."""
    generator = np.random.default_rng(1)
    truth = np.zeros(36)
    truth[[0, 5, 11, 20, 30, 35]] = [0.3, -0.3, 0.25, 0.3, -0.25, 0.3]
    hits, covered = [], []
    for _ in range(10):
        bits = generator.integers(0, 2, (60, 36)).astype(float)
        rates = 10 ** generator.uniform(-5, -3, 60)
        values = bits @ truth + 0.1 * np.log10(rates) + generator.normal(0, 0.1, 60)
        effects, low, high = bit_effects(bits, values, rates)
        hits.append(len(set(np.argsort(-np.abs(effects))[:6]) & set(np.flatnonzero(truth))))
        covered.append(np.mean((low <= truth) & (truth <= high)))
    assert np.mean(hits) > 5
    assert np.mean(covered) > 0.8


def test_a_learning_rate_that_explains_all_leaves_the_bits_without_effect() -> None:
    generator = np.random.default_rng(2)
    bits = generator.integers(0, 2, (80, 12)).astype(float)
    rates = 10 ** generator.uniform(-5, -3, 80)
    values = np.log10(rates)
    effects, low, high = bit_effects(bits, values, rates)
    assert np.abs(effects).max() < 0.05 * np.std(values)
    assert np.mean((low <= 1e-9) & (high >= -1e-9)) > 0.7


def test_bits_carry_readable_names_and_few_trials_say_nothing() -> None:
    names = ["blocks.0.attention", "blocks.0.mlp"]
    masks = ["10", "11", "10", "00", "01", "10", "11", "00"]
    found = describe_importance(names, masks, [0.9, 0.8, 0.9, 0.1, 0.2, 0.9, 0.8, 0.1], [1e-4] * 8)
    assert found is not None
    assert [row["name"] for row in found["bits"]] == names
    assert found["bits"][0]["effect"] > 0.5 > abs(found["bits"][1]["effect"])
    assert describe_importance(names, masks[:4], [0.9, 0.8, 0.9, 0.1], [1e-4] * 4) is None
    frequency = describe_frequency(names, masks)
    assert frequency["best_trials"] == 2
    assert [row["best"] for row in frequency["bits"]] == [1.0, 0.5]
    assert [row["all"] for row in frequency["bits"]] == [5 / 8, 3 / 8]
