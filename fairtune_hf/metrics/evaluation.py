"""From a table of predictions to the block `validation` or `test` of run.json."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from fairtune_hf.metrics.arrays import (
    FloatArray,
    GroupCodes,
    IntArray,
    check_choice,
    check_labels,
    check_scores,
    check_threshold,
    group_codes,
    missing_groups,
)
from fairtune_hf.metrics.bootstrap import check_resamples, percentile_interval
from fairtune_hf.metrics.groups import ERRORS, GroupMetrics, measure, report_undefined
from fairtune_hf.metrics.resampling import ResampledTable, draw_counts, patient_design, spread


def evaluate_predictions(
    frame: pd.DataFrame,
    *,
    sensitive: str,
    n_resamples: int = 2000,
    seed: int = 0,
    threshold: float = 0.5,
    errors: str = "coerce",
) -> dict[str, Any]:
    """Measure the predictions of one seed on one split, with intervals.

    Args:
        frame: Columns label (0 or 1), score, the column named by `sensitive`, and patient (rows of
            one patient are drawn together; without the column each row is drawn alone, and a
            warning says so). Rows with an empty group are left out, and a warning counts them.
        sensitive: Name of the group column.
        n_resamples: Resamples behind the 95 % percentile intervals.
        seed: Seed of the resampling.
        threshold: A score at or above it is a positive prediction.
        errors: "coerce" (for test rows) gives None and a warning for what is undefined; "raise"
            (for validation rows) makes it an error.

    Returns:
        The JSON-able block `validation` or `test` of run.json: fractions in [0, 1], None where
        undefined, intervals as [low, high]. Near ties, min AUC is biased down and the gap up.

    Raises:
        TypeError: If labels or scores are not numbers.
        ValueError: If columns are missing, there are several seeds or splits, no rows, NaN scores;
            with errors="raise" also if a group has one class.

    Example:
        >>> frame = pd.DataFrame({
        ...     "label": [0, 1, 0, 1, 0, 1], "score": [0.1, 0.9, 0.3, 0.8, 0.6, 0.4],
        ...     "sex": ["f", "f", "f", "f", "m", "m"], "patient": [0, 1, 2, 3, 4, 5],
        ... })
        >>> result = evaluate_predictions(frame, sensitive="sex", n_resamples=200)
        >>> result["min_auc"], result["groups"]["f"]
        (0.0, {'n': 4, 'positives': 2, 'auc': 1.0, 'auc_ci': [1.0, 1.0]})
    """
    check_choice("errors", errors, ERRORS)
    check_resamples(n_resamples)
    _check_single(frame)
    frame, messages = known_rows(frame, sensitive)
    labels = check_labels(frame["label"].to_numpy(), name="label")
    scores = check_scores(frame["score"].to_numpy(), labels.size, name="score")
    groups = group_codes(frame[sensitive], labels.size, name=sensitive)
    point = measure(labels, scores, groups, check_threshold(threshold))
    if errors == "raise":
        report_undefined(point.warnings, errors)
    patients = frame["patient"].to_numpy() if "patient" in frame else None
    aucs = _resample(labels, scores, groups, patients, n_resamples, seed)
    return _as_block(point, aucs, [*messages, *point.warnings])


def known_rows(frame: pd.DataFrame, sensitive: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows with a group, and a message for what was left out or is missing.

    Raises:
        ValueError: If a needed column is missing.
    """
    absent = [name for name in ("label", "score", sensitive) if name not in frame.columns]
    if absent:
        raise ValueError(
            f"frame: expected the columns label, score and {sensitive}, got "
            f"{', '.join(map(str, frame.columns)) or 'none'} ({', '.join(absent)} missing). "
            f"Rename the columns, or name another group column."
        )
    messages = []
    missing = missing_groups(frame[sensitive])
    if missing.any():
        messages.append(
            f"{int(missing.sum())} of {len(frame)} rows have no {sensitive} and are left out."
        )
    if "patient" not in frame.columns:
        messages.append(
            "There is no patient column: rows are resampled one by one, so the intervals are too "
            "narrow if a patient has several rows."
        )
    return frame.loc[~missing], messages


def _check_single(frame: pd.DataFrame) -> None:
    for name in ("seed", "split"):
        if name in frame.columns and frame[name].nunique(dropna=False) > 1:
            found = ", ".join(map(str, frame[name].unique()[:5]))
            raise ValueError(
                f"frame: expected the rows of one {name}, got {found}. "
                f"Evaluate each {name} by itself."
            )


def _resample(
    labels: IntArray,
    scores: FloatArray,
    groups: GroupCodes,
    patients: Any,
    n_resamples: int,
    seed: int,
) -> FloatArray:
    design = patient_design(labels, groups, patients)
    table = ResampledTable(labels, scores, groups, design, threshold=0.5)
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [table.aucs(counts) for counts in draw_counts(design, n_resamples, rng)], axis=1
    )


def _as_block(point: GroupMetrics, aucs: FloatArray, messages: list[str]) -> dict[str, Any]:
    by_group = {
        name: {
            "n": row.n,
            "positives": row.positives,
            "auc": _or_none(row.auc),
            "auc_ci": _interval(aucs[1 + index]),
        }
        for index, (name, row) in enumerate(point.by_group.items())
    }
    return {
        "overall_auc": _or_none(point.overall_auc),
        "overall_auc_ci": _interval(aucs[0]),
        "min_auc": _or_none(point.min_auc),
        "min_auc_ci": _interval(aucs[1:].min(axis=0)),
        "max_auc": _or_none(point.max_auc),
        "auc_gap": _or_none(point.auc_gap),
        "auc_gap_ci": _interval(spread(aucs[1:])),
        "equalized_odds_difference": _or_none(point.equalized_odds_difference),
        "demographic_parity_difference": _or_none(point.demographic_parity_difference),
        "threshold": point.threshold,
        "groups": by_group,
        "warnings": messages,
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _interval(values: FloatArray) -> list[float] | None:
    low, high = percentile_interval(values)
    return None if math.isnan(low) else [low, high]
