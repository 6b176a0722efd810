"""What a smaller export does to each group: paired with the run's own scores, and bounds beyond which it is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fairtune_hf.described import described
from fairtune_hf.metrics import compare_metrics, reliability_curve

_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much each group, and the difference between groups, may lose."""

    auc_loss: float = described(0.01, "loss of a group's AUC")
    shift: float = described(0.02, "mean shift of a group's scores")
    calibration_loss: float = described(0.02, "rise of a group's expected calibration error")
    turned: float = described(0.02, "share of a group's decisions turned at the operating point")


@dataclass(frozen=True)
class _Found:
    """A group's value and the bound that it is held against."""

    what: str
    value: float
    bound: float


def measure_groups(frame: pd.DataFrame, sensitive: str, threshold: float) -> dict[str, Any]:
    """Set the scores of an export beside the run's own, for all rows and in each group.

    Args:
        frame: Columns label, score (of the export), own (of the run), patient, row_id and the group column.
        sensitive: Name of the group column.
        threshold: Operating point.

    Returns:
        By group: rows, AUC of both, their paired difference with its 95 % interval by patient, mean shift of the
        score, rise of the calibration error, decisions turned.
    """
    known = frame[frame[sensitive].astype(str) != ""]
    names = sorted(map(str, known[sensitive].unique()))
    ours, own = known, known.assign(score=known["own"])
    paired = compare_metrics(
        ours,
        own,
        sensitive=sensitive,
        metrics=[f"auc_{name}" for name in names],
        n_resamples=_RESAMPLES,
        threshold=threshold,
    )
    groups = {}
    for name in names:
        rows = known[known[sensitive].astype(str) == name]
        found = paired[f"auc_{name}"]
        groups[name] = {
            **_measure(rows, threshold),
            "auc_difference": _number(found.difference),
            "auc_difference_ci": [_number(bound) for bound in found.ci],
        }
    return {"all": _measure(frame, threshold), "groups": groups}


def _measure(rows: pd.DataFrame, threshold: float) -> dict[str, Any]:
    label, score, own = (rows[name].to_numpy() for name in ("label", "score", "own"))
    turned = (score >= threshold) != (own >= threshold)
    rise = _calibration(label, score) - _calibration(label, own)
    return {
        "n": len(rows),
        "n_patients": int(rows["patient"].nunique()),
        "mean_shift": float((score - own).mean()),
        "largest_shift": float(np.abs(score - own).max()),
        "calibration_error_rise": float(rise),
        "turned": int(turned.sum()),
        "turned_share": float(turned.mean()),
        "turned_to_label_1": int((turned & (score >= threshold)).sum()),
    }


def _calibration(label: np.ndarray, score: np.ndarray) -> float:
    return reliability_curve(label, score).expected_calibration_error


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def find_excess(measured: dict[str, Any], bounds: Bounds) -> list[str]:
    """Say in words which groups lose more than they may; none where all is within bounds."""
    groups = measured["groups"]
    faults = [
        f"group {name}: {found.what} {found.value:.4f}, at most {found.bound:g} is allowed"
        for name, group in groups.items()
        for found in _held(group, bounds)
        if found.value > found.bound
    ]
    shifts = {name: group["mean_shift"] for name, group in groups.items()}
    if shifts and max(shifts.values()) - min(shifts.values()) > bounds.shift:
        high, low = max(shifts, key=shifts.__getitem__), min(shifts, key=shifts.__getitem__)
        faults.append(
            f"groups {low} and {high}: their mean scores move apart by {shifts[high] - shifts[low]:.4f}, at most "
            f"{bounds.shift:g} is allowed"
        )
    return faults


def _held(group: dict[str, Any], bounds: Bounds) -> tuple[_Found, ...]:
    return (
        _Found("loses AUC", -(group["auc_difference"] or 0.0), bounds.auc_loss),
        _Found("mean score moves by", abs(group["mean_shift"]), bounds.shift),
        _Found(
            "calibration error rises by", group["calibration_error_rise"], bounds.calibration_loss
        ),
        _Found("share of decisions turned", group["turned_share"], bounds.turned),
    )
