"""The metrics of a table of predictions under many weightings of the patients at once.

The same numbers as `groups.py` gives on the repeated rows; `METRICS` names them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from scipy.special import xlogy

from fairtune_hf.metrics.arrays import FloatArray, GroupCodes, IntArray, check_choice
from fairtune_hf.metrics.calibration import BINS, are_probabilities
from fairtune_hf.metrics.groups import GroupMetrics
from fairtune_hf.metrics.resampling import Design, ResampledAuc, ResampledAveragePrecision


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
        self._labels, self._scores, self._groups = labels, scores, groups
        self._clusters, self._n_clusters = design.clusters, design.n_clusters
        self._threshold = threshold
        self._kept: tuple[FloatArray | None, dict[str, FloatArray]] = (None, {})

    def _once(self, name: str, counts: FloatArray, value: Callable[[], FloatArray]) -> FloatArray:
        """Return a value of the matrix asked about last, computed once for all metrics."""
        if self._kept[0] is not counts:
            self._kept = (counts, {})
        found = self._kept[1]
        if name not in found:
            found[name] = value()
        return found[name]

    def overall_auc(self, counts: FloatArray) -> FloatArray:
        """Return the AUC of all rows, shape (resamples,)."""
        return self._once("overall", counts, lambda: self._auc(counts))

    def group_aucs(self, counts: FloatArray) -> FloatArray:
        """Return each group's AUC, shape (groups, resamples)."""
        return self._once(
            "groups", counts, lambda: np.stack([auc(counts) for auc in self._group_auc])
        )

    def aucs(self, counts: FloatArray) -> FloatArray:
        """Return (1 + groups, resamples): the overall AUC, then each group's."""
        return np.concatenate([self.overall_auc(counts)[None], self.group_aucs(counts)])

    def average_precision(self, counts: FloatArray) -> FloatArray:
        """Return the average precision of all rows, shape (resamples,)."""
        return self._average_precision(counts)

    def cells(self, counts: FloatArray) -> FloatArray:
        """Return the confusion matrices, shape (label, prediction, group, resamples)."""
        shape = (2, 2, len(self._groups.names), len(counts))
        return self._once(
            "cells", counts, lambda: np.asarray(self._cell_counts @ counts.T).reshape(shape)
        )

    def group_log_losses(self, counts: FloatArray) -> FloatArray:
        """Return each group's log loss, shape (groups, resamples)."""
        return _divide(self._group_losses @ counts.T, self.cells(counts).sum(axis=(0, 1)))

    def log_loss(self, counts: FloatArray) -> FloatArray:
        """Return the log loss of all rows, shape (resamples,)."""
        total = np.asarray(self._group_losses @ counts.T).sum(axis=0)
        return _divide(total, self._rows(counts))

    def brier(self, counts: FloatArray) -> FloatArray:
        """Return the mean squared error of the probability, shape (resamples,)."""
        return _divide(self._squares @ counts.T, self._rows(counts))

    def ece(self, counts: FloatArray) -> FloatArray:
        """Return the expected calibration error (10 equal bins), shape (resamples,)."""
        return _divide(np.abs(self._bin_gaps @ counts.T).sum(axis=0), self._rows(counts))

    def _rows(self, counts: FloatArray) -> FloatArray:
        return np.asarray(self._sum_by(np.ones(self._labels.size)) @ counts.T, dtype=np.float64)

    def _sum_by(self, values: FloatArray, rows: IntArray | None = None) -> FloatArray:
        """Sum values by patient, into a vector or (with `rows`) the rows of a matrix."""
        if rows is None:
            total = np.bincount(self._clusters, weights=values, minlength=self._n_clusters)
            return np.asarray(total, dtype=np.float64)
        height = int(rows.max()) + 1
        flat = rows * self._n_clusters + self._clusters
        total = np.bincount(flat, weights=values, minlength=height * self._n_clusters)
        return np.asarray(total, dtype=np.float64).reshape(height, self._n_clusters)

    @cached_property
    def _auc(self) -> ResampledAuc:
        return ResampledAuc(self._labels, self._scores, self._clusters)

    @cached_property
    def _group_auc(self) -> list[ResampledAuc]:
        inside = [self._groups.codes == code for code in range(len(self._groups.names))]
        return [
            ResampledAuc(self._labels[rows], self._scores[rows], self._clusters[rows])
            for rows in inside
        ]

    @cached_property
    def _average_precision(self) -> ResampledAveragePrecision:
        return ResampledAveragePrecision(self._labels, self._scores, self._clusters)

    @cached_property
    def _cell_counts(self) -> FloatArray:
        n_groups = len(self._groups.names)
        predicted = (self._scores >= self._threshold).astype(np.int64)
        cell = (self._labels * 2 + predicted) * n_groups + self._groups.codes
        counts = np.zeros((4 * n_groups, self._n_clusters))
        found = self._sum_by(np.ones(self._labels.size), cell)
        counts[: len(found)] = found
        return counts

    @cached_property
    def _probabilities(self) -> FloatArray:
        """The scores, or NaN throughout if they are no probabilities."""
        if are_probabilities(self._scores):
            return self._scores
        return np.full(self._scores.shape, np.nan)

    @cached_property
    def _group_losses(self) -> FloatArray:
        eps = np.finfo(np.float64).eps  # scikit-learn's clipping
        right = np.where(self._labels == 1, self._probabilities, 1 - self._probabilities)
        losses = -xlogy(1.0, np.clip(right, eps, 1 - eps))
        totals = np.zeros((len(self._groups.names), self._n_clusters))
        found = self._sum_by(losses, self._groups.codes)
        totals[: len(found)] = found
        return totals

    @cached_property
    def _squares(self) -> FloatArray:
        return self._sum_by((self._probabilities - self._labels) ** 2)

    @cached_property
    def _bin_gaps(self) -> FloatArray:
        edges = np.linspace(0.0, 1.0, BINS + 1)
        return self._sum_by(
            self._labels - self._probabilities, np.searchsorted(edges[1:-1], self._scores)
        )


Statistic = Callable[[ResampledTable, FloatArray], FloatArray]


def _divide(part: FloatArray, whole: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(whole > 0, part / whole, np.nan), dtype=np.float64)


def _spread(values: FloatArray) -> FloatArray:
    return np.asarray(values.max(axis=0) - values.min(axis=0), dtype=np.float64)


def _group_rate(label: int) -> Statistic:
    """Return the statistic (groups, resamples): share predicted positive of rows of a label."""

    def rate(table: ResampledTable, counts: FloatArray) -> FloatArray:
        cells = table.cells(counts)[label]
        return _divide(cells[1], cells.sum(axis=0))

    return rate


def _odds(table: ResampledTable, counts: FloatArray) -> FloatArray:
    return np.maximum(
        _spread(_group_rate(0)(table, counts)), _spread(_group_rate(1)(table, counts))
    )


def _parity(table: ResampledTable, counts: FloatArray) -> FloatArray:
    cells = table.cells(counts)
    return _spread(_divide(cells[:, 1].sum(axis=0), cells.sum(axis=(0, 1))))


def _equity_scaled(table: ResampledTable, counts: FloatArray) -> FloatArray:
    overall = table.overall_auc(counts)
    distances = np.abs(table.group_aucs(counts) - overall)
    return np.asarray(overall / (1 + distances.sum(axis=0)), dtype=np.float64)


def _overall_rate(name: str) -> Statistic:
    def rate(table: ResampledTable, counts: FloatArray) -> FloatArray:
        (tn, fp), (fn, tp) = table.cells(counts).sum(axis=2)
        sensitivity, fpr = _divide(tp, tp + fn), _divide(fp, fp + tn)
        values = {
            "accuracy": _divide(tp + tn, tp + tn + fp + fn),
            "balanced_accuracy": (sensitivity + 1 - fpr) / 2,
            "sensitivity": sensitivity,
            "specificity": 1 - fpr,
            "ppv": _divide(tp, tp + fp),
            "fnr": 1 - sensitivity,
            "fpr": fpr,
            "selection_rate": _divide(tp + fp, tp + tn + fp + fn),
        }
        return values[name]

    return rate


_RATES = (
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "ppv",
    "fnr",
    "fpr",
    "selection_rate",
)

METRICS: dict[str, Statistic] = {
    "overall_auc": ResampledTable.overall_auc,
    "min_auc": lambda table, counts: table.group_aucs(counts).min(axis=0),
    "max_auc": lambda table, counts: table.group_aucs(counts).max(axis=0),
    "auc_gap": lambda table, counts: _spread(table.group_aucs(counts)),
    "equalized_odds_difference": _odds,
    "demographic_parity_difference": _parity,
    "equal_opportunity_difference": lambda table, counts: _spread(_group_rate(1)(table, counts)),
    "equity_scaled_auc": _equity_scaled,
    "max_group_loss": lambda table, counts: table.group_log_losses(counts).max(axis=0),
    "average_precision": ResampledTable.average_precision,
    **{name: _overall_rate(name) for name in _RATES},
    "log_loss": ResampledTable.log_loss,
    "brier": ResampledTable.brier,
    "ece": ResampledTable.ece,
}


def statistic(metric: str, groups: GroupCodes) -> Statistic:
    """Return the resampled form of a metric: a name of `METRICS`, or auc_<group>.

    Raises:
        ValueError: If the name is unknown, with the closest match.
    """
    by_group = {f"auc_{name}": code for code, name in enumerate(groups.names)}
    if metric in by_group and metric not in METRICS:
        code = by_group[metric]
        return lambda table, counts: table.group_aucs(counts)[code]
    return METRICS[check_choice("metric", metric, (*METRICS, *by_group))]


def point_value(found: GroupMetrics, metric: str) -> float:
    """Return a metric, named as in `statistic`, of one table."""
    if hasattr(found, metric):
        return float(getattr(found, metric))
    if hasattr(found.overall, metric):
        return float(getattr(found.overall, metric))
    return found.by_group[metric.removeprefix("auc_")].auc
