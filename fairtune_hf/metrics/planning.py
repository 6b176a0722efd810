"""How wide an AUC's interval will be, before there is a model: for choosing groups and splits."""

from __future__ import annotations

import math

from scipy.stats import norm


def auc_standard_error(positives: int, negatives: int, *, auc: float = 0.8) -> float:
    """Return the standard error of an AUC expected from the two counts.

    Raises:
        ValueError: If a count is below 1 or the AUC is outside [0, 1].

    Source: Hanley and McNeil 1982, Radiology 143, equations 1 and 2 (exponential model).

    Example:
        >>> round(auc_standard_error(25, 100), 4)
        0.056
    """
    if positives < 1 or negatives < 1:
        raise ValueError(
            f"positives, negatives: expected at least 1 of each, got {positives} and {negatives}. "
            f"An AUC needs both classes."
        )
    if not 0.0 <= auc <= 1.0:
        raise ValueError(f"auc: expected a fraction in [0, 1], got {auc}. Divide percent by 100.")
    two_positives = auc / (2 - auc) - auc**2
    two_negatives = 2 * auc**2 / (1 + auc) - auc**2
    spread = auc * (1 - auc) + (positives - 1) * two_positives + (negatives - 1) * two_negatives
    return math.sqrt(spread / (positives * negatives))


def auc_half_width(
    positives: int, negatives: int, *, auc: float = 0.8, confidence: float = 0.95
) -> float:
    """Return the half-width of an AUC's interval to be expected from the two counts, at most 0.5.

    With 25 positives and 100 negatives, expect an AUC near 0.8 to be known to 11 points.

    Raises:
        ValueError: If a count is below 1, or a fraction is outside its range.

    Source: Hanley and McNeil 1982, Radiology 143.

    Example:
        >>> round(auc_half_width(25, 100), 2)
        0.11
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: expected a fraction in (0, 1), got {confidence}.")
    quantile = float(norm.ppf((1 + confidence) / 2))
    # An interval within [0, 1] cannot be wider than that.
    return min(0.5, quantile * auc_standard_error(positives, negatives, auc=auc))
