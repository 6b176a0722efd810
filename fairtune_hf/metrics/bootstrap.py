"""Intervals from resampled values: percentile and BCa, both widened for few patients.

Near ties the minimum over groups is biased down and the gap is biased up, in the estimate and again
in its resamples: with equal groups the true gap is 0 and every percentile interval lies above. Read
intervals of `min_auc` and `auc_gap` with that in mind; those of one group have no such bias.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from fairtune_hf.metrics.checks import FloatArray, check_choice

METHODS = ("percentile", "bca")
# Below this many patients of the rarer class there is no interval: resamples of three or four people
# show a few values over and over, and Student's t then widens them beyond what is possible.
FEWEST_PATIENTS = 5
UNBOUNDED = (-math.inf, math.inf)


def bootstrap_interval(
    draws: FloatArray,
    *,
    n_patients: float = math.inf,
    confidence: float = 0.95,
    method: str = "percentile",
    estimate: float = math.nan,
    jackknife: FloatArray | None = None,
    bounds: tuple[float, float] = UNBOUNDED,
) -> tuple[float, float]:
    """Return an interval from resampled values.

    A plain percentile interval is too narrow by about 1/n and by the difference of the normal and
    Student's t. Both are put right by going further into the tails (Hesterberg's expanded
    percentile), with n the patients of the rarer class; at 50 the interval is 4 % wider.

    Args:
        draws: Resampled values, shape (n_resamples,). NaN (undefined resamples) is passed over.
        n_patients: Patients of the rarer class, or infinity for the plain interval. Below
            `FEWEST_PATIENTS` (5) there is no interval: so few say nothing about the spread.
        confidence: Nominal coverage, in (0, 1).
        method: "percentile", or "bca", which corrects for bias and skewness and needs the next two.
        estimate: The value on the data itself (needed for "bca"). The interval is drawn out to hold
            it, which near ties of the groups the plain one may not.
        jackknife: The values with one block of patients left out each (for "bca").
        bounds: The least and the largest possible value; an end beyond is brought back to it.

    Returns:
        (low, high); (NaN, NaN) if no draw is defined, or `n_patients` is below `FEWEST_PATIENTS`.

    Raises:
        ValueError: If the method is unknown, the confidence is outside (0, 1), or "bca" lacks the
            estimate or the jackknife.

    Source: Hesterberg 2015, The American Statistician 69, section 5; Efron 1987, JASA 82 (BCa).

    Example:
        >>> bootstrap_interval(np.arange(101.0), confidence=0.5)
        (25.0, 75.0)
        >>> low, high = bootstrap_interval(np.arange(101.0), confidence=0.5, n_patients=5)
        >>> round(low, 1), round(high, 1)
        (20.4, 79.6)
    """
    check_choice("method", method, METHODS)
    critical = critical_value(confidence, n_patients)
    defined = draws[~np.isnan(draws)]
    if defined.size == 0 or math.isnan(critical):
        return math.nan, math.nan
    edges = np.array([-critical, critical])
    if method == "bca":
        edges = _bca_edges(edges, defined, estimate, jackknife)
    low, high = np.clip(np.quantile(defined, norm.cdf(edges)), *bounds)
    return float(np.fmin(low, estimate)), float(np.fmax(high, estimate))


def critical_value(confidence: float, n_patients: float = math.inf) -> float:
    """Return how many standard errors of the resamples an interval reaches; NaN below 5 patients.

    Raises:
        ValueError: If the confidence is outside (0, 1).

    Example:
        >>> round(critical_value(0.95), 2), round(critical_value(0.95, 50), 2)
        (1.96, 2.03)
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: expected a fraction in (0, 1), got {confidence}. Use 0.95.")
    if n_patients < FEWEST_PATIENTS:
        return math.nan
    if math.isinf(n_patients):
        return float(norm.ppf((1 + confidence) / 2))
    widening = math.sqrt(n_patients / (n_patients - 1))
    return widening * float(student.ppf((1 + confidence) / 2, n_patients - 1))


def bootstrap_p_value(draws: FloatArray, n_patients: float = math.inf) -> float:
    """Return the two-sided p-value of 0 from resampled differences.

    It is below 5 % where the percentile interval of the same draws and patients leaves out 0 (but
    for the last resample). NaN if no draw is defined or there are fewer than 5 patients.

    Example:
        >>> bootstrap_p_value(np.array([1.0] * 99))
        0.02
    """
    defined = draws[~np.isnan(draws)]
    if defined.size == 0 or n_patients < FEWEST_PATIENTS:
        return math.nan
    below = (np.sum(defined <= 0) + 1) / (defined.size + 1)
    above = (np.sum(defined >= 0) + 1) / (defined.size + 1)
    plain = float(min(1.0, 2 * min(below, above)))
    if math.isinf(n_patients) or plain == 1.0:
        return plain
    distance = float(norm.isf(plain / 2)) * math.sqrt((n_patients - 1) / n_patients)
    return 2 * float(student.sf(distance, n_patients - 1))


def _bca_edges(
    edges: FloatArray, draws: FloatArray, estimate: float, jackknife: FloatArray | None
) -> FloatArray:
    if math.isnan(estimate) or jackknife is None:
        raise ValueError("method: 'bca' needs the estimate and the jackknife values. Pass both.")
    # Half of the ties count, so that a discrete statistic has no bias by its ties alone.
    below = (np.sum(draws < estimate) + 0.5 * np.sum(draws == estimate)) / draws.size
    limit = 0.5 / draws.size
    bias = float(norm.ppf(np.clip(below, limit, 1 - limit)))
    moved = bias + edges
    skew = _acceleration(jackknife[~np.isnan(jackknife)])
    return np.asarray(bias + moved / np.maximum(1 - skew * moved, 0.1), dtype=np.float64)


def _acceleration(values: FloatArray) -> float:
    influence = values.mean() - values if values.size else np.zeros(1)
    square = float((influence**2).sum())
    return float((influence**3).sum()) / (6 * square**1.5) if square > 0 else 0.0


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
