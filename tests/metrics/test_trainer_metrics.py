"""`ComputeMetrics` on what the Trainer hands over."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest

from fairtune_hf.metrics import ComputeMetrics, compute_metrics, group_metrics


def prediction(n=200, seed=0):
    rng = np.random.default_rng(seed)
    labels, groups = rng.integers(0, 2, n), rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 2)).astype(np.float32)
    logits[:, 1] += labels
    return SimpleNamespace(predictions=logits, label_ids=(labels, groups))


def test_equals_group_metrics_of_the_probabilities():
    given = prediction()
    labels, groups = given.label_ids
    logits = given.predictions.astype(np.float64)
    probability = np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1)
    want = group_metrics(labels, probability, sensitive_features=groups)
    got = compute_metrics(given)
    for name in ("overall_auc", "min_auc", "max_auc", "auc_gap", "equalized_odds_difference",
                 "demographic_parity_difference"):  # fmt: skip
        assert got[name] == pytest.approx(getattr(want, name), abs=1e-12)
    assert {name for name in got if name.startswith("auc_")} == {
        "auc_gap",
        "auc_0",
        "auc_1",
        "auc_2",
    }
    assert all(isinstance(value, float) for value in got.values())


def test_names_of_groups_and_first_of_several_outputs():
    given = prediction()
    given.predictions = (given.predictions, np.zeros((200, 5)))
    got = ComputeMetrics(group_names=["white", "black", "asian"])(given)
    plain = compute_metrics(prediction())
    assert got["auc_black"] == plain["auc_1"]


def test_one_class_group_raises_with_counts():
    given = prediction()
    given.label_ids[0][given.label_ids[1] == 2] = 0
    count = int((given.label_ids[1] == 2).sum())
    with pytest.raises(ValueError, match=rf"Group '2' has 0 positive and {count} negative"):
        compute_metrics(given)
    with pytest.raises(ValueError, match=r"Group 'd' has 0 positive and 0 negative"):
        ComputeMetrics(group_names=list("abcd"))(prediction())


@pytest.mark.parametrize(("change", "match"), [
    ({"label_ids": np.zeros(200)}, "expected a pair"),
    ({"predictions": np.zeros((200, 3))}, r"expected logits of shape \(rows, 2\), got \(200, 3\)"),
    ({"predictions": np.full((200, 2), np.nan)}, "logits: expected finite"),
    ({"predictions": np.zeros((100, 2))}, "expected 200 rows"),
    ({"label_ids": (np.zeros(200), np.zeros(100))}, "expected 200 group codes"),
])  # fmt: skip
def test_bad_predictions(change, match):
    given = SimpleNamespace(**(vars(prediction()) | change))
    with pytest.raises(ValueError, match=match):
        compute_metrics(given)


def test_code_outside_the_names():
    with pytest.raises(ValueError, match=r"expected group codes 0 to 1 \(a, b\), got 2"):
        ComputeMetrics(group_names=["a", "b"])(prediction())


def test_default_instance_takes_one_argument():
    assert len(inspect.signature(compute_metrics).parameters) == 1
