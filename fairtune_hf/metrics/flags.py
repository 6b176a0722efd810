"""Warnings a table of numbers should carry: levelling down, and a model that has collapsed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from fairtune_hf.metrics.arrays import check_labels, check_scores
from fairtune_hf.metrics.delong import delong_auc


def is_levelling_down(differences: dict[str, float], worst: str) -> bool:
    """Tell whether parity was bought with losses.

    True if every group lost against the reference, or if the group that was worst in the reference
    gained (or held) less than the other groups lost on average. Judged on the point estimates:
    read it beside the interval.

    Args:
        differences: Change of each group's AUC against the reference; NaN is passed over.
        worst: Name of the group that is worst in the reference.

    Source: Mittelstadt, Wachter and Russell 2023, The Unfairness of Fair Machine Learning.

    Example:
        >>> is_levelling_down({"f": 0.01, "m": -0.05}, "f")
        True
        >>> is_levelling_down({"f": 0.04, "m": -0.01}, "f")
        False
    """
    defined = {name: value for name, value in differences.items() if not math.isnan(value)}
    if not defined:
        return False
    if all(value < 0 for value in defined.values()):
        return True
    others = [value for name, value in defined.items() if name != worst]
    if worst not in defined or not others:
        return False
    return 0 <= defined[worst] < -float(np.mean(others))


def collapse_reason(
    y_true: ArrayLike, y_score: ArrayLike, *, min_spread: float = 1e-3
) -> str | None:
    """Return why a model looks collapsed, or None.

    It does if its scores are all but constant (98 % of them within `min_spread`), or if its AUC
    cannot be told from 0.5 (DeLong, 5 %). A group gap of such a model is near 0 and means nothing.

    Raises:
        TypeError: If labels or scores are not numbers.
        ValueError: If there is no row or a score is NaN.

    Example:
        >>> collapse_reason([0, 1, 0, 1], [0.2, 0.2, 0.2, 0.2])
        'the scores are constant'
        >>> collapse_reason([0, 1] * 50, [0.1, 0.9] * 49 + [0.9, 0.1]) is None
        True
    """
    labels = check_labels(y_true)
    scores = check_scores(y_score, labels.size)
    if scores.min() == scores.max():
        return "the scores are constant"
    low, high = np.quantile(scores, [0.01, 0.99])
    if high - low < min_spread:
        return f"98 % of the scores lie within {high - low:.1g} of each other"
    if labels.min() == labels.max():
        return None
    estimate = delong_auc(labels, scores)
    if estimate.p_value >= 0.05:
        low, high = estimate.ci
        return f"the AUC of {estimate.value:.3f} ({low:.3f} to {high:.3f}) cannot be told from 0.5"
    return None
