"""Warnings a table of numbers should carry: levelling down, and a model that has collapsed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

COLLAPSED_BELOW = 0.55
_SPREAD = 1e-3


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


@dataclass(frozen=True)
class CollapseFlag:
    """A model that ranks no better than chance, or of which that cannot be ruled out."""

    collapsed: bool = field(
        metadata={
            "help": "True: the scores are (nearly) constant or the AUC is below 0.55. False: the AUC "
            "is higher, and its interval reaches 0.5."
        }
    )
    reason: str = field(metadata={"help": "What was seen, with the numbers."})


def collapse_flag(
    auc: float | None, auc_ci: Sequence[float] | None = None, y_score: ArrayLike | None = None
) -> CollapseFlag | None:
    """Tell a model that has collapsed from one that cannot be told from chance; None for any other.

    A small gap between the groups of a collapsed model means nothing. That an AUC cannot be told
    from 0.5 shows no collapse: there may be too few patients.

    Args:
        auc: Overall AUC in [0, 1]; None or NaN where it is undefined.
        auc_ci: Its 95 % interval; give the one over patients where patients are known.
        y_score: Scores of shape (n,), n > 0. They count as constant if 98 % of them lie within 0.001.

    Example:
        >>> collapse_flag(0.66, (0.446, 0.828))
        CollapseFlag(collapsed=False, reason='AUC 0.660, 0.446 to 0.828')
        >>> collapse_flag(0.5, None, [0.2, 0.2, 0.2]).reason
        'the scores are constant'
        >>> collapse_flag(0.8, (0.7, 0.9)) is None
        True
    """
    if y_score is not None:
        scores = np.asarray(y_score, dtype=np.float64)
        if scores.min() == scores.max():
            return CollapseFlag(True, "the scores are constant")
        low, high = np.quantile(scores, [0.01, 0.99])
        if high - low < _SPREAD:
            spread = f"98 % of the scores lie within {high - low:.1g} of each other"
            return CollapseFlag(True, spread)
    if auc is None or math.isnan(auc):
        return None
    shown = f"AUC {auc:.3f}" + (f", {auc_ci[0]:.3f} to {auc_ci[1]:.3f}" if auc_ci else "")
    if auc < COLLAPSED_BELOW:
        return CollapseFlag(True, shown)
    if auc_ci and auc_ci[0] <= 0.5:
        return CollapseFlag(False, shown)
    return None
