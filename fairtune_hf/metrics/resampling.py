"""Resampling by patient, and statistics over thousands of resamples without a loop over them.

A resample is a column of counts: how often each patient was drawn. A statistic takes a matrix
(patients, resamples) and returns one number per column. Scores are sorted once, before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairtune_hf.metrics.arrays import FloatArray, GroupCodes, IntArray

# Resamples worked on together. Part of the definition of a seeded result: the random numbers are
# drawn chunk by chunk, so changing it changes the digits after the second or third.
CHUNK = 32


@dataclass(frozen=True)
class Design:
    """Who is drawn: the patient of each row and the stratum of each patient."""

    clusters: IntArray
    strata: IntArray

    @property
    def n_clusters(self) -> int:
        """Number of patients."""
        return int(self.strata.size)


def patient_design(labels: IntArray, groups: GroupCodes, patients: object | None) -> Design:
    """Build the design: draw patients, within strata of group and of having a positive row.

    A patient's group is the one of most of her rows. Rows without a patient (None or NaN) stand
    for themselves. Stratifying keeps each group's number of patients and of positive patients.
    """
    clusters = _cluster_codes(patients, labels.size)
    n_clusters = int(clusters.max()) + 1
    votes = np.zeros((n_clusters, len(groups.names)), dtype=np.int64)
    np.add.at(votes, (clusters, groups.codes), 1)
    positive = np.zeros(n_clusters, dtype=np.int64)
    np.maximum.at(positive, clusters, labels)
    _, strata = np.unique(votes.argmax(axis=1) * 2 + positive, return_inverse=True)
    return Design(clusters, strata.astype(np.int64))


def _cluster_codes(patients: object | None, n_rows: int) -> IntArray:
    if patients is None:
        return np.arange(n_rows, dtype=np.int64)
    codes, uniques = pd.factorize(np.asarray(patients))
    alone = codes < 0
    codes = codes.astype(np.int64)
    codes[alone] = len(uniques) + np.arange(int(alone.sum()))
    return codes


def draw_counts(design: Design, n_resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Yield matrices (patients, at most CHUNK resamples) of how often each patient is drawn."""
    members = [np.flatnonzero(design.strata == code) for code in np.unique(design.strata)]
    for start in range(0, n_resamples, CHUNK):
        width = min(CHUNK, n_resamples - start)
        counts = np.zeros((design.n_clusters, width))
        for inside in members:
            drawn = rng.integers(0, inside.size, size=(inside.size, width), dtype=np.int32)
            flat = drawn.astype(np.int64) * width + np.arange(width)
            found = np.bincount(flat.ravel(), minlength=inside.size * width)
            counts[inside] = found.reshape(inside.size, width)
        yield counts


class ResampledAuc:
    """AUC of fixed rows under many weightings of the patients, by weighted ranks.

    The negatives' weights are summed in the order of the scores; a positive then beats the weight
    below it and half the weight tied with it. Cost per resample: one pass over the rows.
    """

    def __init__(self, labels: IntArray, scores: FloatArray, clusters: IntArray) -> None:
        negative = np.flatnonzero(labels == 0)
        negative = negative[np.argsort(scores[negative], kind="stable")]
        positive = np.flatnonzero(labels == 1)
        # Sorting the positives too makes the look-ups below walk through memory in order.
        positive = positive[np.argsort(scores[positive], kind="stable")]
        below = scores[negative]
        self._negative = clusters[negative]
        self._positive = clusters[positive]
        self._first = np.searchsorted(below, scores[positive], side="left")
        self._last = np.searchsorted(below, scores[positive], side="right")

    def __call__(self, counts: FloatArray) -> FloatArray:
        """Return the AUC of each column of (patients, resamples); NaN without both classes."""
        width = counts.shape[1]
        sums = np.zeros((self._negative.size + 1, width))
        np.cumsum(counts[self._negative], axis=0, out=sums[1:])
        weights = counts[self._positive]
        beaten = sums[self._first]
        beaten += sums[self._last]
        wins = 0.5 * np.einsum("ij,ij->j", weights, beaten)
        pairs = weights.sum(axis=0) * sums[-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(pairs > 0, wins / pairs, np.nan), dtype=np.float64)


class ResampledTable:
    """The metrics of a table of predictions under many weightings of the patients."""

    def __init__(
        self,
        labels: IntArray,
        scores: FloatArray,
        groups: GroupCodes,
        design: Design,
        threshold: float,
    ) -> None:
        self._overall = ResampledAuc(labels, scores, design.clusters)
        inside = [groups.codes == code for code in range(len(groups.names))]
        self._groups = [
            ResampledAuc(labels[rows], scores[rows], design.clusters[rows]) for rows in inside
        ]
        self._cells = _cell_counts(labels, scores >= threshold, groups, design)

    def aucs(self, counts: FloatArray) -> FloatArray:
        """Return (1 + groups, resamples): the overall AUC, then each group's."""
        return np.stack([self._overall(counts), *(auc(counts) for auc in self._groups)])

    def rates(self, counts: FloatArray) -> FloatArray:
        """Return (3, groups, resamples): selection rate, TPR and FPR of each group."""
        n_groups = len(self._groups)
        cells = (self._cells @ counts).reshape(2, 2, n_groups, counts.shape[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            selection = cells[:, 1].sum(axis=0) / cells.sum(axis=(0, 1))
            true_positive = cells[1, 1] / cells[1].sum(axis=0)
            false_positive = cells[0, 1] / cells[0].sum(axis=0)
        return np.stack([selection, true_positive, false_positive])


def _cell_counts(
    labels: IntArray, predicted: NDArray[np.bool_], groups: GroupCodes, design: Design
) -> FloatArray:
    """Return (label x prediction x group, patients): the rows of each patient in each cell."""
    n_groups = len(groups.names)
    cell = (labels * 2 + predicted) * n_groups + groups.codes
    counts = np.zeros((4 * n_groups, design.n_clusters))
    np.add.at(counts, (cell, design.clusters), 1.0)
    return counts


def spread(values: FloatArray) -> FloatArray:
    """Return the largest minus the smallest along the groups' axis; NaN if one is NaN."""
    return np.asarray(values.max(axis=-2) - values.min(axis=-2), dtype=np.float64)
