"""How much of the best trial's validation value is luck.

The best of many noisy values is chosen for its value and for its luck. The estimate shrinks the
best value towards the mean of all trials by the share of their spread that noise explains.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from fairtune_hf.metrics.arrays import check_choice


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
            same rows share some of it, and what they share does not mislead the choice.

    Returns:
        The estimate; `optimism` is in [0, best - mean] and 0 with one trial.

    Raises:
        ValueError: If no value is defined, the standard error is negative or not finite, or the
            correlation is outside [0, 1).

    Source: empirical Bayes shrinkage, Efron and Morris 1973, JASA 68.

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
    best = float(array.max() if direction == "maximize" else array.min())
    own_noise = standard_error**2 * (1 - correlation)
    spread = float(array.var(ddof=1)) if array.size > 1 else 0.0
    share = 0.0 if own_noise == 0 else min(1.0, own_noise / spread) if spread > 0 else 1.0
    luck = share * (best - float(array.mean()))
    return SelectionOptimism(
        optimism=abs(luck),
        best_value=best,
        expected_value=best - luck,
        noise_share=share,
        n_trials=int(array.size),
    )
