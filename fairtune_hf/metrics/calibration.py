"""Calibration: do scores mean what they say, overall and by group.

Owns the reliability curve and the expected calibration error. Scores must be probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from fairtune_hf.metrics.checks import (
    FloatArray,
    IntArray,
    check_choice,
    check_labels,
    check_scores,
    check_weights,
)

BINS = 10


@dataclass(frozen=True)
class ReliabilityCurve:
    """Observed against predicted frequency in bins of the score; empty bins are left out."""

    mean_score: tuple[float, ...] = field(metadata={"help": "Mean score of each bin, in [0, 1]."})
    observed: tuple[float, ...] = field(metadata={"help": "Share of label 1 in each bin."})
    share: tuple[float, ...] = field(metadata={"help": "Share of the rows (weight) in each bin."})
    edges: tuple[float, ...] = field(metadata={"help": "The bins are (edge i, edge i + 1]."})
    strategy: str = field(metadata={"help": "uniform (equal width) or quantile (equal count)."})

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance from the diagonal, weighted by share; in [0, 1], 0 is best."""
        gaps = np.abs(np.asarray(self.observed) - np.asarray(self.mean_score))
        return float(gaps @ np.asarray(self.share))


def reliability_curve(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    n_bins: int = BINS,
    strategy: str = "uniform",
    sample_weight: ArrayLike | None = None,
) -> ReliabilityCurve:
    """Compute the reliability curve of probabilities.

    The bins are those of `sklearn.calibration.calibration_curve`: (a, b], the first one closed;
    with "quantile" the edges are quantiles of the scores, unweighted.

    Raises:
        TypeError: If labels or scores are not numbers.
        ValueError: If a score is outside [0, 1], there is no row or no bin, or the strategy is
            unknown.

    Source: Naeini, Cooper and Hauskrecht 2015, AAAI (expected calibration error).

    Example:
        >>> curve = reliability_curve([0, 0, 1, 1], [0.1, 0.3, 0.8, 0.8], n_bins=2)
        >>> curve.mean_score, curve.observed
        ((0.2, 0.8), (0.0, 1.0))
        >>> round(curve.expected_calibration_error, 3)
        0.2
    """
    labels = check_labels(y_true)
    scores = check_scores(y_score, labels.size)
    weights = check_weights(sample_weight, labels.size)
    check_choice("strategy", strategy, ("uniform", "quantile"))
    if n_bins < 1:
        raise ValueError(f"n_bins: expected at least 1 bin, got {n_bins}. The usual number is 10.")
    if not are_probabilities(scores):
        raise ValueError(
            f"y_score: expected probabilities in [0, 1], got {scores.min():g} to "
            f"{scores.max():g}. Turn logits into probabilities first."
        )
    return _curve(labels, scores, weights, n_bins, strategy)


def are_probabilities(scores: FloatArray) -> bool:
    """Tell whether all scores lie in [0, 1]."""
    return bool(scores.min() >= 0.0 and scores.max() <= 1.0)


def _curve(
    labels: IntArray,
    scores: FloatArray,
    weights: FloatArray | None,
    n_bins: int,
    strategy: str,
) -> ReliabilityCurve:
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    if strategy == "quantile":
        edges = np.quantile(scores, edges)
    bins = np.searchsorted(edges[1:-1], scores)
    counted = np.ones(labels.size) if weights is None else weights
    total = np.bincount(bins, weights=counted, minlength=n_bins)
    filled = total > 0
    mean = np.bincount(bins, weights=counted * scores, minlength=n_bins)[filled] / total[filled]
    seen = np.bincount(bins, weights=counted * labels, minlength=n_bins)[filled] / total[filled]
    return ReliabilityCurve(
        mean_score=tuple(mean.tolist()),
        observed=tuple(seen.tolist()),
        share=tuple((total[filled] / total.sum()).tolist()),
        edges=tuple(edges.tolist()),
        strategy=strategy,
    )
