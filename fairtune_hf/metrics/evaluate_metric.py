"""The group metrics as a metric of the `evaluate` library, without any download.

`FairnessMetric()` is made from this class; `evaluate.load` would fetch a script from the Hub.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from fairtune_hf.metrics.groups import flat_metrics, group_metrics

_DESCRIPTION = "AUC overall and by group, its minimum and gap, and fairlearn's differences."
_INPUTS = """
Args:
    predictions: scores of class 1, one float per row.
    references: labels, 0 or 1.
    sensitive_features: group of each row, as a string.
    threshold: a score at or above it is a positive prediction.
    errors: "coerce" gives NaN with a warning where a group has one class, "raise" an error.
"""
_CITATION = """
@inproceedings{dutt2024fairtune,
  title = {FairTune: Optimizing Parameter Efficient Fine Tuning
    for Fairness in Medical Image Analysis},
  author = {Dutt, Raman and Bohdal, Ondrej and Tsaftaris, Sotirios A. and Hospedales, Timothy},
  booktitle = {International Conference on Learning Representations},
  year = {2024}
}
"""


class FairnessMetric(evaluate.Metric):  # type: ignore[misc]
    """Group metrics over everything added, in one pass: batches and processes do not matter.

    Example:
        >>> metric = FairnessMetric()
        >>> metric.add_batch(
        ...     predictions=[0.1, 0.9], references=[0, 1], sensitive_features=["f", "f"]
        ... )
        >>> metric.add_batch(
        ...     predictions=[0.6, 0.4], references=[0, 1], sensitive_features=["m", "m"]
        ... )
        >>> found = metric.compute()
        >>> found["min_auc"], found["auc_f"]
        (0.0, 1.0)
    """

    def _info(self) -> Any:
        """Describe inputs to the library."""
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("float64"),
                    "references": datasets.Value("int64"),
                    "sensitive_features": datasets.Value("string"),
                }
            ),
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        sensitive_features: Any,
        threshold: float = 0.5,
        errors: str = "coerce",
    ) -> dict[str, float]:
        """Compute the metrics of all rows added."""
        found = group_metrics(
            np.asarray(references),
            np.asarray(predictions),
            sensitive_features=list(sensitive_features),
            threshold=threshold,
            errors=errors,
        )
        return flat_metrics(found)
