"""Operating points: chosen on validation, frozen for test.

Choosing a threshold on the rows it is judged on flatters it. So the point is a value of its own:
choose it here on validation rows and pass `point.threshold` on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve

from fairtune_hf.metrics.checks import FloatArray, check_choice, check_labels, check_scores

RULES = ("fixed", "youden", "sensitivity", "specificity")


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, how it was chosen, and what it gave where it was chosen."""

    threshold: float = field(metadata={"help": "score >= threshold is a positive prediction."})
    rule: str = field(metadata={"help": "fixed, youden, sensitivity or specificity."})
    target: float | None = field(metadata={"help": "What the rule asked for; None for youden."})
    sensitivity: float = field(metadata={"help": "True-positive rate where it was chosen."})
    specificity: float = field(metadata={"help": "True-negative rate where it was chosen."})


def choose_operating_point(
    y_true: ArrayLike, y_score: ArrayLike, *, rule: str = "youden", target: float | None = None
) -> OperatingPoint:
    """Choose a threshold on validation rows.

    Args:
        y_true: Labels 0 and 1, shape (n,), both classes.
        y_score: Scores of class 1, shape (n,).
        rule: "youden" has the largest sensitivity + specificity (of several, the highest
            threshold); "sensitivity" is the highest threshold reaching the target; "specificity"
            the lowest threshold reaching it; "fixed" takes the target as threshold, 0.5 if None.
        target: The sensitivity or specificity asked for, in [0, 1], or the fixed threshold.

    Raises:
        TypeError: If labels or scores are not numbers.
        ValueError: If there is one class, the rule is unknown, or the target is missing or
            outside [0, 1].

    Source: Youden 1950, Cancer 3.

    Example:
        >>> point = choose_operating_point([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        >>> point.threshold, point.sensitivity, point.specificity
        (0.8, 0.5, 1.0)
        >>> choose_operating_point(
        ...     [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], rule="sensitivity", target=0.9
        ... ).threshold
        0.35
    """
    labels = check_labels(y_true)
    scores = check_scores(y_score, labels.size)
    check_choice("rule", rule, RULES)
    if labels.min() == labels.max():
        raise ValueError(
            f"y_true: expected both classes, got {int(labels.sum())} positive of {labels.size} "
            f"rows. Choose the operating point on the whole validation split."
        )
    wanted = _target(rule, target)
    if rule == "fixed":
        threshold = float(wanted or 0.0)
    else:
        curve = roc_curve(labels, scores, drop_intermediate=False)
        threshold = _threshold(curve, rule, wanted)
        # roc_curve begins with infinity, "nothing is positive"; JSON wants a finite number.
        threshold = min(threshold, float(np.nextafter(scores.max(), np.inf)))
    hit = scores >= threshold
    return OperatingPoint(
        threshold=threshold,
        rule=rule,
        target=wanted,
        sensitivity=float(hit[labels == 1].mean()),
        specificity=float((~hit)[labels == 0].mean()),
    )


def _target(rule: str, target: float | None) -> float | None:
    if rule == "youden":
        if target is not None:
            raise ValueError(f"target: expected None for rule 'youden', got {target}.")
        return None
    if rule == "fixed":
        return 0.5 if target is None else float(target)
    if target is None or not 0.0 <= target <= 1.0:
        raise ValueError(
            f"target: expected the {rule} to reach, in [0, 1], got {target}. For example 0.9."
        )
    return float(target)


def _threshold(
    curve: tuple[FloatArray, FloatArray, FloatArray], rule: str, target: float | None
) -> float:
    """Return the threshold from a ROC curve, whose thresholds fall from point to point."""
    fpr, tpr, thresholds = curve
    if rule == "youden":
        return float(thresholds[np.argmax(tpr - fpr)])
    slack = 1e-12
    if rule == "sensitivity":
        return float(thresholds[np.argmax(tpr >= (target or 0.0) - slack)])
    reached = np.flatnonzero(1 - fpr >= (target or 0.0) - slack)
    return float(thresholds[reached[-1]])
