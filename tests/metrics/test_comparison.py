"""Paired comparison of prediction tables."""

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.metrics import (
    compare_metrics,
    compare_predictions,
    group_metrics,
    is_levelling_down,
)
from fairtune_hf.metrics.bootstrap import bootstrap_p_value
from fairtune_hf.metrics.seeds import combine_seeds


def table(seeds=(0, 1), signal=1.0, noise=1, n=500):
    rng = np.random.default_rng(0)
    label = (rng.random(n) < 0.3).astype(int)
    sex, patient = rng.choice(["f", "m"], n), rng.integers(0, 300, n)
    case = rng.normal(size=n)
    parts = []
    for seed in seeds:
        own = np.random.default_rng([noise, seed]).normal(size=n)
        parts.append(
            pd.DataFrame({
                "row_id": [f"r{i}" for i in range(n)], "seed": seed, "label": label, "sex": sex,
                "patient": patient, "score": signal * label + case + 0.3 * own,
            })
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("metric", [
    "overall_auc", "min_auc", "max_auc", "auc_gap", "equalized_odds_difference",
    "demographic_parity_difference",
])  # fmt: skip
def test_difference_is_the_mean_over_seeds(metric):
    ours, theirs = table(), table(signal=0.5, noise=2)
    got = compare_predictions(ours, theirs, sensitive="sex", metric=metric, n_resamples=200)

    def mean(frame):
        return np.mean([
            getattr(group_metrics(part.label, part.score, sensitive_features=part.sex), metric)
            for _, part in frame.groupby("seed")
        ])  # fmt: skip

    assert got.difference == pytest.approx(mean(ours) - mean(theirs), abs=1e-12)
    assert got.ci[0] < got.difference < got.ci[1]
    assert (got.n_seeds, got.n_patients) == (2, ours.patient.nunique())


def test_rows_are_paired_by_row_id_not_position():
    ours, theirs = table(), table(signal=0.5, noise=2)
    got = compare_predictions(ours, theirs, sensitive="sex", n_resamples=100)
    shuffled = theirs.sample(frac=1, random_state=1)
    assert compare_predictions(ours, shuffled, sensitive="sex", n_resamples=100) == got


def test_a_table_against_itself_has_no_difference():
    got = compare_predictions(table(), table(), sensitive="sex", n_resamples=100)
    assert (got.difference, got.ci, got.p_value) == (0.0, (0.0, 0.0), 1.0)
    assert not got.levelling_down


def test_swapping_the_tables_swaps_the_sign():
    ours, theirs = table((0, 1, 2, 3)), table((0, 1, 2, 3), signal=0.5, noise=2)
    ahead = compare_predictions(ours, theirs, sensitive="sex")
    behind = compare_predictions(theirs, ours, sensitive="sex")
    assert ahead.difference == -behind.difference
    assert ahead.ci == pytest.approx((-behind.ci[1], -behind.ci[0]), abs=0.01)
    assert ahead.p_value < 0.05
    assert behind.p_value < 0.05
    assert behind.levelling_down
    assert not ahead.levelling_down


def test_pairing_narrows_the_interval():
    ours, theirs = table(), table(signal=0.8, noise=2)
    paired = compare_predictions(ours, theirs, sensitive="sex", metric="overall_auc")
    alone = group_metrics_width(ours)
    assert np.ptp(paired.ci) < alone


def group_metrics_width(frame):
    from fairtune_hf.metrics import evaluate_predictions

    return np.ptp(evaluate_predictions(frame[frame.seed == 0], sensitive="sex")["overall_auc_ci"])


def test_different_numbers_of_seeds():
    got = compare_predictions(table((0, 1, 2)), table((7,)), sensitive="sex", n_resamples=50)
    assert got.n_seeds == 1


def test_bad_tables():
    ours = table()
    with pytest.raises(ValueError, match="same rows, labels and groups"):
        compare_predictions(ours, ours[ours.row_id != "r3"], sensitive="sex")
    with pytest.raises(ValueError, match="same rows, labels and groups"):
        compare_predictions(ours, ours.assign(label=1 - ours.label), sensitive="sex")
    with pytest.raises(ValueError, match=r"each row_id once per seed, got 'r0' twice in seed 0"):
        compare_predictions(pd.concat([ours, ours]), ours, sensitive="sex")
    with pytest.raises(ValueError, match="others for seed 1"):
        compare_predictions(ours.drop(index=len(ours) - 1), ours, sensitive="sex")
    with pytest.raises(ValueError, match="Did you mean 'min_auc'"):
        compare_predictions(ours, ours, sensitive="sex", metric="minauc")


def test_p_value_agrees_with_the_interval():
    draws = np.random.default_rng(0).normal(2.0, 1.0, 4000)
    p = bootstrap_p_value(draws)
    assert p == pytest.approx(2 * 0.0228, abs=0.01)
    assert bootstrap_p_value(-draws) == p
    assert np.isnan(bootstrap_p_value(np.array([np.nan])))


@pytest.mark.parametrize(("differences", "worst", "flag"), [
    ({"f": -0.01, "m": -0.05}, "f", True),
    ({"f": 0.01, "m": -0.05}, "f", True),
    ({"f": 0.04, "m": -0.01}, "f", False),
    ({"f": 0.01, "m": 0.02}, "f", False),
    ({"f": -0.01, "m": 0.02}, "f", False),
    ({"f": 0.0, "m": 0.0}, "f", False),
    ({"f": float("nan"), "m": -0.1}, "f", True),
])  # fmt: skip
def test_levelling_down(differences, worst, flag):
    assert is_levelling_down(differences, worst) is flag


def test_several_metrics_on_the_same_resamples():
    ours, theirs = table(), table(signal=0.5, noise=2)
    metrics = ["min_auc", "log_loss", "balanced_accuracy", "auc_f"]
    together = compare_metrics(ours, theirs, sensitive="sex", metrics=metrics, n_resamples=60)
    assert list(together) == metrics
    for metric in ("min_auc", "balanced_accuracy", "auc_f"):
        alone = compare_predictions(ours, theirs, sensitive="sex", metric=metric, n_resamples=60)
        assert together[metric] == alone
    assert np.isnan(together["log_loss"].difference)  # the scores are no probabilities
    assert np.isnan(together["log_loss"].p_value)


def test_one_seed_says_what_is_missing():
    got = compare_predictions(table((0,)), table((0,), noise=2), sensitive="sex", n_resamples=50)
    assert any("Each table has one training seed" in text for text in got.warnings)


def test_seeds_that_differ_widen_the_interval():
    """Three seeds whose signal differs a lot: t with 2 degrees of freedom, by hand."""
    parts = [table((seed,), signal=signal) for seed, signal in ((0, 0.4), (1, 1.0), (2, 1.6))]
    ours, theirs = pd.concat(parts), table((0, 1, 2), noise=2)
    got = compare_predictions(ours, theirs, sensitive="sex", metric="overall_auc")
    points = [
        compare_predictions(
            ours[ours.seed == seed], theirs[theirs.seed == seed], sensitive="sex",
            metric="overall_auc", n_resamples=20,
        ).difference
        for seed in range(3)
    ]  # fmt: skip
    by_hand = 4.303 * np.std(points, ddof=1) / np.sqrt(3)
    assert np.ptp(got.ci) / 2 == pytest.approx(by_hand, rel=0.15)


def test_few_patients_widen_and_one_patient_has_no_interval():
    draws, points = np.random.default_rng(0).normal(size=(1, 4000)), np.array([0.0])
    rng = np.random.default_rng(0)
    plain, few = (combine_seeds(draws, points, rng, n) for n in (np.inf, 10))
    assert np.std(few) / np.std(plain) == pytest.approx(np.sqrt(10 / 9) * 2.2622 / 1.96, rel=1e-3)
    assert np.isnan(combine_seeds(draws, points, rng, 1)).all()
    frame = table((0,), n=60)
    frame.loc[frame.sex == "f", "label"] = 0
    frame.loc[frame[frame.sex == "f"].index[0], "label"] = 1
    got = compare_predictions(frame, frame, sensitive="sex", metric="auc_f", n_resamples=50)
    assert got.difference == 0.0
    assert np.isnan(got.ci).all()
    assert np.isnan(got.p_value)
