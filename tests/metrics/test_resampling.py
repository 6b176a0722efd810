"""The vectorised resampling against a plain loop with scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from sklearn.metrics import roc_auc_score

from fairtune_hf.metrics import evaluate_predictions, group_metrics
from fairtune_hf.metrics.bootstrap import bootstrap_interval
from fairtune_hf.metrics.checks import group_codes
from fairtune_hf.metrics.registry import METRICS, statistic
from fairtune_hf.metrics.resampled_table import ResampledTable
from fairtune_hf.metrics.resampling import (
    CHUNK,
    ResampledAuc,
    draw_counts,
    patient_design,
)


@pytest.fixture
def table():
    rng = np.random.default_rng(3)
    labels = (rng.random(300) < 0.3).astype(np.int64)
    scores = np.round(rng.random(300) + 0.3 * labels, 1)
    patients = rng.integers(0, 90, 300)
    groups = group_codes(rng.choice(["a", "b", "c"], 300), 300)
    return labels, scores, patients, groups


def all_counts(design, n, seed=0):
    return np.concatenate(list(draw_counts(design, n, np.random.default_rng(seed))))


def test_auc_of_resamples_equals_scikit_learn_on_repeated_rows(table):
    labels, scores, patients, groups = table
    design = patient_design(labels, groups, patients)
    counts = all_counts(design, 40)
    got = ResampledAuc(labels, scores, design.clusters)(counts)
    for column in range(40):
        rows = np.repeat(np.arange(300), counts[column, design.clusters].astype(int))
        assert got[column] == pytest.approx(roc_auc_score(labels[rows], scores[rows]), abs=1e-12)


@pytest.mark.parametrize("metric", [*METRICS, "auc_b"])
def test_each_metric_of_resamples_equals_the_metric_of_repeated_rows(table, metric):
    labels, scores, patients, groups = table
    scores = scores / scores.max()
    design = patient_design(labels, groups, patients)
    counts = all_counts(design, 5)
    prepared = ResampledTable(labels, scores, groups, design, 0.4)
    got = statistic(metric, groups)(prepared, counts)
    assert got.shape == (5,)
    for column in range(5):
        rows = np.repeat(np.arange(300), counts[column, design.clusters].astype(int))
        names = np.array(groups.names)[groups.codes[rows]]
        found = group_metrics(labels[rows], scores[rows], sensitive_features=names, threshold=0.4)
        assert got[column] == pytest.approx(found.value(metric), abs=1e-12)


def test_losses_of_scores_that_are_no_probabilities_are_undefined(table):
    labels, scores, patients, groups = table
    design = patient_design(labels, groups, patients)
    prepared = ResampledTable(labels, scores, groups, design, 0.4)
    for metric in ("log_loss", "brier", "ece", "max_group_loss"):
        assert np.isnan(METRICS[metric](prepared, all_counts(design, 3))).all()


def test_patients_stay_whole_and_strata_keep_their_size(table):
    labels, _, patients, groups = table
    design = patient_design(labels, groups, patients)
    assert design.n_clusters == len(np.unique(patients))
    for patient in np.unique(patients):
        assert len(np.unique(design.clusters[patients == patient])) == 1
    counts = all_counts(design, 100)
    for stratum in np.unique(design.strata):
        inside = design.strata == stratum
        assert (counts[:, inside].sum(axis=1) == inside.sum()).all()


def test_stratum_is_group_and_any_positive():
    groups = group_codes(["a", "a", "a", "b", "b"], 5)
    design = patient_design(np.array([0, 1, 0, 0, 0]), groups, ["p", "p", "q", "r", None])
    assert design.strata[design.clusters].tolist() == [1, 1, 0, 2, 2]
    assert design.n_clusters == 4


def test_a_longer_run_begins_like_a_shorter_one(table):
    labels, _, patients, groups = table
    design = patient_design(labels, groups, patients)
    assert (all_counts(design, CHUNK * 3)[: CHUNK * 2] == all_counts(design, CHUNK * 2)).all()
    assert (all_counts(design, 8, seed=1) != all_counts(design, 8, seed=2)).any()


def test_resample_without_a_class_is_nan():
    auc = ResampledAuc(np.array([0, 1]), np.array([0.1, 0.9]), np.array([0, 1]))
    got = auc(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]]))
    assert got[0] == 1.0
    assert np.isnan(got[1:]).all()


@pytest.mark.slow
def test_interval_of_a_difference_between_groups_by_fairlearn_on_repeated_rows():
    """Each resample's rows are repeated and given to fairlearn; the patients are drawn by the same seed."""
    rng = np.random.default_rng(3)
    n = 200
    label = rng.integers(0, 2, n)
    frame = pd.DataFrame(
        {
            "label": label,
            "score": np.clip(rng.normal(0.35 + 0.2 * label, 0.2, n), 0, 1),
            "sex": rng.choice(["f", "m", "x"], n),
        }
    )
    frame["patient"] = [f"{sex}{i // 3}" for i, sex in enumerate(frame["sex"])]
    found = evaluate_predictions(frame, sensitive="sex", threshold=0.4, n_resamples=60, seed=5)
    labels, scores = frame["label"].to_numpy(), frame["score"].to_numpy()
    groups = group_codes(frame["sex"], len(frame), name="sex")
    design = patient_design(labels, groups, frame["patient"].to_numpy())
    counts = all_counts(design, 60, seed=5)
    for name, function in (
        ("equalized_odds_difference", equalized_odds_difference),
        ("demographic_parity_difference", demographic_parity_difference),
    ):
        values = []
        for weights in counts:
            rows = np.repeat(np.arange(len(frame)), weights[design.clusters].astype(int))
            predicted = scores[rows] >= 0.4
            values.append(
                function(labels[rows], predicted, sensitive_features=frame["sex"].to_numpy()[rows])
            )
        per_group = [
            min(part.loc[part["label"] == label, "patient"].nunique() for label in (0, 1))
            for _, part in frame.groupby("sex")
        ]
        expected = bootstrap_interval(np.array(values), n_patients=min(per_group))
        assert found[f"{name}_ci"] == pytest.approx(expected, abs=1e-12)
