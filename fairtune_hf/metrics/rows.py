"""Everything measured on one set of rows: a group, or the whole table.

The names and definitions are scikit-learn's; here they are taken from one confusion matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from fairtune_hf.metrics.arrays import FloatArray, IntArray
from fairtune_hf.metrics.calibration import are_probabilities, calibration_error


@dataclass(frozen=True)
class GroupRow:
    """What one group (or the whole table) shows. Fractions in [0, 1]; NaN where undefined."""

    n: int = field(metadata={"help": "Rows."})
    positives: int = field(metadata={"help": "Rows with label 1."})
    auc: float = field(metadata={"help": "Area under the ROC curve; higher is better."})
    average_precision: float = field(
        metadata={"help": "Average precision; higher is better, the base rate is chance."}
    )
    accuracy: float = field(metadata={"help": "Share predicted right; higher is better."})
    balanced_accuracy: float = field(
        metadata={"help": "Mean of sensitivity and specificity; higher is better, 0.5 is chance."}
    )
    sensitivity: float = field(metadata={"help": "True-positive rate; higher is better."})
    specificity: float = field(metadata={"help": "True-negative rate; higher is better."})
    ppv: float = field(metadata={"help": "Share of positive predictions that are right."})
    fnr: float = field(metadata={"help": "False-negative rate, 1 - sensitivity."})
    fpr: float = field(metadata={"help": "False-positive rate, 1 - specificity."})
    selection_rate: float = field(metadata={"help": "Share predicted positive."})
    log_loss: float = field(
        metadata={"help": "Mean log loss, >= 0, lower is better; NaN unless probabilities."}
    )
    brier: float = field(
        metadata={"help": "Mean squared error of the probability; lower is better."}
    )
    ece: float = field(
        metadata={"help": "Expected calibration error, 10 bins of equal width; 0 is best."}
    )


def describe(
    labels: IntArray,
    scores: FloatArray,
    threshold: float,
    weights: FloatArray | None = None,
    *,
    probabilities: bool | None = None,
    quickly: bool = False,
) -> GroupRow:
    """Measure checked arrays of shape (n,); n may be 0.

    Args:
        labels: Labels 0 and 1.
        scores: Finite scores.
        threshold: A score at or above it is a positive prediction; NaN leaves the rates undefined.
        weights: Weights of the rows; rows of weight 0 count for n and positives only.
        probabilities: Whether the scores are probabilities; None looks at these rows.
        quickly: Take the AUC of rows without weights from ranks, which is the same number, and leave
            average precision and calibration out (NaN).
    """
    n, positives = int(labels.size), int(labels.sum())
    if weights is not None:
        labels, scores, weights = labels[weights > 0], scores[weights > 0], weights[weights > 0]
    counted = np.ones(labels.size) if weights is None else weights
    hit = scores >= threshold
    known = not math.isnan(threshold)
    true_positive = float(counted[(labels == 1) & hit].sum())
    false_positive = float(counted[(labels == 0) & hit].sum())
    positive, negative = float(counted[labels == 1].sum()), float(counted[labels == 0].sum())
    sensitivity = _share(true_positive, positive if known else 0)
    fpr = _share(false_positive, negative if known else 0)
    decided = positive + negative if known else 0.0
    if probabilities is None:
        probabilities = labels.size > 0 and are_probabilities(scores)
    loss, brier, ece = _probability_scores(labels, scores, weights, probabilities, quickly)
    by_ranks = quickly and weights is None
    auc = auc_of_ranks(labels, scores) if by_ranks else auc_or_nan(labels, scores, weights)
    precision = math.nan if quickly else _average_precision(labels, scores, weights)
    return GroupRow(
        n=n,
        positives=positives,
        auc=auc,
        average_precision=precision,
        accuracy=_share(true_positive + negative - false_positive, decided),
        balanced_accuracy=(sensitivity + 1 - fpr) / 2,
        sensitivity=sensitivity,
        specificity=1 - fpr,
        ppv=_share(true_positive, true_positive + false_positive),
        fnr=1 - sensitivity,
        fpr=fpr,
        selection_rate=_share(true_positive + false_positive, decided),
        log_loss=loss,
        brier=brier,
        ece=ece,
    )


def auc_or_nan(labels: IntArray, scores: FloatArray, weights: FloatArray | None = None) -> float:
    """Return scikit-learn's AUC of rows of positive weight, or NaN without both classes."""
    if labels.size == 0 or labels.min() == labels.max():
        return math.nan
    return float(roc_auc_score(labels, scores, sample_weight=weights))


def auc_of_ranks(labels: IntArray, scores: FloatArray) -> float:
    """Return the AUC by the rank-sum statistic; ties share their mean rank."""
    positives = int(labels.sum())
    negatives = labels.size - positives
    if not positives or not negatives:
        return math.nan
    ranks = rankdata(scores)[labels == 1].sum() - positives * (positives + 1) / 2
    return float(ranks / (positives * negatives))


def _average_precision(labels: IntArray, scores: FloatArray, weights: FloatArray | None) -> float:
    if not labels.any():
        return math.nan
    return float(average_precision_score(labels, scores, sample_weight=weights))


def _probability_scores(
    labels: IntArray,
    scores: FloatArray,
    weights: FloatArray | None,
    probabilities: bool,
    quickly: bool,
) -> tuple[float, float, float]:
    if not probabilities or labels.size == 0:
        return math.nan, math.nan, math.nan
    # As scikit-learn's `log_loss`, which spends more time on its checks than on the rest of a row.
    smallest = np.finfo(scores.dtype).eps
    right = np.where(labels == 1, scores, 1 - scores).clip(smallest, 1 - smallest)
    loss = float(np.average(-np.log(right), weights=weights))
    brier = float(np.average((scores - labels) ** 2, weights=weights))
    if quickly:
        return loss, brier, math.nan
    return loss, brier, calibration_error(labels, scores, weights)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
