"""How much of the best trial's validation value is luck.

The best of many noisy values is chosen for its value and for its luck. The estimate shrinks the
best value towards the bulk of good trials, by the share of their spread that noise explains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from fairtune_hf.metrics.checks import FloatArray, check_choice


@dataclass(frozen=True)
class SelectionOptimism:
    """The luck in the best of several trials; `float(result)` is `optimism`."""

    optimism: float = field(metadata={"help": "Expected luck in the best value, >= 0, same unit."})
    best_value: float = field(metadata={"help": "Value of the best trial as seen."})
    expected_value: float = field(metadata={"help": "The best value with the luck taken out."})
    noise_share: float = field(
        metadata={"help": "Share of the trials' spread that noise explains, in [0, 1]."}
    )
    n_trials: int = field(metadata={"help": "Trials with a value."})

    def __float__(self) -> float:
        """Return the optimism."""
        return self.optimism


def selection_optimism(
    values: ArrayLike,
    standard_error: float,
    *,
    direction: str = "maximize",
    correlation: float = 0.0,
) -> SelectionOptimism:
    """Estimate how much of the best trial's value is luck.

    Args:
        values: Validation values of the completed trials, shape (n,); NaN is passed over.
        standard_error: Standard error of one value, for example from the bootstrap of the best
            trial or `auc_standard_error` of the smallest group.
        direction: "maximize" or "minimize", as in the study.
        correlation: Correlation of the noise between trials, in [0, 1). Trials measured on the
            same rows share some of it, and what they share does not mislead the choice. 0 where
            it is not known makes an upper estimate: about twice the luck at a correlation of 0.8.

    Returns:
        The estimate; `optimism` is >= 0, and 0 with one trial. In simulated searches of 20 to 100
        trials (equal, normal, uniform, skewed, partly failed, adaptive) its mean is 0.8 to 1.2
        times the mean luck, given the correlation; for one search it is known to about half a
        standard error.

    Raises:
        ValueError: If no value is defined, the standard error is negative or not finite, or the
            correlation is outside [0, 1).

    Source: empirical Bayes shrinkage, Efron and Morris 1973, JASA 68; here towards the upper half.

    Example:
        >>> result = selection_optimism([0.70, 0.74, 0.78], standard_error=0.04)
        >>> round(float(result), 3), round(result.expected_value, 3)
        (0.04, 0.74)
    """
    check_choice("direction", direction, ("maximize", "minimize"))
    if not np.isfinite(standard_error) or standard_error < 0:
        raise ValueError(
            f"standard_error: expected a finite number >= 0, got {standard_error}. "
            f"Estimate it by bootstrap or with auc_standard_error."
        )
    if not 0.0 <= correlation < 1.0:
        raise ValueError(f"correlation: expected a number in [0, 1), got {correlation}.")
    array = np.asarray(values, dtype=np.float64).ravel()
    array = array[~np.isnan(array)]
    if array.size == 0:
        raise ValueError("values: expected the value of at least one completed trial, got none.")
    sign = 1.0 if direction == "maximize" else -1.0
    luck, share = _luck(np.sort(sign * array), standard_error**2 * (1 - correlation))
    best = sign * float((sign * array).max())
    return SelectionOptimism(
        optimism=luck,
        best_value=best,
        expected_value=best - sign * luck,
        noise_share=share,
        n_trials=int(array.size),
    )


def _luck(values: FloatArray, noise: float) -> tuple[float, float]:
    """Return the luck in the largest of sorted values, and the share noise has in their spread.

    Failed trials and a plateau give the values a long lower tail, which must not pass for a true
    spread among the good ones. So only the upper half counts, measured in two ways (its distance
    from the median, and a straight line in a normal plot); the larger luck is taken.
    """
    if values.size < 2 or noise == 0:
        return 0.0, 0.0
    median = float(np.median(values))
    upper = values[values >= median] - median
    plot = norm.ppf((np.arange(1, values.size + 1) - 0.375) / (values.size + 0.25))
    half = max(2, math.ceil(values.size / 2))
    slope, intercept = np.polyfit(plot[-half:], values[-half:], 1)
    pairs = [(median, float((upper**2).mean())), (float(intercept), float(slope) ** 2)]
    return max(_shrunken(float(values[-1]), centre, spread, noise) for centre, spread in pairs)


def _shrunken(best: float, centre: float, spread: float, noise: float) -> tuple[float, float]:
    share = min(1.0, noise / spread) if spread > 0 else 1.0
    return max(0.0, share * (best - centre)), share
