"""Every interval lies in what is possible and holds its estimate, or is not given, with the reason."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fairtune_hf.metrics import (
    auc_half_width,
    bootstrap_interval,
    compare_metrics,
    delong_auc,
    delong_difference,
    evaluate_predictions,
)
from fairtune_hf.metrics.bootstrap import FEWEST_PATIENTS

settings.register_profile("intervals", deadline=None, max_examples=12, derandomize=True)
settings.load_profile("intervals")

SCORE = st.integers(0, 20).map(lambda k: k / 20)
ROW = st.tuples(
    st.integers(0, 1), SCORE, SCORE, SCORE, SCORE, st.sampled_from("ab"), st.integers(0, 40)
)
TABLES = st.lists(ROW, min_size=4, max_size=80)
METRICS = (
    "overall_auc", "min_auc", "max_auc", "auc_gap", "equalized_odds_difference",
    "demographic_parity_difference", "balanced_accuracy", "brier", "ece", "log_loss",
)  # fmt: skip
TOO_FEW = "fewer than five patients"


def tables(rows):
    """Two tables of the same rows, two seeds each."""
    label, *scores, group, patient = (np.array(column) for column in zip(*rows, strict=True))
    base = pd.DataFrame({"label": label, "g": group, "patient": patient})
    base["row_id"] = np.arange(len(rows))
    return [
        pd.concat([base.assign(score=scores[k], seed=k % 2) for k in pair], ignore_index=True)
        for pair in ((0, 1), (2, 3))
    ]


def rarer_class(frame):
    """Patients of the rarer class of each group, counted by pandas."""
    counted = frame.groupby(["g", "label"])["patient"].nunique().unstack(fill_value=0)
    return counted.reindex(columns=[0, 1], fill_value=0).min(axis=1)


@given(TABLES)
def test_differences_lie_in_what_is_possible(rows):
    ours, theirs = tables(rows)
    few = rarer_class(ours).min() < FEWEST_PATIENTS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare_metrics(ours, theirs, sensitive="g", metrics=METRICS, n_resamples=40)
    for metric, result in found.items():
        low, high = result.ci
        assert math.isnan(low) == math.isnan(high) == math.isnan(result.p_value), metric
        if math.isnan(low):
            continue
        assert low <= result.difference <= high, metric
        if metric != "log_loss":
            assert -1 <= low <= high <= 1, metric
        assert not (few and metric in METRICS[1:6]), metric
    assert any(TOO_FEW in text for text in found["min_auc"].warnings) == few


@given(TABLES, st.sampled_from(["percentile", "bca"]))
def test_the_intervals_of_a_table_hold_their_estimates(rows, interval):
    table = tables(rows)[0]
    table = table[table["seed"] == 0].drop(columns="seed")
    got = evaluate_predictions(table, sensitive="g", n_resamples=40, interval=interval)
    pairs = [(got[name], got[f"{name}_ci"]) for name in METRICS[:2] + METRICS[3:6]]
    pairs += [(row["auc"], row["auc_ci"]) for row in got["groups"].values()]
    for value, ci in pairs:
        assert ci is None or 0 <= ci[0] <= value <= ci[1] <= 1
    for name, patients in rarer_class(table).items():
        if patients < FEWEST_PATIENTS:
            assert got["groups"][name]["auc_ci"] is None
            assert any(f"Group '{name}'" in t and TOO_FEW in t for t in got["warnings"])
            for key in ("min_auc", "auc_gap", "equalized_odds_difference"):
                assert got[f"{key}_ci"] is None


@given(st.lists(st.tuples(st.integers(0, 1), SCORE, SCORE), min_size=2, max_size=60))
def test_delong_lies_in_what_is_possible(rows):
    label, first, second = (np.array(column) for column in zip(*rows, strict=True))
    if label.min() == label.max():
        return
    few = min(label.sum(), (1 - label).sum()) < FEWEST_PATIENTS
    one, pair = delong_auc(label, first), delong_difference(label, first, second)
    assert one.value == pytest.approx(roc_auc_score(label, first))
    for found, least in ((one, 0.0), (pair, -1.0)):
        low, high = found.ci
        assert math.isnan(low) or least - 1e-12 <= low <= found.value <= high <= 1 + 1e-12
        assert not few or math.isnan(low)


def test_three_patients_of_a_class_in_two_groups_give_no_difference_of_minima():
    """The draws of such groups, widened by Student's t, once reached from -1.5 to +2.8."""
    rng = np.random.default_rng(0)
    n = 200
    group = np.repeat(["a", "b", "c"], [170, 20, 10])
    label = np.concatenate([np.arange(170) % 3 == 0, np.arange(20) < 4, np.arange(10) < 4])
    base = pd.DataFrame({"label": label.astype(int), "g": group, "patient": np.arange(n) // 2})
    ours, theirs = (base.assign(score=rng.random(n)) for _ in range(2))
    found = compare_metrics(
        ours, theirs, sensitive="g", metrics=["overall_auc", "min_auc", "auc_gap", "auc_a", "auc_c"]
    )
    assert [math.isnan(found[m].ci[0]) for m in found] == [False, True, True, False, True]
    assert math.isnan(found["min_auc"].p_value)
    assert not math.isnan(found["min_auc"].difference)
    told = [text for text in found["min_auc"].warnings if TOO_FEW in text]
    assert [text.split("'")[1] for text in told] == ["b", "c"]


@pytest.mark.parametrize(("patients", "given_"), [(4, False), (5, True)])
def test_five_patients_of_the_rarer_class_are_enough(patients, given_):
    label = np.array([1] * patients + [0] * 20)
    frame = pd.DataFrame({
        "label": label, "score": np.random.default_rng(1).random(label.size), "g": "a",
        "patient": np.arange(label.size),
    })  # fmt: skip
    got = evaluate_predictions(frame, sensitive="g", n_resamples=50)
    assert (got["overall_auc_ci"] is not None) is given_
    assert any("The table has fewer than five" in t for t in got["warnings"]) is not given_


def test_an_interval_is_brought_back_to_its_bounds_and_out_to_its_estimate():
    draws = np.linspace(-3, 3, 101)
    assert bootstrap_interval(draws, bounds=(-1.0, 1.0)) == (-1.0, 1.0)
    low, high = bootstrap_interval(np.linspace(0.4, 0.6, 101), estimate=0.2)
    assert low == 0.2
    assert high == pytest.approx(0.595)
    assert auc_half_width(1, 1) == 0.5


def test_scores_that_rank_upside_down_are_said():
    label = np.arange(80) % 2
    score = 0.8 - 0.5 * label + np.random.default_rng(0).normal(0, 0.1, 80)
    frame = pd.DataFrame({"label": label, "score": score, "g": np.repeat(["a", "b"], 40)})
    for sign, said in ((1, True), (-1, False)):
        got = evaluate_predictions(frame.assign(score=sign * score), sensitive="g", n_resamples=50)
        assert any("rank upside down" in text for text in got["warnings"]) is said
