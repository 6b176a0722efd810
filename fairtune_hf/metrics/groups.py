"""Group metrics of one table of predictions, over the whole split in one pass.

Owns the point values and what is said of undefined ones. The reference code averages batches; we do not.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import UndefinedMetricWarning

from fairtune_hf.metrics.checks import (
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
from fairtune_hf.metrics.registry import OF_ROWS, OF_TABLE, TABLE, GroupMetrics, GroupRow, shown_in
from fairtune_hf.metrics.resampled_table import ResampledTable, WeightedRows
from fairtune_hf.metrics.resampling import alone

ERRORS = ("raise", "coerce")


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
    values = {name: found.value(name) for name in shown_in(TABLE)}
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
) -> GroupMetrics:
    """Compute `group_metrics` of checked arrays, without warning or raising."""
    table = ResampledTable(labels, scores, groups, alone(labels.size), threshold)
    return measure_table(table, weights, over_defined=over_defined)


def measure_table(
    table: ResampledTable, weights: FloatArray | None = None, *, over_defined: bool = False
) -> GroupMetrics:
    """Return the point values of a table, without warning or raising.

    Args:
        table: The table.
        weights: Weight of each of its patients, shape (patients,); 1 if None. Rows of weight 0 count
            for `n` and `positives` only.
        over_defined: Leave groups without an AUC out of minimum and maximum.
    """
    counts = np.ones((1, table.design.n_clusters)) if weights is None else weights[None]
    counted = counts[0, table.design.clusters] > 0
    judged = judged_groups(table, counts) if over_defined else None
    weighted = table.under(counts, judged)
    overall = _row(weighted.whole, table.labels)
    rows: dict[str, GroupRow] = {}
    messages = _one_class_message("The table", table.labels[counted])
    for code, name in enumerate(table.groups.names):
        inside = table.groups.codes == code
        rows[name] = _row(weighted.by_group[code], table.labels[inside])
        messages += _one_class_message(f"Group {name!r}", table.labels[inside & counted])
    undefined = one_sided(overall.selection_rate)
    values = {
        name: math.nan
        if undefined and metric.needs_both_sides
        else float(metric.value(weighted)[0])
        for name, metric in OF_TABLE.items()
    }
    return GroupMetrics(
        **values,
        threshold=table.threshold,
        overall=overall,
        by_group=rows,
        warnings=messages,
        threshold_warnings=_threshold_messages(overall, rows, table.threshold),
    )


def judged_groups(table: ResampledTable, counts: FloatArray | None = None) -> list[int] | None:
    """Return the groups that have an AUC, also under a row of counts if given; None if none has."""
    counts = np.ones((1, table.design.n_clusters)) if counts is None else counts
    aucs = table.under(counts).groups("auc")[:, 0]
    return np.flatnonzero(~np.isnan(aucs)).tolist() or None


def _row(rows: WeightedRows, labels: IntArray) -> GroupRow:
    values = {name: float(rows[name][0]) for name in OF_ROWS}
    return GroupRow(n=int(labels.size), positives=int(labels.sum()), **values)


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


def _one_class_message(what: str, counted: IntArray) -> tuple[str, ...]:
    positives = int(counted.sum())
    negatives = counted.size - positives
    if positives and negatives:
        return ()
    return (
        f"{what} has {positives} positive and {negatives} negative rows: "
        f"AUC and equalised odds need both classes and are undefined.",
    )
