"""From a table of predictions to the block `validation` or `test` of run.json."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fairtune_hf.json_values import json_able
from fairtune_hf.metrics.bootstrap import (
    FEWEST_PATIENTS,
    METHODS,
    bootstrap_interval,
    check_resamples,
)
from fairtune_hf.metrics.checks import (
    FloatArray,
    check_choice,
    check_labels,
    check_scores,
    check_threshold,
    group_codes,
    missing_groups,
)
from fairtune_hf.metrics.groups import ERRORS, judged_groups, measure_table, report_undefined
from fairtune_hf.metrics.planning import auc_half_width
from fairtune_hf.metrics.registry import (
    COMPARISON,
    GROUPS,
    JUDGED,
    METRICS,
    ROWS,
    TABLE,
    GroupMetrics,
    shown_in,
)
from fairtune_hf.metrics.resampled_table import ResampledTable
from fairtune_hf.metrics.resampling import (
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
    check_resamples(n_resamples)
    _check_single(frame)
    frame, messages = known_rows(frame, sensitive)
    labels = check_labels(frame["label"].to_numpy(), name="label")
    scores = check_scores(frame["score"].to_numpy(), labels.size, name="score")
    groups = group_codes(frame[sensitive], labels.size, name=sensitive)
    patients = frame["patient"].to_numpy() if "patient" in frame else None
    design = patient_design(labels, groups, patients)
    table = ResampledTable(labels, scores, groups, design, check_threshold(threshold))
    point = measure_table(table, over_defined=over_defined)
    if errors == "raise":
        report_undefined(point.warnings, errors)
    messages += [*point.warnings, *point.threshold_warnings, *few_patients(table)]
    judged = judged_groups(table) if over_defined else None
    resampled = _resample(table, judged, n_resamples, seed, interval)
    block = _as_block(point, resampled, messages)
    messages += upside_down(block["overall_auc_ci"])
    return block


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
    """Resampled values by metric (the AUC of a group by the group's number), and what an interval needs."""

    draws: dict[str | int, FloatArray]
    jackknife: dict[str | int, FloatArray] | None
    n_patients: dict[str | int, int]
    method: str

    def interval(self, key: str | int, estimate: float) -> list[float] | None:
        """Return the interval of a metric, or None where it is undefined."""
        if math.isnan(estimate):
            return None
        low, high = bootstrap_interval(
            self.draws[key],
            n_patients=float(self.n_patients[key]),
            method=self.method,
            estimate=estimate,
            jackknife=None if self.jackknife is None else self.jackknife[key],
        )
        return None if math.isnan(low) else [low, high]


def _resample(
    table: ResampledTable, judged: list[int] | None, n_resamples: int, seed: int, method: str
) -> _Resampled:
    codes = range(len(table.groups.names))
    keys: list[str | int] = [*_WITH_INTERVAL, *codes]

    def values(matrices: Iterator[FloatArray]) -> dict[str | int, FloatArray]:
        found = []
        for counts in matrices:
            weighted = table.under(counts, judged)
            metrics = [METRICS[name].value(weighted) for name in _WITH_INTERVAL]
            found.append(np.stack([*metrics, *weighted.groups("auc")]))
        return dict(zip(keys, np.concatenate(found, axis=1), strict=True))

    behind = dict(zip((ROWS, *codes), patients_behind(table), strict=True))
    behind |= {GROUPS: min(behind[code] for code in codes)}
    behind |= {JUDGED: min(behind[code] for code in judged or codes)}
    return _Resampled(
        draws=values(draw_counts(table.design, n_resamples, np.random.default_rng(seed))),
        jackknife=values(leave_out(table.design)) if method == "bca" else None,
        n_patients={key: behind[METRICS[key].of if isinstance(key, str) else key] for key in keys},
        method=method,
    )


_WITH_INTERVAL = shown_in(COMPARISON)


def patients_behind(table: ResampledTable) -> list[int]:
    """Return the patients of the rarer class, of the whole table and then of each group."""
    return [
        rarer_class_patients(rows.labels, rows.clusters) for rows in (table.whole, *table.by_group)
    ]


def few_patients(table: ResampledTable) -> list[str]:
    """Say which groups, or the whole table, have few patients of a class, and what that means."""
    rows = {"The table": table.whole}
    rows |= {f"Group {n!r}": r for n, r in zip(table.groups.names, table.by_group, strict=True)}
    messages = []
    for what, part in rows.items():
        negatives, positives = class_patients(part.labels, part.clusters)
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
            "auc": json_able(row.auc),
            "auc_ci": resampled.interval(code, row.auc),
        }
        for code, (name, row) in enumerate(point.by_group.items())
    }
    block: dict[str, Any] = {}
    for name in shown_in(TABLE):
        block[name] = json_able(point.value(name))
        if name in _WITH_INTERVAL:
            block[f"{name}_ci"] = resampled.interval(name, point.value(name))
    threshold = json_able(point.threshold)
    return {**block, "threshold": threshold, "groups": by_group, "warnings": messages}
