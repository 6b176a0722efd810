"""Resampling by patient, and statistics over thousands of resamples without a loop over them.

A resample is a row of counts: how often each patient was drawn. A statistic takes a matrix
(resamples, patients) and returns one number per row. Scores are sorted once, before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fairtune_hf.metrics.checks import FloatArray, GroupCodes, IntArray

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


def alone(n_rows: int) -> Design:
    """Return the design in which each row is a patient of her own, and all are of one stratum."""
    return Design(np.arange(n_rows, dtype=np.int64), np.zeros(n_rows, dtype=np.int64))


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
    """Yield matrices (at most CHUNK resamples, patients) of how often each patient is drawn."""
    members = [np.flatnonzero(design.strata == code) for code in np.unique(design.strata)]
    for start in range(0, n_resamples, CHUNK):
        width = min(CHUNK, n_resamples - start)
        counts = np.zeros((width, design.n_clusters))
        for inside in members:
            drawn = rng.integers(0, inside.size, size=(width, inside.size), dtype=np.int64)
            drawn += inside.size * np.arange(width)[:, None]
            found = np.bincount(drawn.ravel(), minlength=inside.size * width)
            counts[:, inside] = found.reshape(width, inside.size)
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
        self._has_ties = not np.array_equal(self._first, self._last)

    def __call__(self, counts: FloatArray) -> FloatArray:
        """Return the AUC of each row of (resamples, patients); NaN without both classes."""
        sums = np.zeros((len(counts), self._negative.size + 1))
        np.cumsum(counts.take(self._negative, axis=1), axis=1, out=sums[:, 1:])
        weights = counts.take(self._positive, axis=1)
        beaten = sums.take(self._first, axis=1)
        if self._has_ties:
            beaten += sums.take(self._last, axis=1)
            beaten *= 0.5
        pairs = weights.sum(axis=1) * sums[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.einsum("ij,ij->i", weights, beaten) / pairs
        return np.asarray(np.where(pairs > 0, ratio, np.nan), dtype=np.float64)


def auc_of_rows(labels: IntArray, scores: FloatArray) -> float:
    """Return the AUC of finite scores, shape (n,); NaN without both classes."""
    design = alone(labels.size)
    return float(ResampledAuc(labels, scores, design.clusters)(np.ones((1, labels.size)))[0])


class ResampledAveragePrecision:
    """Average precision of fixed rows under many weightings of the patients."""

    def __init__(self, labels: IntArray, scores: FloatArray, clusters: IntArray) -> None:
        order = np.argsort(-scores, kind="stable")
        falling = -scores[order]
        self._clusters = clusters[order]
        self._is_positive = (labels[order] == 1).astype(np.float64)
        # A tied row is judged at the end of its tie, where the threshold lets all of it in.
        self._last = np.searchsorted(falling, falling, side="right") - 1

    def __call__(self, counts: FloatArray) -> FloatArray:
        """Return the average precision of each row of counts; NaN without a positive."""
        weights = counts.take(self._clusters, axis=1)
        positive = weights * self._is_positive
        taken = np.cumsum(weights, axis=1).take(self._last, axis=1)
        found = np.cumsum(positive, axis=1).take(self._last, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(taken > 0, found / taken, 0.0)
            value = (positive * precision).sum(axis=1) / positive.sum(axis=1)
        return np.asarray(value, dtype=np.float64)


def leave_out(design: Design, max_blocks: int = 500) -> Iterator[FloatArray]:
    """Yield matrices (at most CHUNK, patients) of 1 and 0: each row leaves out one block.

    A block is one patient, or with more than `max_blocks` patients every `max_blocks`-th one in
    the order of the strata, so that each block holds a like share of every stratum.
    """
    n_blocks = min(max_blocks, design.n_clusters)
    block = np.empty(design.n_clusters, dtype=np.int64)
    block[np.argsort(design.strata, kind="stable")] = np.arange(design.n_clusters) % n_blocks
    for start in range(0, n_blocks, CHUNK):
        left_out = np.arange(start, min(start + CHUNK, n_blocks))
        yield np.asarray(block != left_out[:, None], dtype=np.float64)


def class_patients(labels: IntArray, clusters: IntArray) -> tuple[int, int]:
    """Return the numbers of patients with a negative and with a positive row."""
    negatives, positives = (int(np.unique(clusters[labels == value]).size) for value in (0, 1))
    return negatives, positives


def rarer_class_patients(labels: IntArray, clusters: IntArray) -> int:
    """Return the number of patients with a row of the class that has fewer of them."""
    return min(class_patients(labels, clusters))
