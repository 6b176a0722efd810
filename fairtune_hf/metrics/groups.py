"""Group metrics of one table of predictions, over the whole split in one pass.

Owns the point estimates: scikit-learn's AUC, fairlearn's differences. Intervals are in
`bootstrap.py`. The reference code averages batches (PROTOCOL.md, section 3); we do not.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from numpy.typing import ArrayLike
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_auc_score

from fairtune_hf.metrics.arrays import (
    FloatArray,
    GroupCodes,
    IntArray,
    check_choice,
    check_labels,
    check_scores,
    check_threshold,
    check_weights,
    group_codes,
)

ERRORS = ("raise", "coerce")


@dataclass(frozen=True)
class GroupRow:
    """What one group shows."""

    n: int = field(metadata={"help": "Rows of the group."})
    positives: int = field(metadata={"help": "Rows of the group with label 1."})
    auc: float = field(metadata={"help": "AUC within the group, in [0, 1]; NaN if undefined."})


@dataclass(frozen=True)
class GroupMetrics:
    """Metrics of one table. Fractions in [0, 1]; NaN means undefined, and `warnings` says why."""

    overall_auc: float = field(metadata={"help": "AUC of all rows; higher is better."})
    min_auc: float = field(metadata={"help": "AUC of the worst group; higher is better."})
    max_auc: float = field(metadata={"help": "AUC of the best group; higher is better."})
    auc_gap: float = field(metadata={"help": "max_auc - min_auc; 0 is parity, lower is better."})
    equalized_odds_difference: float = field(
        metadata={"help": "Larger of the TPR and FPR differences; 0 is parity, lower is better."}
    )
    demographic_parity_difference: float = field(
        metadata={"help": "Difference of selection rates; 0 is parity, lower is better."}
    )
    threshold: float = field(metadata={"help": "score >= threshold is a positive prediction."})
    by_group: dict[str, GroupRow] = field(metadata={"help": "The groups by name, names sorted."})
    warnings: tuple[str, ...] = field(metadata={"help": "What is undefined, and why."})


def group_metrics(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    sensitive_features: Any,
    threshold: float = 0.5,
    sample_weight: ArrayLike | None = None,
    errors: str = "coerce",
    over_defined: bool = False,
) -> GroupMetrics:
    """Compute the metrics of a table of predictions, overall and by group.

    Args:
        y_true: Labels 0 and 1, shape (n,).
        y_score: Scores of class 1, shape (n,); higher means more likely 1.
        sensitive_features: Group of each row: one column (n,), or several (a DataFrame, a dict or
            an (n, k) array) for intersectional groups.
        threshold: A score at or above it is a positive prediction.
        sample_weight: Weights >= 0 of the rows, shape (n,).
        errors: "coerce" makes what is undefined NaN, with a warning; "raise" makes it an error.
        over_defined: Whether min, max and gap pass over groups without an AUC. By default they are
            then undefined themselves: a worst group that cannot be measured is not a good one.

    Returns:
        The metrics. A group with one class (counting rows of weight > 0) has no AUC and makes
        equalised odds undefined; ties count one half; a constant score has AUC 0.5.

    Raises:
        TypeError: If labels or scores are not numbers.
        ValueError: If the input has no rows, NaN scores, other labels, missing groups or columns
            of different lengths; with errors="raise" also if a group has one class.

    Source: FairTune, section 4 "Evaluation metrics"; `sklearn.metrics.roc_auc_score`,
    `fairlearn.metrics.equalized_odds_difference` and `demographic_parity_difference`.

    Example:
        >>> result = group_metrics(
        ...     [0, 1, 0, 1], [0.1, 0.9, 0.6, 0.4], sensitive_features=["f", "f", "m", "m"]
        ... )
        >>> result.overall_auc, result.min_auc, result.auc_gap
        (0.75, 0.0, 1.0)
        >>> result.by_group["m"]
        GroupRow(n=2, positives=1, auc=0.0)
    """
    labels = check_labels(y_true)
    scores = check_scores(y_score, labels.size)
    weights = check_weights(sample_weight, labels.size)
    groups = group_codes(sensitive_features, labels.size)
    result = measure(labels, scores, groups, check_threshold(threshold), weights, over_defined)
    report_undefined(result.warnings, errors)
    return result


def report_undefined(messages: tuple[str, ...], errors: str) -> None:
    """Warn of what is undefined, or raise it.

    Raises:
        ValueError: If errors="raise" and there is a message.
    """
    check_choice("errors", errors, ERRORS)
    if messages and errors == "raise":
        raise ValueError(
            " ".join(messages) + " Merge small groups, take a larger split, or pass "
            "errors='coerce' to have NaN for what is undefined."
        )
    for message in messages:
        warnings.warn(message, UndefinedMetricWarning, stacklevel=3)


def measure(
    labels: IntArray,
    scores: FloatArray,
    groups: GroupCodes,
    threshold: float,
    weights: FloatArray | None = None,
    over_defined: bool = False,
) -> GroupMetrics:
    """Compute `group_metrics` of checked arrays, without warning or raising."""
    rows: dict[str, GroupRow] = {}
    messages = list(_one_class_message("The table", labels, weights))
    one_class_groups = False
    for code, name in enumerate(groups.names):
        inside = groups.codes == code
        part = None if weights is None else weights[inside]
        found = _one_class_message(f"Group {name!r}", labels[inside], part)
        one_class_groups = one_class_groups or bool(found)
        messages.extend(found)
        rows[name] = GroupRow(
            n=int(inside.sum()),
            positives=int(labels[inside].sum()),
            auc=auc_or_nan(labels[inside], scores[inside], part),
        )
    low, high = _extremes([row.auc for row in rows.values()], over_defined)
    odds, parity = _differences(labels, scores >= threshold, groups, weights)
    return GroupMetrics(
        overall_auc=auc_or_nan(labels, scores, weights),
        min_auc=low,
        max_auc=high,
        auc_gap=high - low,
        equalized_odds_difference=math.nan if one_class_groups else odds,
        demographic_parity_difference=parity,
        threshold=threshold,
        by_group=rows,
        warnings=tuple(messages),
    )


def auc_or_nan(labels: IntArray, scores: FloatArray, weights: FloatArray | None = None) -> float:
    """Return scikit-learn's AUC, or NaN where a class has no row of positive weight."""
    if weights is not None:
        labels, scores, weights = labels[weights > 0], scores[weights > 0], weights[weights > 0]
    if labels.size == 0 or labels.min() == labels.max():
        return math.nan
    return float(roc_auc_score(labels, scores, sample_weight=weights))


def _one_class_message(what: str, labels: IntArray, weights: FloatArray | None) -> tuple[str, ...]:
    counted = labels if weights is None else labels[weights > 0]
    positives = int(counted.sum())
    negatives = counted.size - positives
    if positives and negatives:
        return ()
    return (
        f"{what} has {positives} positive and {negatives} negative rows: "
        f"AUC and equalised odds need both classes and are undefined.",
    )


def _extremes(aucs: list[float], over_defined: bool) -> tuple[float, float]:
    defined = [value for value in aucs if not math.isnan(value)]
    if not defined or (len(defined) < len(aucs) and not over_defined):
        return math.nan, math.nan
    return min(defined), max(defined)


def _differences(
    labels: IntArray, predicted: Any, groups: GroupCodes, weights: FloatArray | None
) -> tuple[float, float]:
    predictions = np.asarray(predicted, dtype=np.int64)
    keep = slice(None) if weights is None else weights > 0
    arguments = {
        "y_true": labels[keep],
        "y_pred": predictions[keep],
        # A Series, since fairlearn squeezes an array of one row to no dimension at all.
        "sensitive_features": pd.Series(groups.codes[keep]),
        "sample_weight": None if weights is None else weights[keep],
    }
    with warnings.catch_warnings():
        # fairlearn reports a rate without rows; `measure` names the group instead.
        warnings.simplefilter("ignore")
        odds = float(equalized_odds_difference(**arguments))
        parity = float(demographic_parity_difference(**arguments))
    return odds, parity
