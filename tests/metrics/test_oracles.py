"""Point estimates against scikit-learn, fairlearn and counting by hand on random tables."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equalized_odds_difference,
)
from sklearn.metrics import roc_auc_score

from fairtune_hf.metrics import evaluate_predictions, group_metrics
from fairtune_hf.metrics.arrays import GroupCodes
from fairtune_hf.metrics.groups import flat_metrics, measure


def random_table(seed):
    """Labels, scores (with ties in half the tables), groups and weights of a random size."""
    rng = np.random.default_rng(seed)
    n = int(np.exp(rng.uniform(0, np.log(5000))))
    n_groups = int(rng.integers(1, 13))
    labels = (rng.random(n) < rng.uniform(0.05, 0.95)).astype(int)
    scores = rng.random(n) * 0.7 + 0.3 * labels
    if seed % 2:
        scores = np.round(scores, 1)
    groups = rng.choice([f"g{i}" for i in range(n_groups)], size=n)
    weights = rng.random(n) + 0.1 if seed % 3 == 0 else None
    return labels, scores, groups, weights


def pairs_auc(labels, scores, weights):
    """AUC from its definition: the share of (positive, negative) pairs in the right order."""
    weights = np.ones(len(labels)) if weights is None else weights
    p, q = labels == 1, labels == 0
    wins = (scores[p][:, None] > scores[q]) + 0.5 * (scores[p][:, None] == scores[q])
    total = weights[p][:, None] * weights[q]
    return (wins * total).sum() / total.sum() if total.size else math.nan


@pytest.mark.parametrize(
    "block", [0, *(pytest.param(block, marks=pytest.mark.slow) for block in range(1, 10))]
)
def test_a_thousand_random_tables(block):
    n_defined = 0
    for seed in range(block * 100, block * 100 + 100):
        labels, scores, groups, weights = random_table(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = group_metrics(labels, scores, sensitive_features=groups, sample_weight=weights)
        aucs = []
        for name in np.unique(groups):
            inside = groups == name
            part = None if weights is None else weights[inside]
            both = len(set(labels[inside])) == 2
            want = (
                roc_auc_score(labels[inside], scores[inside], sample_weight=part)
                if both
                else math.nan
            )
            aucs.append(want)
            assert got.by_group[name].auc == pytest.approx(want, abs=1e-12, nan_ok=True)
            assert got.by_group[name].n == inside.sum()
            assert got.by_group[name].positives == labels[inside].sum()
        assert got.min_auc == pytest.approx(np.min(aucs), abs=1e-12, nan_ok=True)
        assert got.max_auc == pytest.approx(np.max(aucs), abs=1e-12, nan_ok=True)
        assert got.auc_gap == pytest.approx(np.ptp(aucs), abs=1e-12, nan_ok=True)
        predicted = (scores >= 0.5).astype(int)
        arguments = {"sensitive_features": pd.Series(groups), "sample_weight": weights}
        if len(np.unique(predicted)) == 1:
            assert math.isnan(got.demographic_parity_difference)
            continue
        parity = demographic_parity_difference(labels, predicted, **arguments)
        assert got.demographic_parity_difference == pytest.approx(parity, abs=1e-12)
        if not np.isnan(aucs).any():
            n_defined += 1
            odds = equalized_odds_difference(labels, predicted, **arguments)
            assert got.equalized_odds_difference == pytest.approx(odds, abs=1e-12)
            assert not got.warnings
        if len(labels) < 400:
            assert got.overall_auc == pytest.approx(
                pairs_auc(labels, scores, weights), abs=1e-12, nan_ok=True
            )
    assert n_defined > 30


def defined_table():
    """A table of 2,000 rows whose five groups have both classes."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 2000)
    scores = np.round(rng.random(2000) + 0.3 * labels, 2)
    return labels, scores, rng.choice(list("abcde"), 2000), None


def test_group_aucs_by_metric_frame():
    labels, scores, groups, _ = defined_table()
    assert len(np.unique(groups)) > 2
    frame = MetricFrame(
        metrics=roc_auc_score, y_true=labels, y_pred=scores, sensitive_features=groups
    )
    got = group_metrics(labels, scores, sensitive_features=groups)
    for name, value in frame.by_group.items():
        assert got.by_group[name].auc == pytest.approx(value, abs=1e-12)
    assert got.auc_gap == pytest.approx(frame.difference(), abs=1e-12)


def test_evaluate_predictions_has_the_same_point_estimates():
    labels, scores, groups, _ = defined_table()
    frame = pd.DataFrame(
        {"label": labels, "score": scores, "g": groups, "patient": range(len(labels))}
    )
    want = group_metrics(labels, scores, sensitive_features=groups)
    got = evaluate_predictions(frame, sensitive="g", n_resamples=50)
    for name in ("overall_auc", "min_auc", "max_auc", "auc_gap"):
        assert got[name] == getattr(want, name)
    for name, row in want.by_group.items():
        assert got["groups"][name]["auc"] == row.auc
        low, high = got["groups"][name]["auc_ci"]
        assert low <= row.auc <= high


@pytest.mark.parametrize("seed", range(40))
def test_the_numbers_of_every_epoch_are_those_of_an_evaluation(seed):
    labels, scores, names, weights = random_table(seed)
    codes = np.unique(names, return_inverse=True)[1].astype(np.int64)
    groups = GroupCodes(codes, tuple(np.unique(names)))
    slow, quick = (
        flat_metrics(measure(labels, scores, groups, 0.5, weights, quickly=quickly))
        for quickly in (False, True)
    )
    assert quick.keys() == slow.keys()
    for name, value in slow.items():
        np.testing.assert_allclose(quick[name], value, atol=1e-12, err_msg=name)
