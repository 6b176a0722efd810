"""Group metrics of one table of predictions, over the whole split in one pass.

Owns the point estimates: scikit-learn's AUC, fairlearn's differences. Intervals are in
`bootstrap.py`. The reference code averages batches; we do not.
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
from fairtune_hf.metrics.calibration import are_probabilities
from fairtune_hf.metrics.rows import GroupRow, describe

ERRORS = ("raise", "coerce")


SUMMARY = (
    "overall_auc",
    "min_auc",
    "max_auc",
    "auc_gap",
    "equalized_odds_difference",
    "demographic_parity_difference",
)


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
    equal_opportunity_difference: float = field(
        metadata={"help": "Difference of true-positive rates; 0 is parity, lower is better."}
    )
    equity_scaled_auc: float = field(
        metadata={"help": "AUC / (1 + sum of the groups' distances from it); higher is better."}
    )
    max_group_loss: float = field(
        metadata={"help": "Log loss of the worst group, >= 0; NaN unless probabilities."}
    )
    threshold: float = field(metadata={"help": "score >= threshold is a positive prediction."})
    overall: GroupRow = field(metadata={"help": "The same as of a group, of the whole table."})
    by_group: dict[str, GroupRow] = field(metadata={"help": "The groups by name, names sorted."})
    warnings: tuple[str, ...] = field(
        metadata={"help": "Which groups have one class, with their counts."}
    )
    threshold_warnings: tuple[str, ...] = field(
        default=(), metadata={"help": "Where the threshold calls everybody, or nobody, positive."}
    )


def group_metrics(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    sensitive_features: Any,
    threshold: float | None = 0.5,
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
        threshold: A score at or above it is a positive prediction; None for no threshold, and then
            all that needs one is NaN.
        sample_weight: Weights >= 0 of the rows, shape (n,).
        errors: "coerce" makes what is undefined NaN, with a warning; "raise" makes it an error.
        over_defined: Whether min, max and gap pass over groups without an AUC. By default they are
            then undefined themselves: a worst group that cannot be measured is not a good one.

    Returns:
        The metrics. A group with one class (counting rows of weight > 0) has no AUC and makes
        equalised odds undefined, for which there is a warning; ties count one half; a constant
        score has AUC 0.5. Where all scores lie on one side of the threshold the differences between
        groups at it are NaN, not 0, with a warning: such a model tells nobody apart. Also NaN,
        without a warning: PPV if nothing is predicted positive, and losses and calibration if a
        score lies outside [0, 1].

    Raises:
        TypeError: If labels or scores are not numbers.
        ValueError: If the input has no rows, NaN scores, other labels, missing groups or columns
            of different lengths; with errors="raise" also if a group has one class.

    Source: FairTune, section 4 "Evaluation metrics"; `sklearn.metrics.roc_auc_score`,
    `fairlearn.metrics.equalized_odds_difference` and `demographic_parity_difference`; equity-scaled
    AUC: Luo et al. 2024, IEEE Transactions on Medical Imaging 43, Harvard Glaucoma Fairness.

    Example:
        >>> result = group_metrics(
        ...     [0, 1, 0, 1], [0.1, 0.9, 0.6, 0.4], sensitive_features=["f", "f", "m", "m"]
        ... )
        >>> result.overall_auc, result.min_auc, result.auc_gap
        (0.75, 0.0, 1.0)
        >>> result.by_group["m"].n, result.by_group["m"].auc
        (2, 0.0)
    """
    labels = check_labels(y_true)
    scores = check_scores(y_score, labels.size)
    weights = check_weights(sample_weight, labels.size)
    groups = group_codes(sensitive_features, labels.size)
    result = measure(labels, scores, groups, check_threshold(threshold), weights, over_defined)
    report_undefined(result.warnings, errors)
    if one_sided(result.overall.selection_rate):
        report_undefined(result.threshold_warnings, "coerce")
    return result


def flat_metrics(found: GroupMetrics) -> dict[str, float]:
    """Return the summary metrics and `auc_<group>` for each group, as one flat dictionary.

    Example:
        >>> found = group_metrics([0, 1], [0.1, 0.9], sensitive_features=["f", "f"])
        >>> flat_metrics(found)["auc_f"]
        1.0
    """
    values = {name: float(getattr(found, name)) for name in SUMMARY}
    return values | {f"auc_{name}": row.auc for name, row in found.by_group.items()}


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
    *,
    quickly: bool = False,
) -> GroupMetrics:
    """Compute `group_metrics` of checked arrays, without warning or raising.

    Args:
        labels: Labels 0 and 1.
        scores: Finite scores.
        groups: Group of each row.
        threshold: A score at or above it is a positive prediction; NaN for none.
        weights: Weights of the rows, or None.
        over_defined: Leave groups without an AUC out of minimum and maximum.
        quickly: For every epoch of every trial, where the tens of milliseconds of fairlearn and
            scikit-learn would add up to more than the training of a small set: the two differences
            from the groups' rates and the AUCs from ranks, the same numbers; average precision and
            calibration are left out (NaN).
    """
    probabilities = are_probabilities(scores)
    rows: dict[str, GroupRow] = {}
    one_class: list[str] = []
    for code, name in enumerate(groups.names):
        inside = groups.codes == code
        part = None if weights is None else weights[inside]
        one_class.extend(_one_class_message(f"Group {name!r}", labels[inside], part))
        rows[name] = describe(
            labels[inside],
            scores[inside],
            threshold,
            part,
            probabilities=probabilities,
            quickly=quickly,
        )
    overall = describe(
        labels, scores, threshold, weights, probabilities=probabilities, quickly=quickly
    )
    aucs = [row.auc for row in rows.values()]
    low, high = _extremes(aucs, over_defined)
    if quickly:
        odds, parity = _differences_of_rates(list(rows.values()))
    else:
        odds, parity = _differences(labels, scores >= threshold, groups, weights)
    opportunity = _distance([row.sensitivity for row in rows.values()])
    undefined = one_sided(overall.selection_rate)
    if undefined:
        odds = parity = opportunity = math.nan
    return GroupMetrics(
        overall_auc=overall.auc,
        min_auc=low,
        max_auc=high,
        auc_gap=high - low,
        equalized_odds_difference=math.nan if one_class else odds,
        demographic_parity_difference=parity,
        equal_opportunity_difference=opportunity,
        equity_scaled_auc=overall.auc / (1 + float(np.sum(np.abs(np.array(aucs) - overall.auc)))),
        max_group_loss=float(np.max([row.log_loss for row in rows.values()])),
        threshold=threshold,
        overall=overall,
        by_group=rows,
        warnings=(*_one_class_message("The table", labels, weights), *one_class),
        threshold_warnings=_threshold_messages(overall, rows, threshold),
    )


def one_sided(selection_rate: float) -> bool:
    """Tell whether a threshold calls nobody or everybody positive, or there is none (NaN)."""
    return not 0.0 < selection_rate < 1.0


def _threshold_messages(
    overall: GroupRow, rows: dict[str, GroupRow], threshold: float
) -> tuple[str, ...]:
    """Say where all scores lie on one side of the threshold, in the table or else in a group."""
    if math.isnan(threshold):
        return (
            "There is no threshold, so nobody is called positive or negative: rates and the "
            "differences between groups at a threshold are undefined.",
        )
    if one_sided(overall.selection_rate):
        side = "Every" if overall.selection_rate == 1.0 else "No"
        return (
            f"{side} score reaches the threshold {threshold:g}: the differences between groups at it "
            "(equalised odds, equal opportunity, demographic parity) are undefined, which is not "
            "parity. Choose a threshold on other rows, such as those of validation.",
        )
    return tuple(
        f"{'Every' if row.selection_rate == 1.0 else 'No'} score of group {name!r} reaches the "
        f"threshold {threshold:g}: its rates, and its distance from other groups, come of that alone."
        for name, row in rows.items()
        if row.selection_rate in (0.0, 1.0)
    )


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


def _distance(values: list[float]) -> float:
    return float(np.max(values) - np.min(values))


def _extremes(aucs: list[float], over_defined: bool) -> tuple[float, float]:
    defined = [value for value in aucs if not math.isnan(value)]
    if not defined or (len(defined) < len(aucs) and not over_defined):
        return math.nan, math.nan
    return min(defined), max(defined)


def _differences_of_rates(rows: list[GroupRow]) -> tuple[float, float]:
    """Return what `_differences` does, from rates that are there already."""
    odds = max(_distance([row.sensitivity for row in rows]), _distance([row.fpr for row in rows]))
    rates = [row.selection_rate for row in rows if not math.isnan(row.selection_rate)]
    return odds, _distance(rates) if rates else math.nan


def _differences(
    labels: IntArray, predicted: Any, groups: GroupCodes, weights: FloatArray | None
) -> tuple[float, float]:
    """Return fairlearn's equalized odds and demographic parity differences.

    Both depend on the rows only through the weight in each cell of group, label and prediction, so
    fairlearn is given one weighted row a cell: it walks over rows in Python, seconds for 100,000.
    """
    n_groups = len(groups.names)
    cell = (labels * 2 + np.asarray(predicted, dtype=np.int64)) * n_groups + groups.codes
    rows = np.bincount(cell, weights=weights, minlength=4 * n_groups)
    filled = np.flatnonzero(rows > 0)
    outcome = filled // n_groups
    arguments = {
        "y_true": outcome // 2,
        "y_pred": outcome % 2,
        # A Series, since fairlearn squeezes an array of one row to no dimension at all.
        "sensitive_features": pd.Series(filled % n_groups),
        "sample_weight": rows[filled].astype(np.float64),
    }
    with warnings.catch_warnings():
        # fairlearn reports a rate without rows; `measure` names the group instead.
        warnings.simplefilter("ignore")
        odds = float(equalized_odds_difference(**arguments))
        parity = float(demographic_parity_difference(**arguments))
    return odds, parity
