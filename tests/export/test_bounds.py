"""What fewer bits do to a group is measured, and held against bounds, by the definitions themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fairtune_hf.export.bounds import Bounds, find_excess, measure_groups
from fairtune_hf.export.record import hide_counts


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Scores of a run, and of an export that moves one group's upwards and blurs them."""
    generator = np.random.default_rng(0)
    n = 400
    label = generator.integers(0, 2, n)
    own = (0.3 * label + generator.random(n) * 0.7).clip(0, 1)
    group = np.where(np.arange(n) % 4 == 0, "few", "many")
    moved = np.where(group == "few", 0.05 + generator.normal(0, 0.05, n), 0.0)
    return pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in range(n)],
            "label": label,
            "own": own,
            "score": (own + moved).clip(0, 1),
            "patient": np.arange(n) // 2,
            "age": group,
        }
    )


def test_the_measures_of_a_group_are_those_of_their_definitions(frame: pd.DataFrame) -> None:
    found = measure_groups(frame, "age", 0.5)["groups"]
    for name, rows in frame.groupby("age"):
        told = found[str(name)]
        right = roc_auc_score(rows["label"], rows["score"])
        right -= roc_auc_score(rows["label"], rows["own"])
        assert told["auc_difference"] == pytest.approx(right, abs=1e-12)
        assert told["mean_shift"] == pytest.approx((rows["score"] - rows["own"]).mean())
        assert told["turned"] == ((rows["score"] >= 0.5) != (rows["own"] >= 0.5)).sum()
        assert told["turned_share"] == pytest.approx(told["turned"] / len(rows))
        assert told["n"] == len(rows)
    low, high = found["few"]["auc_difference_ci"]
    assert low < found["few"]["auc_difference"] < high
    assert found["many"]["auc_difference_ci"] == [0.0, 0.0]


def test_each_bound_is_held_and_the_group_named(frame: pd.DataFrame) -> None:
    measured = measure_groups(frame, "age", 0.5)
    free: dict[str, Any] = {"auc_loss": 1, "shift": 1, "calibration_loss": 1, "turned": 1}
    assert find_excess(measured, Bounds(**free)) == []
    words = {
        "auc_loss": "group few: loses AUC",
        "shift": "group few: mean score moves by",
        "turned": "group few: share of decisions turned",
    }
    for name, answer in words.items():
        faults = find_excess(measured, Bounds(**{**free, name: 1e-6}))
        assert faults[0].startswith(answer)
        assert not any("group many" in fault for fault in faults)
    apart = find_excess(measured, Bounds(**{**free, "shift": 0.03}))
    assert "groups many and few: their mean scores move apart by" in apart[-1]


def test_counts_of_small_groups_and_classes_are_hidden() -> None:
    groups = {
        "a": {"n": 8, "positives": 3, "auc": 0.7, "turned": 1},
        "b": {"n": 40, "positives": 6, "auc": 0.8, "turned": 0},
        "c": {"n": 90, "positives": 45, "auc": 0.9, "turned": 2},
        "d": {"n": 95, "positives": 6, "auc": 0.9, "turned": 2},
    }
    shown = hide_counts(groups)
    assert shown["a"] == {"n": "<10", "positives": "<10", "auc": 0.7, "turned": "<10"}
    assert shown["b"]["n"] == shown["b"]["positives"] == "not shown"
    assert shown["c"] == groups["c"]
    assert shown["d"] == {**groups["d"], "positives": "<10"}
