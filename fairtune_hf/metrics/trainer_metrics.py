"""`compute_metrics` for the Hugging Face Trainer.

The group travels as a second label column: with `TrainingArguments(label_names=["labels",
"group"])` the Trainer hands over `label_ids = (labels, group codes)`, gathered over the whole
split and over all processes, so a value does not depend on the batch size. No torch import here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from fairtune_hf.metrics.checks import (
    FloatArray,
    GroupCodes,
    IntArray,
    check_labels,
    check_scores,
    check_threshold,
)
from fairtune_hf.metrics.groups import flat_metrics, measure, report_undefined


class ComputeMetrics:
    """Turn the Trainer's predictions of a whole split into a dictionary of metrics.

    Raises, when called:
        ValueError: If a group has one class (or, with `group_names`, no rows), with its counts.

    Example:
        >>> from types import SimpleNamespace
        >>> logits = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
        >>> labels, groups = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
        >>> metrics = ComputeMetrics(group_names=["female", "male"])
        >>> found = metrics(SimpleNamespace(predictions=logits, label_ids=(labels, groups)))
        >>> found["min_auc"], found["auc_female"]
        (1.0, 1.0)
    """

    def __init__(self, group_names: Sequence[str] | None = None, threshold: float = 0.5) -> None:
        """Remember the names of the group codes and the threshold."""
        self.group_names = None if group_names is None else tuple(map(str, group_names))
        self.threshold = check_threshold(threshold)

    def __call__(self, eval_prediction: Any) -> dict[str, float]:
        """Return the metrics of `eval_prediction` (predictions (n, 2), label_ids a pair).

        Raises:
            ValueError: If the shapes are wrong, a logit is NaN, or a group has one class.
        """
        labels, codes = _labels_and_groups(eval_prediction.label_ids)
        scores = positive_probability(eval_prediction.predictions)
        check_scores(scores, labels.size, name="logits")
        groups = self._groups(codes, labels.size)
        found = measure(labels, scores, groups, self.threshold)
        report_undefined(found.warnings, "raise")
        return flat_metrics(found)

    def _groups(self, codes: IntArray, n_rows: int) -> GroupCodes:
        if codes.shape != (n_rows,):
            raise ValueError(
                f"label_ids: expected {n_rows} group codes as there are labels, got shape "
                f"{codes.shape}. Give each row one code."
            )
        if self.group_names is None:
            present, positions = np.unique(codes, return_inverse=True)
            return GroupCodes(positions.astype(np.int64), tuple(map(str, present.tolist())))
        outside = codes[(codes < 0) | (codes >= len(self.group_names))]
        if outside.size:
            raise ValueError(
                f"label_ids: expected group codes 0 to {len(self.group_names) - 1} "
                f"({', '.join(self.group_names)}), got {outside[0]}. Drop rows without a group."
            )
        return GroupCodes(codes, self.group_names)


def positive_probability(logits: Any) -> FloatArray:
    """Return the softmax probability of class 1 in float64, shape (n,), from logits (n, 2).

    A model that returns more than logits hands over a tuple: its first entry is taken.

    Raises:
        ValueError: If the logits are not of shape (n, 2).

    Example:
        >>> positive_probability(np.array([[0.0, 0.0]]))
        array([0.5])
    """
    first = logits[0] if isinstance(logits, tuple | list) else logits
    array = np.asarray(first, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(
            f"predictions: expected logits of shape (rows, 2), got {array.shape}. "
            f"Use a model with two classes (num_labels=2)."
        )
    return np.asarray(softmax(array, axis=1)[:, 1], dtype=np.float64)


def _labels_and_groups(label_ids: Any) -> tuple[IntArray, IntArray]:
    if not isinstance(label_ids, tuple | list) or len(label_ids) != 2:
        raise ValueError(
            "label_ids: expected a pair (labels, group codes), got "
            f"{type(label_ids).__name__}. Set TrainingArguments(label_names=['labels', 'group'])."
        )
    labels = check_labels(label_ids[0], name="labels")
    return labels, np.asarray(label_ids[1]).astype(np.int64)


compute_metrics = ComputeMetrics()
