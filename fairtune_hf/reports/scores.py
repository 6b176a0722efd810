"""What the predictions of one refit say by group: ROC points, calibration bins, operating point.

Groups whose counts are hidden are left out throughout: shares and steps of a curve give counts away.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from fairtune_hf.metrics.calibration import reliability_curve

from . import numbers
from .loaded_run import LoadedRun

ROWS_PER_BIN = 25
MOST_BINS = 8
ROC_POINTS = 101


@dataclass(frozen=True)
class OperatingRow:
    """One group at the threshold, and how its scores compare with what happened.

    Attributes:
        name: The group.
        prevalence: Share with a positive label.
        called: Share with a score at or above the threshold.
        sensitivity: Share of the positive ones that are called positive.
        specificity: Share of the negative ones that are not.
        mean_score: Mean score, to be compared with the prevalence.
        calibration_error: Expected calibration error over ten bins of equal width.
    """

    name: str
    prevalence: str
    called: str
    sensitivity: str
    specificity: str
    mean_score: str
    calibration_error: str


def refit_predictions(folder: LoadedRun, split: str) -> pd.DataFrame:
    """Return the predictions of the refit with `choice.seed` on a split, shown groups only."""
    frame = folder.predictions
    needed = {"label", "score", "split", folder.sensitive}
    if frame.empty or not needed <= set(frame.columns):
        return pd.DataFrame(columns=["group", "label", "score"])
    held = frame[frame["split"] == split]
    if "seed" in held and len(held):
        seed = folder.record.choice.seed
        held = held[held["seed"] == (held["seed"].iloc[0] if seed is None else seed)]
    shown = held.assign(group=held[folder.sensitive].astype(str))
    hidden = {*folder.hidden_groups(split), "", "nan", "None"}
    shown = shown.loc[~shown["group"].isin(hidden), ["group", "label", "score"]]
    order = [name for name in folder.group_order(split) if name not in hidden]
    known = pd.Categorical(shown["group"], [*order, *sorted(set(shown["group"]) - set(order))])
    return shown.iloc[known.codes.argsort(kind="stable")]


def roc_points(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the ROC curve of each group that has both classes, at most 101 points each."""
    columns = ["group", "false_positive_rate", "true_positive_rate"]
    curves = []
    for name, rows in frame.groupby("group", sort=False):
        if rows["label"].nunique() < 2:
            continue
        false_positive, true_positive, _ = roc_curve(rows["label"], rows["score"])
        held = len(false_positive)
        keep = np.unique(np.linspace(0, held - 1, min(held, ROC_POINTS)).round().astype(int))
        rates = {columns[1]: false_positive[keep], columns[2]: true_positive[keep]}
        curves.append(pd.DataFrame({columns[0]: name, **rates}))
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=columns)


def reliability_points(frame: pd.DataFrame) -> pd.DataFrame:
    """Return mean score and share positive of each group in bins of equal size, with intervals.

    A bin holds at least 25 pictures, so a small group has one bin or two. The intervals are
    Wilson's 95 % intervals of a share and treat pictures as independent.
    """
    bins = []
    for name, rows in frame.groupby("group", sort=False):
        for held in _equal_bins(rows):
            low, high = wilson_interval(int(held["label"].sum()), len(held))
            means = float(held["score"].mean()), float(held["label"].mean())
            bins.append((name, *means, low, high, len(held)))
    columns = ["group", "mean_score", "share_positive", "low", "high", "n"]
    return pd.DataFrame(bins, columns=columns)


def _equal_bins(rows: pd.DataFrame) -> list[pd.DataFrame]:
    number = max(1, min(MOST_BINS, len(rows) // ROWS_PER_BIN))
    order = rows.sort_values("score", kind="stable")
    edges = np.linspace(0, len(order), number + 1).round().astype(int)
    return [order.iloc[a:b] for a, b in itertools.pairwise(edges)]


def wilson_interval(positive: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's interval of a share; it stays within [0, 1] for few pictures too."""
    share = positive / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def operating_rows(frame: pd.DataFrame, threshold: float) -> list[OperatingRow]:
    """Return one row a group at a threshold; a rate without any case is a dash."""
    rows = []
    for name, held in frame.groupby("group", sort=False):
        label, score = held["label"].to_numpy(), held["score"].to_numpy()
        called = score >= threshold
        rows.append(
            OperatingRow(
                name=str(name),
                prevalence=numbers.fraction(_mean(label), 2),
                called=numbers.fraction(_mean(called), 2),
                sensitivity=numbers.fraction(_mean(called[label == 1]), 2),
                specificity=numbers.fraction(_mean(~called[label == 0]), 2),
                mean_score=numbers.fraction(_mean(score), 2),
                calibration_error=numbers.fraction(calibration_error(held)),
            )
        )
    return rows


def _mean(values: Any) -> float:
    return float(values.mean()) if len(values) else math.nan


def calibration_error(rows: pd.DataFrame) -> float:
    """Return the expected calibration error of scores in [0, 1], NaN of other scores."""
    if not rows["score"].between(0, 1).all():
        return math.nan
    curve = reliability_curve(rows["label"].to_numpy(), rows["score"].to_numpy())
    return curve.expected_calibration_error
