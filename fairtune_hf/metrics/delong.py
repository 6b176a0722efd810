"""DeLong's standard error of an AUC and test of two AUCs on the same rows.

For independent rows: with several rows a patient use the bootstrap by patient. Fast form by
mid-ranks, n log n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata

from fairtune_hf.metrics.bootstrap import FEWEST_PATIENTS, critical_value
from fairtune_hf.metrics.checks import FloatArray, IntArray, check_labels, check_scores


@dataclass(frozen=True)
class AucEstimate:
    """An AUC, or a difference of two, with DeLong's standard error."""

    value: float = field(metadata={"help": "The AUC in [0, 1], or the difference in [-1, 1]."})
    standard_error: float = field(metadata={"help": "DeLong's standard error, >= 0."})
    ci: tuple[float, float] = field(
        metadata={
            "help": "Interval: on the logit scale for an AUC, symmetric within [-1, 1] for a "
            "difference; NaN below five rows of a class."
        }
    )
    p_value: float = field(metadata={"help": "Two-sided, of AUC 0.5 or of difference 0."})


def delong_auc(y_true: ArrayLike, y_score: ArrayLike, *, confidence: float = 0.95) -> AucEstimate:
    """Estimate an AUC with DeLong's standard error and an interval on the logit scale.

    An AUC of exactly 0 or 1, or a class of one row, has standard error and interval NaN, and a class
    of fewer than five rows has no interval and no p-value: these rows say nothing about the spread.

    Raises:
        TypeError: If labels or scores are not numbers.
        ValueError: If there is one class, a NaN score, or a confidence outside (0, 1).

    Source: DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44; Sun and Xu 2014, IEEE Signal
    Processing Letters 21.

    Example:
        >>> result = delong_auc([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.6, 0.4, 0.8, 0.9])
        >>> round(result.value, 3), round(result.standard_error, 3)
        (0.889, 0.157)
    """
    values, covariance = _estimate(y_true, [y_score])
    quantile = critical_value(confidence)
    auc, error = float(values[0]), math.sqrt(covariance[0, 0])
    if not 0.0 < auc < 1.0 or math.isnan(error):
        return AucEstimate(auc, math.nan, (math.nan, math.nan), math.nan)
    logit, width = math.log(auc / (1 - auc)), quantile * error / (auc * (1 - auc))
    if _too_few(y_true):
        return AucEstimate(auc, error, (math.nan, math.nan), 1.0 if error == 0 else math.nan)
    low, high = (1 / (1 + math.exp(-edge)) for edge in (logit - width, logit + width))
    p_value = 1.0 if error == 0 else 2 * float(norm.sf(abs(auc - 0.5) / error))
    return AucEstimate(auc, error, (low, high), p_value)


def delong_difference(
    y_true: ArrayLike, y_score: ArrayLike, reference_score: ArrayLike, *, confidence: float = 0.95
) -> AucEstimate:
    """Compare the AUCs of two scores of the same rows: score minus reference.

    Raises:
        TypeError: If labels or scores are not numbers.
        ValueError: If there is one class, a NaN score, or a confidence outside (0, 1).

    Source: as `delong_auc`.

    Example:
        >>> result = delong_difference([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], [0.1, 0.3, 0.2, 0.4])
        >>> result.value
        0.25
    """
    values, covariance = _estimate(y_true, [y_score, reference_score])
    quantile = critical_value(confidence)
    difference = float(values[0] - values[1])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if math.isnan(variance):
        return AucEstimate(difference, math.nan, (math.nan, math.nan), math.nan)
    error = math.sqrt(max(0.0, variance))
    ci = (max(-1.0, difference - quantile * error), min(1.0, difference + quantile * error))
    if _too_few(y_true):
        same = error == 0 and difference == 0
        return AucEstimate(difference, error, (math.nan, math.nan), 1.0 if same else math.nan)
    if error == 0:
        return AucEstimate(difference, error, ci, 1.0 if difference == 0 else math.nan)
    return AucEstimate(difference, error, ci, 2 * float(norm.sf(abs(difference) / error)))


def _too_few(y_true: ArrayLike) -> bool:
    """Tell whether a class has too few rows for an interval."""
    positives = int(np.sum(y_true))
    return min(positives, np.size(y_true) - positives) < FEWEST_PATIENTS


def _estimate(y_true: ArrayLike, scores: list[ArrayLike]) -> tuple[FloatArray, FloatArray]:
    labels = check_labels(y_true)
    checked = [check_scores(score, labels.size) for score in scores]
    positives = int(labels.sum())
    if positives in (0, labels.size):
        raise ValueError(
            f"y_true: expected both classes, got {positives} positive of {labels.size} rows. "
            f"An AUC needs both."
        )
    parts = [_placements(labels, score) for score in checked]
    above = np.stack([part[0] for part in parts])
    below = np.stack([part[1] for part in parts])
    return above.mean(axis=1), _covariance(above) + _covariance(below)


def _placements(labels: IntArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return for each positive the share of negatives below, for each negative the reverse."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    ranks = rankdata(np.concatenate([positive, negative]))
    above = (ranks[: positive.size] - rankdata(positive)) / negative.size
    below = 1 - (ranks[positive.size :] - rankdata(negative)) / positive.size
    return above, below


def _covariance(values: FloatArray) -> FloatArray:
    size = values.shape[1]
    if size < 2:
        return np.full((len(values), len(values)), np.nan)
    return np.asarray(np.atleast_2d(np.cov(values)) / size, dtype=np.float64)
