"""Two sources of chance in one interval: who is in the split, and how training went.

Resampling a handful of seeds is far too sure of itself (with 3 seeds that differ more than the
patients do, a 5 % test rejects in 20 to 25 % of null cases). So the patients are resampled, and
the seeds enter by Student's t of their spread, which 3 seeds leave wide.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import t as student

from fairtune_hf.metrics.bootstrap import critical_value
from fairtune_hf.metrics.checks import FloatArray


def combine_seeds(
    draws: FloatArray,
    points: FloatArray,
    rng: np.random.Generator,
    n_patients: float = math.inf,
) -> FloatArray:
    """Return draws (n_resamples,) of the mean over seeds, patients and seeds both varying.

    The seeds share the patients: the part of the resampled values common to all seeds is the
    patients' (its variance is the mean covariance between seeds), the rest is in the spread of the
    seeds' own values and must not be counted twice. With one seed the chance of training is
    not in the draws.

    Args:
        draws: Resampled values, shape (seeds, n_resamples); a column holds the same patients.
        points: The seeds' values on the data itself, shape (seeds,).
        rng: Source of the order in which the quantiles of Student's t meet the draws.
        n_patients: Patients of the rarer class; the patients' part is widened as
            `critical_value` says, so that plain percentiles of the result are right. Below 5 all
            is NaN.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> draws = np.tile(rng.normal(0.0, 0.01, 4000), (3, 1))
        >>> out = combine_seeds(draws, np.array([-0.02, 0.0, 0.02]), rng)
        >>> bool(np.quantile(out, 0.975) > 2 * np.quantile(draws, 0.975))
        True
    """
    n_seeds, n_resamples = draws.shape
    centre = draws.mean(axis=0)
    patients = _scale(centre, _common_variance(draws), n_patients)
    if n_seeds == 1:
        return patients
    return np.asarray(patients + _seed_noise(points, n_resamples, rng), dtype=np.float64)


def combine_unpaired(
    first: tuple[FloatArray, FloatArray],
    second: tuple[FloatArray, FloatArray],
    rng: np.random.Generator,
    n_patients: float = math.inf,
) -> FloatArray:
    """Return draws of the difference of two means over different seeds, same patients.

    Args:
        first: Draws (seeds, n_resamples) and points (seeds,) of one table.
        second: The same of the other; the number of seeds may differ.
        rng: As in `combine_seeds`.
        n_patients: As in `combine_seeds`.
    """
    (ours, our_points), (theirs, their_points) = first, second
    centre = ours.mean(axis=0) - theirs.mean(axis=0)
    defined = ~np.isnan(centre)
    cross = np.cov(ours.mean(axis=0)[defined], theirs.mean(axis=0)[defined])[0, 1]
    variance = _common_variance(ours) + _common_variance(theirs) - 2 * cross
    total = _scale(centre, variance, n_patients)
    for points in (our_points, their_points):
        if points.size > 1:
            total = total + _seed_noise(points, centre.size, rng)
    return total


def _common_variance(draws: FloatArray) -> float:
    """Return the mean covariance between seeds; of one seed, its variance."""
    defined = draws[:, ~np.isnan(draws).any(axis=0)]
    if defined.shape[1] < 2:
        return 0.0
    covariance = np.atleast_2d(np.cov(defined))
    n_seeds = len(covariance)
    if n_seeds == 1:
        return float(covariance[0, 0])
    return float((covariance.sum() - np.trace(covariance)) / (n_seeds * (n_seeds - 1)))


def _scale(centre: FloatArray, variance: float, n_patients: float) -> FloatArray:
    """Return the draws with their variance brought to `variance`, widened, at the same mean."""
    widening = critical_value(0.95, n_patients) / critical_value(0.95)
    defined = centre[~np.isnan(centre)]
    own = float(defined.var(ddof=1)) if defined.size > 1 else 0.0
    if own == 0:
        return np.asarray(centre + 0 * widening, dtype=np.float64)
    mean = float(defined.mean())
    factor = widening * np.sqrt(max(0.0, variance) / own)
    return np.asarray(mean + factor * (centre - mean), dtype=np.float64)


def _seed_noise(points: FloatArray, n_resamples: int, rng: np.random.Generator) -> FloatArray:
    # Quantiles in random order, not random numbers: 3 seeds have tails too heavy to draw from.
    levels = (rng.permutation(n_resamples) + 0.5) / n_resamples
    error = float(points.std(ddof=1)) / np.sqrt(points.size)
    return np.asarray(error * student.ppf(levels, points.size - 1), dtype=np.float64)
