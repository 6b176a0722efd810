"""What must hold of any table: hypothesis looks for one where it does not."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairtune_hf.metrics import evaluate_predictions, group_metrics
from fairtune_hf.metrics.checks import group_codes
from fairtune_hf.metrics.groups import GroupMetrics
from fairtune_hf.metrics.resampling import ResampledAuc, draw_counts, patient_design

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
settings.register_profile("metrics", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("metrics")

ROW = st.tuples(
    st.integers(0, 1),
    st.integers(0, 20).map(lambda k: k / 20),
    st.sampled_from("abc"),
    st.integers(0, 8),
)
TABLES = st.lists(ROW, min_size=1, max_size=60)
SUMMARY = (
    "overall_auc", "min_auc", "max_auc", "auc_gap", "equalized_odds_difference",
    "demographic_parity_difference", "equal_opportunity_difference", "equity_scaled_auc",
    "max_group_loss",
)  # fmt: skip


def columns(rows):
    labels, scores, groups, patients = zip(*rows, strict=True)
    return np.array(labels), np.array(scores), np.array(groups), np.array(patients)


def same(first: GroupMetrics, second: GroupMetrics, names=SUMMARY):
    for name in names:
        assert getattr(first, name) == pytest.approx(
            getattr(second, name), abs=1e-12, nan_ok=True
        ), name


@pytest.mark.slow
@given(TABLES, st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(rows, random):
    labels, scores, groups, _ = columns(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    first = group_metrics(labels, scores, sensitive_features=groups)
    second = group_metrics(labels[order], scores[order], sensitive_features=groups[order])
    same(first, second)
    assert first.warnings == second.warnings


@given(TABLES)
def test_names_of_groups_do_not_matter(rows):
    labels, scores, groups, _ = columns(rows)
    renamed = np.array([{"a": "z", "b": "y", "c": "x"}[name] for name in groups])
    first = group_metrics(labels, scores, sensitive_features=groups)
    second = group_metrics(labels, scores, sensitive_features=renamed)
    same(first, second)
    if "a" in groups:
        assert first.by_group["a"].n == second.by_group["z"].n
        assert first.by_group["a"].auc == pytest.approx(second.by_group["z"].auc, nan_ok=True)


@given(TABLES, st.sampled_from([lambda s: 3 * s - 7, np.exp, lambda s: s**3, np.arctan]))
def test_rising_transforms_leave_aucs(rows, transform):
    labels, scores, groups, _ = columns(rows)
    first = group_metrics(labels, scores, sensitive_features=groups)
    second = group_metrics(labels, transform(scores), sensitive_features=groups)
    same(first, second, ("overall_auc", "min_auc", "max_auc", "auc_gap", "equity_scaled_auc"))


@pytest.mark.slow
@given(TABLES)
def test_swapping_classes_and_order_leaves_aucs(rows):
    labels, scores, groups, _ = columns(rows)
    first = group_metrics(labels, scores, sensitive_features=groups)
    same(
        first,
        group_metrics(1 - labels, -scores, sensitive_features=groups),
        ("overall_auc", "min_auc", "max_auc", "auc_gap"),
    )
    turned = group_metrics(labels, -scores, sensitive_features=groups)
    assert turned.overall_auc == pytest.approx(1 - first.overall_auc, nan_ok=True)
    assert turned.auc_gap == pytest.approx(first.auc_gap, abs=1e-12, nan_ok=True)


@pytest.mark.slow
@given(TABLES)
def test_bounds(rows):
    labels, scores, groups, _ = columns(rows)
    found = group_metrics(labels, scores, sensitive_features=groups)
    for name in SUMMARY:
        value = getattr(found, name)
        assert math.isnan(value) or value >= -1e-12, name
        assert math.isnan(value) or value <= 1 + 1e-12 or name == "max_group_loss", name
    if not math.isnan(found.min_auc):
        assert found.min_auc <= found.max_auc
        assert not found.equal_opportunity_difference > found.equalized_odds_difference + 1e-12
        assert found.equity_scaled_auc <= found.overall_auc + 1e-12
    if len(found.by_group) == 1 and 0 < found.overall.selection_rate < 1:
        assert found.demographic_parity_difference == 0.0
    assert sum(row.n for row in found.by_group.values()) == len(rows)


@pytest.mark.slow
@given(TABLES, st.integers(2, 4))
def test_weights_are_repetitions(rows, times):
    labels, scores, groups, _ = columns(rows)
    weights = 1 + np.arange(len(rows)) % times
    repeat = np.repeat(np.arange(len(rows)), weights)
    first = group_metrics(labels, scores, sensitive_features=groups, sample_weight=weights)
    second = group_metrics(labels[repeat], scores[repeat], sensitive_features=groups[repeat])
    same(first, second)
    for name, row in first.by_group.items():
        for metric in ("accuracy", "ppv", "average_precision", "brier", "ece", "log_loss"):
            want = getattr(second.by_group[name], metric)
            assert getattr(row, metric) == pytest.approx(want, abs=1e-12, nan_ok=True)


@given(TABLES)
def test_rows_of_weight_0_are_not_there(rows):
    labels, scores, groups, _ = columns(rows)
    weights = np.arange(len(rows)) % 2
    if len(rows) < 2 or len(np.unique(groups[1::2])) < len(np.unique(groups)):
        return
    first = group_metrics(labels, scores, sensitive_features=groups, sample_weight=weights)
    same(first, group_metrics(labels[1::2], scores[1::2], sensitive_features=groups[1::2]))


@pytest.mark.slow
@given(TABLES, st.integers(0, 5))
def test_a_resample_is_a_weighted_table(rows, seed):
    labels, scores, groups, patients = columns(rows)
    design = patient_design(labels, group_codes(groups, len(rows)), patients)
    counts = next(draw_counts(design, 3, np.random.default_rng(seed)))
    got = ResampledAuc(labels, scores, design.clusters)(counts)
    for column in range(3):
        weights = counts[column, design.clusters]
        kept = weights > 0
        found = group_metrics(
            labels[kept], scores[kept], sensitive_features=groups[kept], sample_weight=weights[kept]
        )
        assert got[column] == pytest.approx(found.overall_auc, abs=1e-12, nan_ok=True)


@given(TABLES)
@settings(max_examples=25)
def test_the_block_of_any_table_is_sound(rows):
    labels, scores, groups, patients = columns(rows)
    frame = pd.DataFrame({"label": labels, "score": scores, "g": groups, "patient": patients})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for interval in ("percentile", "bca"):
            got = evaluate_predictions(frame, sensitive="g", n_resamples=40, interval=interval)
            for value, ci in ((got["overall_auc"], got["overall_auc_ci"]),
                              (got["min_auc"], got["min_auc_ci"]),
                              (got["auc_gap"], got["auc_gap_ci"])):  # fmt: skip
                assert value is not None or ci is None
                assert ci is None or 0 <= ci[0] <= ci[1] <= 1
