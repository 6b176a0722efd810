"""Point estimates against scikit-learn, fairlearn and counting by hand on random tables."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equalized_odds_difference,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.metrics import roc_auc_score

from fairtune_hf.metrics import ComputeMetrics, evaluate_predictions, group_metrics
from fairtune_hf.metrics.checks import GroupCodes
from fairtune_hf.metrics.groups import flat_metrics, measure
from fairtune_hf.metrics.trainer_metrics import positive_probability


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


@pytest.mark.parametrize("seed", range(20))
def test_the_numbers_of_every_epoch_are_those_of_an_evaluation(seed):
    labels, scores, names, _ = random_table(seed)
    groups = GroupCodes(*np.unique(names, return_inverse=True)[::-1])
    scores = np.clip(scores, 1e-6, 1 - 1e-6)
    logits = np.column_stack([np.zeros(len(labels)), np.log(scores / (1 - scores))])
    evaluated = SimpleNamespace(predictions=logits, label_ids=(labels, groups.codes))
    want = measure(labels, positive_probability(logits), groups, 0.5)
    if want.warnings:
        with pytest.raises(ValueError, match="need both classes"):
            ComputeMetrics(groups.names)(evaluated)
        return
    got = ComputeMetrics(groups.names)(evaluated)
    np.testing.assert_equal(got, flat_metrics(want))
    frame = pd.DataFrame({"label": labels, "score": positive_probability(logits), "g": names})
    block = evaluate_predictions(frame, sensitive="g", n_resamples=10)
    for name in ("overall_auc", "min_auc", "auc_gap", "demographic_parity_difference"):
        assert block[name] == (None if math.isnan(got[name]) else got[name])


CELL = st.tuples(
    st.integers(0, 1), st.integers(0, 6), st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0, 2.5])
)


@settings(max_examples=25, deadline=None)
@given(st.lists(CELL, min_size=1, max_size=40), st.sampled_from([0.5, 1 / 3, 0.0, 1.1, None]))
def test_weighted_tables_with_ties_and_empty_groups(cells, threshold):
    """Few scores and groups, so that ties, groups of one class and groups without weight are common."""
    label, level, code, weight = (np.array(column) for column in zip(*cells, strict=True))
    if not weight.any():
        weight = weight + 1.0
    score = level / 6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = group_metrics(
            label, score, sensitive_features=code, threshold=threshold, sample_weight=weight
        )
        want = oracle(label, score, code, weight, threshold)
    for name, value in want.items():
        assert got.value(name) == pytest.approx(value, abs=1e-12, nan_ok=True), name
    for name in np.unique(code):
        part = oracle_rows(*(column[code == name] for column in (label, score, weight)), threshold)
        for metric, value in part.items():
            found = getattr(got.by_group[str(name)], metric)
            assert found == pytest.approx(value, abs=1e-12, nan_ok=True), (name, metric)


def oracle(label, score, code, weight, threshold):
    """What scikit-learn's numbers of each group give, undefined where the documentation says so."""
    rows = oracle_rows(label, score, weight, threshold)
    rows["overall_auc"] = rows.pop("auc")
    parts = [
        oracle_rows(*(column[code == name] for column in (label, score, weight)), threshold)
        for name in np.unique(code)
    ]
    aucs = [part["auc"] for part in parts]
    rows |= {"min_auc": np.min(aucs), "max_auc": np.max(aucs), "auc_gap": np.ptp(aucs)}
    rows["max_group_loss"] = np.max([part["log_loss"] for part in parts])
    hit = score >= (threshold or 0.0)
    rates = {
        name: [part[name] for part in parts] for name in ("sensitivity", "fpr", "selection_rate")
    }
    odds = (
        math.nan
        if np.isnan(aucs).any()
        else max(np.ptp(rates["sensitivity"]), np.ptp(rates["fpr"]))
    )
    known = [rate for rate in rates["selection_rate"] if not math.isnan(rate)]
    one_sided = threshold is None or len(np.unique(hit[weight > 0])) < 2
    return rows | {
        "equalized_odds_difference": math.nan if one_sided else odds,
        "demographic_parity_difference": math.nan if one_sided else np.ptp(known),
        "equal_opportunity_difference": math.nan if one_sided else np.ptp(rates["sensitivity"]),
    }


def oracle_rows(label, score, weight, threshold):
    """scikit-learn's numbers of the rows that weigh something; NaN where it has none."""
    label, score, weight = (column[weight > 0] for column in (label, score, weight))
    hit = (score >= (threshold or 0.0)).astype(int)
    names = "auc average_precision accuracy sensitivity fpr ppv selection_rate log_loss brier"
    found = dict.fromkeys(names.split(), math.nan)
    if not label.size:
        return found
    w = {"sample_weight": weight}
    if label.any():
        found["average_precision"] = sk.average_precision_score(label, score, **w)
    if 0 < label.sum() < label.size:
        found["auc"] = roc_auc_score(label, score, **w)
    found["log_loss"] = sk.log_loss(label, score, labels=[0, 1], **w)
    found["brier"] = sk.brier_score_loss(label, score, labels=[0, 1], **w)
    if threshold is not None:
        undefined = {"zero_division": np.nan}
        found["accuracy"] = sk.accuracy_score(label, hit, **w)
        found["sensitivity"] = sk.recall_score(label, hit, **w, **undefined)
        found["fpr"] = 1 - sk.recall_score(label, hit, pos_label=0, **w, **undefined)
        found["ppv"] = sk.precision_score(label, hit, **w, **undefined)
        found["selection_rate"] = np.average(hit, weights=weight)
    return found
