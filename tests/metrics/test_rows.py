"""The metrics of one set of rows against scikit-learn; operating points; calibration; flags."""

import math

import numpy as np
import pytest
from fairlearn.metrics import equal_opportunity_difference
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from fairtune_hf.metrics import (
    choose_operating_point,
    collapse_flag,
    group_metrics,
    holm_p_values,
    reliability_curve,
)
from fairtune_hf.metrics.checks import GroupCodes
from fairtune_hf.metrics.groups import measure


def describe(labels, scores, threshold, weights=None):
    """The numbers of a group that is the whole table, beside one without rows."""
    groups = GroupCodes(np.zeros(len(labels), dtype=np.int64), ("all", "nobody"))
    found = measure(labels, scores, groups, threshold, weights)
    assert repr(found.overall) == repr(found.by_group["all"])
    return found.by_group["all"], found.by_group["nobody"]


def rows(seed, weighted):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(30, 400))
    labels = (rng.random(n) < 0.4).astype(np.int64)
    scores = np.clip(np.round(rng.random(n) * 0.8 + 0.2 * labels, 2), 0, 1)
    return labels, scores, rng.random(n) + 0.1 if weighted else None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_rows_equal_scikit_learn(seed, weighted):
    labels, scores, w = rows(seed, weighted)
    hit = (scores >= 0.45).astype(int)
    got, _ = describe(labels, scores, 0.45, w)
    want = {
        "auc": sk.roc_auc_score(labels, scores, sample_weight=w),
        "average_precision": sk.average_precision_score(labels, scores, sample_weight=w),
        "accuracy": sk.accuracy_score(labels, hit, sample_weight=w),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, hit, sample_weight=w),
        "sensitivity": sk.recall_score(labels, hit, sample_weight=w),
        "specificity": sk.recall_score(labels, hit, pos_label=0, sample_weight=w),
        "ppv": sk.precision_score(labels, hit, sample_weight=w),
        "negative_predictive_value": sk.precision_score(labels, hit, pos_label=0, sample_weight=w),
        "fnr": 1 - sk.recall_score(labels, hit, sample_weight=w),
        "fpr": 1 - sk.recall_score(labels, hit, pos_label=0, sample_weight=w),
        "selection_rate": np.average(hit, weights=w),
        "log_loss": sk.log_loss(labels, scores, sample_weight=w),
        "brier": sk.brier_score_loss(labels, scores, sample_weight=w),
    }
    for name, value in want.items():
        assert getattr(got, name) == pytest.approx(value, abs=1e-12), name


def test_what_is_undefined_in_rows():
    negatives, nothing = describe(np.array([0, 0]), np.array([0.1, 0.2]), 0.5)
    undefined = {"auc", "average_precision", "balanced_accuracy", "sensitivity", "ppv", "fnr"}
    for name, value in vars(negatives).items():
        assert math.isnan(value) == (name in undefined), name
    assert nothing.n == nothing.positives == 0
    assert all(math.isnan(value) for value in list(vars(nothing).values())[2:])
    logits, _ = describe(np.array([0, 1]), np.array([-3.0, 2.0]), 0.5)
    assert math.isnan(logits.log_loss)
    assert math.isnan(logits.ece)
    assert logits.auc == 1.0


def test_summary_metrics_by_another_route():
    rng = np.random.default_rng(1)
    labels, groups = rng.integers(0, 2, 500), rng.choice(list("abc"), 500)
    scores = rng.random(500)
    got = group_metrics(labels, scores, sensitive_features=groups)
    hit = (scores >= 0.5).astype(int)
    want = equal_opportunity_difference(labels, hit, sensitive_features=groups)
    assert got.equal_opportunity_difference == pytest.approx(want, abs=1e-12)
    losses = [sk.log_loss(labels[groups == g], scores[groups == g]) for g in "abc"]
    assert got.max_group_loss == pytest.approx(max(losses), abs=1e-12)
    aucs = [sk.roc_auc_score(labels[groups == g], scores[groups == g]) for g in "abc"]
    overall = sk.roc_auc_score(labels, scores)
    scaled = overall / (1 + sum(abs(auc - overall) for auc in aucs))
    assert got.equity_scaled_auc == pytest.approx(scaled, abs=1e-12)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("seed", range(4))
def test_reliability_equals_scikit_learn(seed, strategy):
    labels, scores, _ = rows(seed, False)
    got = reliability_curve(labels, scores, n_bins=7, strategy=strategy)
    observed, mean = calibration_curve(labels, scores, n_bins=7, strategy=strategy)
    assert got.observed == pytest.approx(observed)
    assert got.mean_score == pytest.approx(mean)
    assert sum(got.share) == pytest.approx(1.0)


def test_calibration_error_by_hand():
    # Two bins: scores .1 (1 of 4 positive) and .9 (2 of 4 positive): gaps .15 and .4.
    labels, scores = [1, 0, 0, 0, 1, 1, 0, 0], [0.1] * 4 + [0.9] * 4
    curve = reliability_curve(labels, scores, n_bins=2)
    assert curve.expected_calibration_error == pytest.approx((0.15 + 0.4) / 2)
    with pytest.raises(ValueError, match="probabilities in"):
        reliability_curve([0, 1], [0.1, 1.2])
    with pytest.raises(ValueError, match="at least 1 bin"):
        reliability_curve([0, 1], [0.1, 0.2], n_bins=0)


@pytest.mark.parametrize("seed", range(5))
def test_operating_points_by_trying_every_threshold(seed):
    labels, scores, _ = rows(seed, False)
    candidates = [*np.unique(scores), np.nextafter(scores.max(), np.inf)]
    rates = {
        t: ((scores[labels == 1] >= t).mean(), (scores[labels == 0] < t).mean()) for t in candidates
    }
    got = choose_operating_point(labels, scores, rule="youden")
    assert sum(rates[got.threshold]) == pytest.approx(max(map(sum, rates.values())))
    assert (got.sensitivity, got.specificity) == rates[got.threshold]
    got = choose_operating_point(labels, scores, rule="sensitivity", target=0.8)
    assert got.threshold == max(t for t in candidates if rates[t][0] >= 0.8)
    got = choose_operating_point(labels, scores, rule="specificity", target=0.9)
    assert got.threshold == min(t for t in candidates if rates[t][1] >= 0.9)
    got = choose_operating_point(labels, scores, rule="specificity", target=1.0)
    assert got.specificity == 1.0
    assert math.isfinite(got.threshold)


def test_fixed_point_and_bad_input():
    got = choose_operating_point([0, 1], [0.2, 0.6], rule="fixed")
    assert (got.threshold, got.sensitivity, got.specificity) == (0.5, 1.0, 1.0)
    assert choose_operating_point([0, 1], [0.2, 0.6], rule="fixed", target=0.0).threshold == 0.0
    with pytest.raises(ValueError, match="both classes, got 0 positive of 2"):
        choose_operating_point([0, 0], [0.2, 0.6])
    with pytest.raises(ValueError, match="sensitivity to reach"):
        choose_operating_point([0, 1], [0.2, 0.6], rule="sensitivity")
    with pytest.raises(ValueError, match="expected None for rule 'youden'"):
        choose_operating_point([0, 1], [0.2, 0.6], target=0.3)


def test_collapse():
    noise = np.random.default_rng(0).random(400)
    nearly = collapse_flag(0.9, (0.8, 0.95), 0.3 + 1e-5 * noise)
    assert nearly.collapsed
    assert "98 %" in nearly.reason
    assert collapse_flag(0.5, (0.5, 0.5), np.full(400, 0.2)).reason == "the scores are constant"
    assert collapse_flag(0.549, (0.52, 0.57), noise).collapsed
    assert collapse_flag(0.55, (0.52, 0.57), noise) is None
    assert collapse_flag(None) is None
    assert collapse_flag(float("nan"), None, noise) is None


def test_a_wide_interval_is_no_collapse():
    flag = collapse_flag(0.66, (0.446, 0.828), np.random.default_rng(0).random(40))
    assert not flag.collapsed
    assert flag.reason == "AUC 0.660, 0.446 to 0.828"


def test_holm_by_hand():
    got = holm_p_values({"a": 0.02, "b": 0.01, "c": math.nan, "d": 0.5})
    assert got["b"] == pytest.approx(0.03)
    assert got["a"] == pytest.approx(0.04)
    assert got["d"] == pytest.approx(0.5)
    assert math.isnan(got["c"])
    assert holm_p_values({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    with pytest.raises(ValueError, match=r"got 1\.5 for 'a'"):
        holm_p_values({"a": 1.5})
