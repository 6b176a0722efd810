"""The engine: a table of predictions under any weightings of its patients, and all metrics from it.

One row of ones gives the point values, one of sample weights the weighted ones, rows of counts the
bootstrap. What is measured is declared in `registry.py`; here is what the declarations need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from fairtune_hf.metrics.calibration import BINS, are_probabilities
from fairtune_hf.metrics.checks import FloatArray, GroupCodes, IntArray
from fairtune_hf.metrics.registry import OF_ROWS, divide
from fairtune_hf.metrics.resampling import Design, ResampledAuc, ResampledAveragePrecision

_INNER_EDGES = np.linspace(0.0, 1.0, BINS + 1)[1:-1]


class ResampledTable:
    """Prepared once from the rows, then asked for (resamples, patients) matrices of counts."""

    def __init__(
        self,
        labels: IntArray,
        scores: FloatArray,
        groups: GroupCodes,
        design: Design,
        threshold: float = 0.5,
    ) -> None:
        self.labels, self.scores, self.groups, self.design = labels, scores, groups, design
        self.threshold = threshold
        self._are_probabilities = are_probabilities(scores)
        self._latest: WeightedTable | None = None

    @cached_property
    def whole(self) -> ResampledRows:
        """All rows."""
        return self._rows(slice(None))

    @cached_property
    def by_group(self) -> list[ResampledRows]:
        """The rows of each group."""
        codes = self.groups.codes
        return [self._rows(codes == code) for code in range(len(self.groups.names))]

    def _rows(self, inside: slice | np.ndarray) -> ResampledRows:
        labels, scores = self.labels[inside], self.scores[inside]
        probabilities = scores if self._are_probabilities else np.full(scores.shape, np.nan)
        return ResampledRows(
            labels, scores, probabilities, self.design.clusters[inside], self.design.n_clusters,
            self.threshold,
        )  # fmt: skip

    def under(self, counts: FloatArray, judged: Sequence[int] | None = None) -> WeightedTable:
        """Weigh the patients by each row of (resamples, patients), for all metrics at once.

        Args:
            counts: How often each patient is drawn, or her weight.
            judged: The groups that minimum, maximum and gap of the AUC are taken over; all if None.
        """
        latest = self._latest
        if latest is None or latest.counts is not counts or latest.judged != judged:
            latest = self._latest = WeightedTable(self, counts, judged)
        return latest


class ResampledRows:
    """One set of rows, sorted and summed by patient where a metric needs it."""

    def __init__(
        self,
        labels: IntArray,
        scores: FloatArray,
        probabilities: FloatArray,
        clusters: IntArray,
        n_clusters: int,
        threshold: float,
    ) -> None:
        self.labels, self.scores, self.clusters = labels, scores, clusters
        self._probabilities, self._n_clusters, self._threshold = (
            probabilities,
            n_clusters,
            threshold,
        )

    def _sum_by(
        self, values: FloatArray | None, rows: IntArray | None = None, height: int = 1
    ) -> FloatArray:
        """Sum values (ones if None) by patient, into the rows of a matrix (height, patients)."""
        flat = self.clusters if rows is None else rows * self._n_clusters + self.clusters
        total = np.bincount(flat, weights=values, minlength=height * self._n_clusters)
        return total.astype(np.float64).reshape(height, self._n_clusters)

    @cached_property
    def auc(self) -> ResampledAuc:
        """The AUC, ready for counts."""
        return ResampledAuc(self.labels, self.scores, self.clusters)

    @cached_property
    def average_precision(self) -> ResampledAveragePrecision:
        """The average precision, ready for counts."""
        return ResampledAveragePrecision(self.labels, self.scores, self.clusters)

    @cached_property
    def cells(self) -> FloatArray:
        """Rows of each patient (4, patients): true and false negatives, false and true positives."""
        if math.isnan(self._threshold):
            return np.full((4, self._n_clusters), np.nan)
        predicted = (self.scores >= self._threshold).astype(np.int64)
        return self._sum_by(None, self.labels * 2 + predicted, 4)

    @cached_property
    def n(self) -> FloatArray:
        """Rows of each patient, (1, patients)."""
        return self._sum_by(None)

    @cached_property
    def losses(self) -> FloatArray:
        """Sums of the log loss by patient, (1, patients)."""
        eps = np.finfo(np.float64).eps  # scikit-learn's clipping
        right = np.where(self.labels == 1, self._probabilities, 1 - self._probabilities)
        return self._sum_by(-np.log(np.clip(right, eps, 1 - eps)))

    @cached_property
    def squares(self) -> FloatArray:
        """Sums of the squared error of the probability by patient, (1, patients)."""
        return self._sum_by((self._probabilities - self.labels) ** 2)

    @cached_property
    def bin_gaps(self) -> FloatArray:
        """Sums of label minus probability by bin of the score and patient, (bins, patients)."""
        bins = np.searchsorted(_INNER_EDGES, self.scores)
        return self._sum_by(self.labels - self._probabilities, bins, BINS)


class WeightedRows:
    """One set of rows under counts: what the metrics of `GroupRow` are made of, each (resamples,)."""

    def __init__(self, rows: ResampledRows, counts: FloatArray) -> None:
        self._rows, self._counts = rows, counts
        self._found: dict[str, FloatArray] = {}

    def __getitem__(self, name: str) -> FloatArray:
        """Return a metric of `GroupRow` by name."""
        if name not in self._found:
            self._found[name] = OF_ROWS[name].function(self)
        return self._found[name]

    def _total(self, by_patient: FloatArray) -> FloatArray:
        return np.asarray(by_patient @ self._counts.T, dtype=np.float64)

    @cached_property
    def cells(self) -> FloatArray:
        """True negatives, false positives, false negatives and true positives, (4, resamples)."""
        return self._total(self._rows.cells)

    @cached_property
    def _n(self) -> FloatArray:
        return self._total(self._rows.n).ravel()

    @property
    def auc(self) -> FloatArray:
        """Area under the ROC curve; NaN without both classes."""
        return self._rows.auc(self._counts)

    @property
    def average_precision(self) -> FloatArray:
        """Average precision; NaN without a positive."""
        return self._rows.average_precision(self._counts)

    @property
    def log_loss(self) -> FloatArray:
        """Mean log loss; NaN unless the table's scores are probabilities."""
        return divide(self._total(self._rows.losses)[0], self._n)

    @property
    def brier(self) -> FloatArray:
        """Mean squared error of the probability."""
        return divide(self._total(self._rows.squares)[0], self._n)

    @property
    def ece(self) -> FloatArray:
        """Expected calibration error."""
        return divide(np.abs(self._total(self._rows.bin_gaps)).sum(axis=0), self._n)


class WeightedTable:
    """A table under counts: what the metrics of `GroupMetrics` are made of."""

    def __init__(
        self, table: ResampledTable, counts: FloatArray, judged: Sequence[int] | None = None
    ) -> None:
        self.counts, self.judged = counts, judged
        self._table = table

    @cached_property
    def whole(self) -> WeightedRows:
        """All rows."""
        return WeightedRows(self._table.whole, self.counts)

    @cached_property
    def by_group(self) -> list[WeightedRows]:
        """The rows of each group."""
        return [WeightedRows(rows, self.counts) for rows in self._table.by_group]

    def groups(self, name: str) -> FloatArray:
        """Return a metric of `GroupRow` of each group, shape (groups, resamples)."""
        return np.stack([rows[name] for rows in self.by_group])

    @property
    def judged_aucs(self) -> FloatArray:
        """The AUC of each group that is judged, shape (groups, resamples)."""
        found = self.groups("auc")
        return found if self.judged is None else found[list(self.judged)]
