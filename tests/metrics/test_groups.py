"""What is undefined, odd or wrong in the input of the group metrics."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import UndefinedMetricWarning

from fairtune_hf.metrics import auc_half_width, evaluate_predictions, group_metrics

LABELS, SCORES = [0, 1, 0, 1, 0, 0], [0.1, 0.9, 0.4, 0.6, 0.7, 0.2]
GROUPS = ["f", "f", "m", "m", "x", "x"]


def test_one_class_group_is_nan_with_its_name_and_counts():
    with pytest.warns(UndefinedMetricWarning, match=r"Group 'x' has 0 positive and 2 negative"):
        got = group_metrics(LABELS, SCORES, sensitive_features=GROUPS)
    assert math.isnan(got.by_group["x"].auc)
    assert math.isnan(got.min_auc)
    assert math.isnan(got.equalized_odds_difference)
    assert got.demographic_parity_difference == 0.0
    assert got.overall_auc == pytest.approx(7 / 8)


def test_min_over_defined_groups_only_if_asked():
    with pytest.warns(UndefinedMetricWarning):
        got = group_metrics(LABELS, SCORES, sensitive_features=GROUPS, over_defined=True)
    assert (got.min_auc, got.max_auc, got.auc_gap) == (1.0, 1.0, 0.0)


def test_errors_raise():
    with pytest.raises(ValueError, match=r"Group 'x' has 0 positive and 2 negative.*coerce"):
        group_metrics(LABELS, SCORES, sensitive_features=GROUPS, errors="raise")
    with pytest.raises(ValueError, match=r"Did you mean 'raise'"):
        group_metrics(LABELS, SCORES, sensitive_features=GROUPS, errors="rais")


def test_one_row():
    with pytest.warns(UndefinedMetricWarning):
        got = group_metrics([1], [0.3], sensitive_features=["f"])
    assert math.isnan(got.overall_auc)
    assert math.isnan(got.demographic_parity_difference)


def test_constant_scores_are_chance():
    with pytest.warns(UndefinedMetricWarning, match="Every score reaches the threshold 0.5"):
        got = group_metrics([0, 1, 0, 1], [0.5] * 4, sensitive_features=["f", "f", "m", "m"])
    assert (got.overall_auc, got.min_auc, got.auc_gap) == (0.5, 0.5, 0.0)
    assert math.isnan(got.equalized_odds_difference)


def test_a_score_at_the_threshold_is_positive():
    got = group_metrics([0, 1, 0, 1], [0.5, 0.5, 0.4, 0.4], sensitive_features=list("ffmm"))
    assert got.demographic_parity_difference == 1.0


@pytest.mark.parametrize(
    ("labels", "scores", "groups", "error", "match"),
    [
        ([], [], [], ValueError, "at least one row"),
        ([0, 2], [0.1, 0.2], ["f", "f"], ValueError, r"labels 0 and 1, got 2"),
        ([0, 1], [0.1, math.nan], ["f", "f"], ValueError, r"1 NaN or infinite of 2"),
        ([0, 1], [0.1, math.inf], ["f", "f"], ValueError, "finite"),
        ([0, 1], ["0.1", "0.2"], ["f", "f"], TypeError, r"y_score: expected numbers, got '0.1'"),
        (["a", "b"], [0.1, 0.2], ["f", "f"], TypeError, "y_true: expected numbers"),
        ([0, 1], [0.1], ["f", "f"], ValueError, r"y_score: expected 2 rows"),
        ([0, 1], [0.1, 0.2], ["f"], ValueError, r"sensitive_features: expected 2 rows"),
        ([0, 1], [0.1, 0.2], ["f", None], ValueError, r"1 of 2 without one"),
        ([0, 1], [0.1, 0.2], ["f", ""], ValueError, r"1 of 2 without one"),
        ([0, 1], [[0.1, 0.9], [0.2, 0.8]], ["f", "f"], ValueError, "class 1"),
    ],
)
def test_bad_input(labels, scores, groups, error, match):
    with pytest.raises(error, match=match):
        group_metrics(labels, scores, sensitive_features=groups)


@pytest.mark.parametrize(
    "columns",
    [
        {"age": ["old", "young", "old", "young"], "sex": list("ffmm")},
        pd.DataFrame({"age": ["old", "young", "old", "young"], "sex": list("ffmm")}),
        np.array([["old", "f"], ["young", "f"], ["old", "m"], ["young", "m"]]),
    ],
)
def test_intersectional_groups(columns):
    with pytest.warns(UndefinedMetricWarning):
        got = group_metrics([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], sensitive_features=columns)
    assert list(got.by_group) == ["old+f", "old+m", "young+f", "young+m"]


def test_numeric_groups_are_ordered_as_numbers():
    with pytest.warns(UndefinedMetricWarning):
        got = group_metrics([0, 1, 0], [0.1, 0.2, 0.3], sensitive_features=np.array([10, 2, 1]))
    assert list(got.by_group) == ["1", "2", "10"]


def table(n=400, seed=0, **columns):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(int)
    frame = {
        "label": labels,
        "score": rng.random(n) + 0.4 * labels,
        "sex": rng.choice(["f", "m"], n),
        "patient": rng.integers(0, n // 2, n),
    }
    return pd.DataFrame(frame | columns)


def test_block_keys_and_json():
    import json

    got = evaluate_predictions(table(), sensitive="sex", n_resamples=300)
    assert list(got) == [
        "overall_auc", "overall_auc_ci", "min_auc", "min_auc_ci", "max_auc", "auc_gap",
        "auc_gap_ci", "equalized_odds_difference", "equalized_odds_difference_ci",
            "demographic_parity_difference", "demographic_parity_difference_ci",
        "negative_predictive_value", "negative_predictive_value_ci", "threshold",
        "groups", "warnings",
    ]  # fmt: skip
    assert list(got["groups"]["f"]) == ["n", "positives", "auc", "auc_ci"]
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    low, high = got["overall_auc_ci"]
    assert low < got["overall_auc"] < high
    assert got == evaluate_predictions(table(), sensitive="sex", n_resamples=300)
    assert got != evaluate_predictions(table(), sensitive="sex", n_resamples=300, seed=1)


def test_undefined_in_the_block_is_null_with_a_warning():
    frame = table()
    frame.loc[:4, "sex"] = "x"
    frame.loc[:4, "label"] = 0
    got = evaluate_predictions(frame, sensitive="sex", n_resamples=50)
    assert got["groups"]["x"] == {"n": 5, "positives": 0, "auc": None, "auc_ci": None}
    assert got["min_auc"] is None
    assert got["min_auc_ci"] is None
    assert got["overall_auc"] is not None
    assert any("'x' has 0 positive and 5 negative" in text for text in got["warnings"])
    with pytest.raises(ValueError, match="'x' has 0 positive and 5 negative"):
        evaluate_predictions(frame, sensitive="sex", n_resamples=50, errors="raise")


def test_block_says_what_was_left_out():
    frame = table()
    frame.loc[:9, "sex"] = ""
    got = evaluate_predictions(frame.drop(columns="patient"), sensitive="sex", n_resamples=50)
    assert any("10 of 400 rows have no sex" in text for text in got["warnings"])
    assert any("no patient column" in text for text in got["warnings"])
    assert sum(group["n"] for group in got["groups"].values()) == 390


def test_block_refuses_several_seeds_and_missing_columns():
    with pytest.raises(ValueError, match="rows of one seed, got 0, 1"):
        evaluate_predictions(table().assign(seed=np.arange(400) % 2), sensitive="sex")
    with pytest.raises(ValueError, match=r"label, score and age.*age missing"):
        evaluate_predictions(table(), sensitive="age")
    with pytest.raises(ValueError, match="n_resamples"):
        evaluate_predictions(table(), sensitive="sex", n_resamples=0)


def test_clustering_widens_the_interval():
    one = table(300)
    copies = pd.concat([one.assign(patient=range(300))] * 4, ignore_index=True)
    alone = evaluate_predictions(copies.drop(columns="patient"), sensitive="sex")
    whole = evaluate_predictions(copies, sensitive="sex")
    ratio = np.ptp(whole["overall_auc_ci"]) / np.ptp(alone["overall_auc_ci"])
    assert 1.8 < ratio < 2.2  # four copies of each row: half the standard error if taken as alone


def test_few_patients_are_counted_as_patients_in_what_is_expected():
    one = table(30)
    copies = pd.concat([one.assign(patient=range(30))] * 50, ignore_index=True)
    alone = evaluate_predictions(one.assign(patient=range(30)), sensitive="sex", n_resamples=100)
    whole = evaluate_predictions(copies, sensitive="sex", n_resamples=100)
    expected = [w for w in alone["warnings"] if "fewer than" in w]
    assert expected == [w for w in whole["warnings"] if "fewer than" in w] != []
    assert "±0." in expected[0]


def test_planning_half_width():
    assert auc_half_width(25, 100) == pytest.approx(0.11, abs=0.005)
    assert auc_half_width(100, 400) == pytest.approx(auc_half_width(25, 100) / 2, rel=0.02)
    with pytest.raises(ValueError, match="got 0 and 5"):
        auc_half_width(0, 5)
    with pytest.raises(ValueError, match="Divide percent by 100"):
        auc_half_width(5, 5, auc=80)
