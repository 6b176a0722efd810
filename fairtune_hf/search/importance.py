"""What a search found out about the parts of the model: effects of bits, and how often good masks set them.

Optuna's default importance (PED-ANOVA) fails on bits: of 8 truly important ones among 36 it put 1.4 among
its first 8 over 60 trials (chance 1.8), where ridge main effects put 6.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_PENALTIES = np.logspace(-2, 4, 25)
_RESAMPLES = 500
FEWEST_TRIALS = 8


def bit_effects(
    bits: FloatArray,
    values: FloatArray,
    learning_rates: FloatArray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Estimate how much the objective changes when one bit is set, all else equal.

    A ridge regression of the values on the bits and, so that it does not pass for an effect of masks, on
    the logarithm of the learning rate and its square. The penalty is the one with the smallest
    leave-one-out error; the shrinkage makes effects too small rather than too large.

    Args:
        bits: `(trials, bits)` of 0 and 1.
        values: `(trials,)` objective of each trial.
        learning_rates: `(trials,)`.
        confidence: Coverage of the intervals.
        seed: Seed of the resampling of trials behind the intervals.

    Returns:
        Effect, low and high end of its interval, each `(bits,)`, in the objective's unit. A bit that no trial or every
        trial sets has effect 0.
    """
    design = _design(bits, learning_rates)
    penalty = _best_penalty(design, values)
    effects = _ridge(design, values, penalty)[: bits.shape[1]]
    generator = np.random.default_rng(seed)
    draws = np.empty((_RESAMPLES, bits.shape[1]))
    for row in range(_RESAMPLES):
        picked = generator.integers(0, len(values), len(values))
        draws[row] = _ridge(design[picked], values[picked], penalty)[: bits.shape[1]]
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return effects, low, high


def describe_importance(
    names: Sequence[str], masks: Sequence[str], values: Sequence[float], rates: Sequence[float]
) -> dict[str, Any] | None:
    """Return the `importance` entry of run.json's search, or None with too few trials to say anything."""
    if len(values) < FEWEST_TRIALS:
        return None
    bits = np.array([[int(bit) for bit in mask] for mask in masks], dtype=np.float64)
    effects, low, high = bit_effects(
        bits, np.asarray(values, dtype=np.float64), np.asarray(rates, dtype=np.float64)
    )
    rows = [
        {"name": name, "effect": float(e), "low": float(a), "high": float(b)}
        for name, e, a, b in zip(names, effects, low, high, strict=True)
    ]
    return {
        "method": "ridge main effects, 95 % bootstrap intervals over trials",
        "trials": len(values),
        "bits": rows,
    }


def describe_frequency(names: Sequence[str], masks: Sequence[str]) -> dict[str, Any]:
    """Return the `mask_frequency` entry: how often each bit is set in the best quarter and in all trials.

    Args:
        names: Names of the bits.
        masks: Masks of the complete trials, best first.
    """
    bits = np.array([[int(bit) for bit in mask] for mask in masks], dtype=np.float64)
    best = bits[: max(1, len(masks) // 4)]
    return {
        "best_trials": len(best),
        "trials": len(masks),
        "bits": [
            {"name": name, "best": float(b), "all": float(a)}
            for name, b, a in zip(names, best.mean(axis=0), bits.mean(axis=0), strict=True)
        ],
    }


def _design(bits: FloatArray, learning_rates: FloatArray) -> FloatArray:
    """Bits as they are (a coefficient is then an effect), and the learning rate to the same scale."""
    rate = np.log(learning_rates)
    spread = rate.std()
    rate = (rate - rate.mean()) / (2 * spread) if spread > 0 else np.zeros_like(rate)
    return np.column_stack([bits, rate, rate**2])


def _ridge(design: FloatArray, values: FloatArray, penalty: float) -> FloatArray:
    centred = design - design.mean(axis=0)
    gram = centred.T @ centred + penalty * np.eye(design.shape[1])
    return np.asarray(np.linalg.solve(gram, centred.T @ (values - values.mean())))


def _best_penalty(design: FloatArray, values: FloatArray) -> float:
    centred, target = design - design.mean(axis=0), values - values.mean()
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    errors = []
    for penalty in _PENALTIES:
        shrink = scale**2 / (scale**2 + penalty)
        hat = (left * shrink) @ left.T
        leverage = np.diag(hat) + 1 / len(values)
        errors.append(np.mean(((target - hat @ target) / np.maximum(1 - leverage, 1e-6)) ** 2))
    return float(_PENALTIES[int(np.argmin(errors))])
