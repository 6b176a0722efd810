"""From a table of predictions to the block `validation` or `test` of run.json."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
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
from fairtune_hf.metrics.bootstrap import (
    FEWEST_PATIENTS,
    METHODS,
    bootstrap_interval,
    check_resamples,
)
from fairtune_hf.metrics.groups import ERRORS, GroupMetrics, measure, report_undefined
from fairtune_hf.metrics.planning import auc_half_width
from fairtune_hf.metrics.resampled_table import METRICS, ResampledTable
from fairtune_hf.metrics.resampling import (
    Design,
    class_patients,
    draw_counts,
    leave_out,
    patient_design,
    rarer_class_patients,
)

# Below this many patients of a class, the intervals of a group are a rough guide.
FEW_PATIENTS = 10


def evaluate_predictions(
    frame: pd.DataFrame,
    *,
    sensitive: str,
    n_resamples: int = 2000,
    seed: int = 0,
    threshold: float | None = 0.5,
    errors: str = "coerce",
    over_defined: bool = False,
    interval: str = "percentile",
) -> dict[str, Any]:
    """Measure the predictions of one seed on one split, with intervals.

    Args:
        frame: Columns label (0 or 1), score, the column named by `sensitive`, and patient (rows of
            one patient are drawn together; without the column each row is drawn alone, and a
            warning says so). Rows with an empty group are left out, and a warning counts them.
        sensitive: Name of the group column.
        n_resamples: Resamples behind the 95 % intervals.
        seed: Seed of the resampling.
        threshold: A score at or above it is a positive prediction; None for no threshold.
        errors: "coerce" (for test rows) gives None and a warning for what is undefined; "raise"
            (for validation rows) makes it an error.
        over_defined: Whether min, max and gap pass over groups without an AUC.
        interval: "percentile" or "bca" (corrected for bias and skewness).

    Returns:
        The JSON-able block `validation` or `test` of run.json: fractions in [0, 1], None where
        undefined, intervals as [low, high]. Near ties, min AUC is biased down, the gap and the two
        differences up. Every interval holds its estimate. A group with fewer than five patients of
        a class has an AUC but no interval, and then neither have the minimum, the gap and the two
        differences; a warning says so. The differences are None where all scores lie on one side of
        the threshold, with a warning.

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
        (0.0, {'n': 4, 'positives': 2, 'auc': 1.0, 'auc_ci': None})
    """
    check_choice("errors", errors, ERRORS)
    check_choice("interval", interval, METHODS)
    settings = _Settings(check_resamples(n_resamples), seed, interval)
    _check_single(frame)
    frame, messages = known_rows(frame, sensitive)
    labels = check_labels(frame["label"].to_numpy(), name="label")
    scores = check_scores(frame["score"].to_numpy(), labels.size, name="score")
    groups = group_codes(frame[sensitive], labels.size, name=sensitive)
    point = measure(labels, scores, groups, check_threshold(threshold), over_defined=over_defined)
    if errors == "raise":
        report_undefined(point.warnings, errors)
    patients = frame["patient"].to_numpy() if "patient" in frame else None
    design = patient_design(labels, groups, patients)
    n_patients = _patients(labels, groups, design)
    messages += [*point.warnings, *point.threshold_warnings]
    messages += few_patients(labels, groups, design)
    table = ResampledTable(labels, scores, groups, design, point.threshold)
    block = _as_block(point, _resample(table, design, n_patients, settings), messages)
    messages += upside_down(block["overall_auc_ci"])
    return block


@dataclass(frozen=True)
class _Settings:
    n_resamples: int
    seed: int
    interval: str


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


@dataclass(frozen=True)
class _Resampled:
    """Resampled AUCs, row 0 overall and then the groups, at last the two differences; and what an interval needs."""

    draws: FloatArray
    jackknife: FloatArray | None
    n_patients: IntArray
    method: str

    def interval(
        self, rows: list[int], reduce: Callable[[FloatArray], FloatArray], estimate: float
    ) -> list[float] | None:
        """Return the interval of a statistic of some rows, or None where it is undefined."""
        if math.isnan(estimate):
            return None
        low, high = bootstrap_interval(
            reduce(self.draws[rows]),
            n_patients=float(self.n_patients[rows].min()),
            method=self.method,
            estimate=estimate,
            jackknife=None if self.jackknife is None else reduce(self.jackknife[rows]),
        )
        return None if math.isnan(low) else [low, high]


def _resample(
    table: ResampledTable, design: Design, n_patients: IntArray, settings: _Settings
) -> _Resampled:
    rng = np.random.default_rng(settings.seed)
    draws = [_statistics(table, c) for c in draw_counts(design, settings.n_resamples, rng)]
    jackknife = None
    if settings.interval == "bca":
        jackknife = np.concatenate([_statistics(table, c) for c in leave_out(design)], axis=1)
    # A difference between groups is known as well as the smallest of them.
    n_patients = np.append(n_patients, [n_patients[1:].min()] * len(_DIFFERENCES))
    return _Resampled(np.concatenate(draws, axis=1), jackknife, n_patients, settings.interval)


_DIFFERENCES = ("equalized_odds_difference", "demographic_parity_difference")


def _statistics(table: ResampledTable, counts: FloatArray) -> FloatArray:
    differences = [METRICS[name](table, counts)[None] for name in _DIFFERENCES]
    return np.concatenate([table.aucs(counts), *differences])


def _patients(labels: IntArray, groups: GroupCodes, design: Design) -> IntArray:
    """Return the patients of the rarer class, of the whole table and then of each group."""
    counts = [rarer_class_patients(labels, design.clusters)]
    for code in range(len(groups.names)):
        inside = groups.codes == code
        counts.append(rarer_class_patients(labels[inside], design.clusters[inside]))
    return np.array(counts, dtype=np.int64)


def few_patients(labels: IntArray, groups: GroupCodes, design: Design) -> list[str]:
    """Say which groups, or the whole table, have few patients of a class, and what that means."""
    rows = {"The table": np.ones(labels.size, dtype=np.bool_)}
    rows |= {f"Group {name!r}": groups.codes == code for code, name in enumerate(groups.names)}
    messages = []
    for what, inside in rows.items():
        negatives, positives = class_patients(labels[inside], design.clusters[inside])
        few = min(negatives, positives)
        known = _known_to(negatives, positives) if few else ""
        if few < FEWEST_PATIENTS:
            enters = "anything" if what == "The table" else _WHAT_A_GROUP_ENTERS
            messages.append(_NO_INTERVAL.format(what, enters, known and f" (expect {known})"))
        elif few < FEW_PATIENTS and what != "The table":
            messages.append(
                f"{what} has fewer than {FEW_PATIENTS} patients with or without the label: "
                f"expect {known}."
            )
    return messages


def _known_to(negatives: int, positives: int) -> str:
    width = auc_half_width(positives, negatives)
    return f"an AUC near 0.8 to be known to about ±{width:.2f} only"


# The number in words: reports hide one-digit counts in what is said of a small group.
_NO_INTERVAL = (
    "{} has fewer than five patients with or without the label: too few for an interval, so none is "
    "given for {}{}."
)
_WHAT_A_GROUP_ENTERS = "its AUC, nor for a minimum, gap or difference that it enters"


def upside_down(ci: list[float] | None) -> list[str]:
    """Return the warning of an AUC whose whole interval lies below one half, or nothing."""
    if ci is None or ci[1] >= 0.5:
        return []
    return [
        f"The interval of the overall AUC, {ci[0]:.3f} to {ci[1]:.3f}, lies wholly below one half: "
        "the scores rank upside down. Check which value of the label is 1, whether labels 0 and 1 "
        "have changed places, and whether a high score means label 1."
    ]


def _as_block(point: GroupMetrics, resampled: _Resampled, messages: list[str]) -> dict[str, Any]:
    by_group = {
        name: {
            "n": row.n,
            "positives": row.positives,
            "auc": _or_none(row.auc),
            "auc_ci": resampled.interval([1 + index], _first, row.auc),
        }
        for index, (name, row) in enumerate(point.by_group.items())
    }
    defined = [i for i, row in enumerate(point.by_group.values(), 1) if not math.isnan(row.auc)]
    return {
        "overall_auc": _or_none(point.overall_auc),
        "overall_auc_ci": resampled.interval([0], _first, point.overall_auc),
        "min_auc": _or_none(point.min_auc),
        "min_auc_ci": resampled.interval(defined, lambda rows: rows.min(axis=0), point.min_auc),
        "max_auc": _or_none(point.max_auc),
        "auc_gap": _or_none(point.auc_gap),
        "auc_gap_ci": resampled.interval(defined, lambda rows: np.ptp(rows, axis=0), point.auc_gap),
        "equalized_odds_difference": _or_none(point.equalized_odds_difference),
        "equalized_odds_difference_ci": resampled.interval(
            [-2], _first, point.equalized_odds_difference
        ),
        "demographic_parity_difference": _or_none(point.demographic_parity_difference),
        "demographic_parity_difference_ci": resampled.interval(
            [-1], _first, point.demographic_parity_difference
        ),
        "threshold": _or_none(point.threshold),
        "groups": by_group,
        "warnings": messages,
    }


def _first(rows: FloatArray) -> FloatArray:
    return np.asarray(rows[0], dtype=np.float64)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
