"""Intervals by resampling patients.

Near ties the minimum over groups is biased down and the gap is biased up, in the estimate and again
in its resamples: with equal groups the true gap is 0 and every interval of it lies above.
Read intervals of `min_auc` and `auc_gap` with that in mind; those of a single group have no such
bias.
"""

from __future__ import annotations

import numpy as np

from fairtune_hf.metrics.arrays import FloatArray


def percentile_interval(values: FloatArray, confidence: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of resampled values, shape (n_resamples,).

    Undefined resamples (NaN) are passed over; without a defined one the interval is (NaN, NaN).

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.

    Example:
        >>> percentile_interval(np.arange(101.0), confidence=0.5)
        (25.0, 75.0)
    """
    defined = values[~np.isnan(values)]
    if defined.size == 0:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def check_resamples(n_resamples: int) -> int:
    """Return the number of resamples.

    Raises:
        ValueError: If it is below 1.
    """
    if n_resamples < 1:
        raise ValueError(
            f"n_resamples: expected at least 1, got {n_resamples}. Use 2000 for 95 % intervals."
        )
    return int(n_resamples)
