"""Masks ranked by noisy values: how far the values can be trusted, a shrunken estimate of each, and the best few.

The values come from one model under many masks, so they are as noisy as one validation sample. The largest of
them is lucky; what is taken instead is a ridge regression on the bits and their number, to which the rest of
a value is added as far as it is more than noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_PENALTIES = np.logspace(-1, 4, 21)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Estimates of masks, and what they rest on.

    Attributes:
        estimates: Of each mask, on the standardised scale of the values, `(masks,)`; large is good.
        reliability: Share of the values' variance that is not the validation sample's noise, 0 to 1.
        explained: Share of the values' variance that the bits explain, 0 to 1.
        kept: Share of the unexplained rest that counts, 0 to 1.
    """

    estimates: FloatArray
    reliability: float
    explained: float
    kept: float


def standardise(values: FloatArray) -> FloatArray:
    """Return values with mean 0 and deviation 1 along the last axis; zeros where all are equal."""
    centred = values - values.mean(axis=-1, keepdims=True)
    spread = centred.std(axis=-1, keepdims=True)
    return np.asarray(np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-12))


def split_half_reliability(first: FloatArray, second: FloatArray) -> float:
    """Estimate how reliable values of the whole sample are from values of its halves.

    The mean correlation r of the two halves over the divisions, stepped up to the whole sample by the formula of
    Spearman and Brown: 2r / (1 + r).

    Args:
        first: Values on one half, `(divisions, masks)`.
        second: On the other.

    Returns:
        A share in [0, 1]; 0 where the halves contradict each other or nothing is defined.
    """
    known = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    if not known.any():
        return 0.0
    r = float(np.mean(standardise(first[known]) * standardise(second[known])))
    return 2 * r / (1 + r) if r > 0 else 0.0


def rank_masks(bits: npt.NDArray[np.int_], values: FloatArray, reliability: float) -> Ranking:
    """Estimate what each mask is worth.

    Args:
        bits: The masks, `(masks, bits)`.
        values: Their values, `(masks,)`; large is good.
        reliability: Of the values, as of `split_half_reliability`.
    """
    target = standardise(values)
    features = np.column_stack([bits, standardise(bits.sum(axis=1).astype(np.float64))])
    fitted = _fit_ridge(features.astype(np.float64), target)
    rest = target - fitted
    left, noise = float(rest.var()), float(target.var()) * (1 - reliability)
    kept = max(0.0, 1 - noise / left) if left > 1e-12 else 0.0
    return Ranking(
        estimates=fitted + kept * rest,
        reliability=reliability,
        explained=float(np.clip(1 - left / target.var(), 0, 1)) if target.any() else 0.0,
        kept=kept,
    )


def _fit_ridge(features: FloatArray, target: FloatArray) -> FloatArray:
    """Fit with the penalty of least generalised cross-validation error (Golub, Heath & Wahba 1979)."""
    centred = features - features.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    projected = left.T @ target
    best, fitted = np.inf, np.zeros_like(target)
    for penalty in _PENALTIES:
        weights = singular**2 / (singular**2 + penalty)
        found = left @ (weights * projected)
        freedom = 1 - (1 + weights.sum()) / target.size
        error = float(np.mean((target - found) ** 2)) / max(freedom, 1e-9) ** 2
        if error < best:
            best, fitted = error, found
    return np.asarray(fitted)


def pick_apart(
    bits: npt.NDArray[np.int_], estimates: FloatArray, count: int, *, apart: int
) -> list[int]:
    """Return the places of the best masks that differ in at least `apart` bits from each other, best first."""
    found: list[int] = []
    for place in np.argsort(-estimates, kind="stable"):
        if len(found) < count and all(
            int((bits[place] != bits[other]).sum()) >= apart for other in found
        ):
            found.append(int(place))
    return found


def draw_masks(
    presets: Sequence[Sequence[int]], n_bits: int, per_block: int, count: int, seed: int
) -> npt.NDArray[np.int_]:
    """Return different masks to be ranked: those given, runs of blocks, and random ones of several densities.

    Args:
        presets: Masks that must be among them.
        n_bits: Length of a mask.
        per_block: Bits of one block.
        count: How many masks; fewer where there are no more.
        seed: Of the random ones.
    """
    blocks = n_bits // per_block
    edges = [0, blocks // 3, blocks // 2, 2 * blocks // 3, blocks]
    runs = [(low, high) for low in edges for high in edges if low < high]
    place = np.arange(n_bits) // per_block
    masks = dict.fromkeys(tuple(int(b) for b in mask) for mask in presets)
    masks |= dict.fromkeys(
        tuple(((low <= place) & (place < high)).astype(int)) for low, high in runs
    )
    rng = np.random.default_rng(seed)
    for _ in range(20 * count):
        if len(masks) >= min(count, 2**n_bits - 1):
            break
        drawn = tuple((rng.random(n_bits) < rng.choice(_DENSITIES)).astype(int))
        if any(drawn):
            masks.setdefault(drawn)
    return np.array(list(masks), dtype=np.int64)


_DENSITIES = (0.1, 0.15, 0.25, 0.35, 0.5, 0.7)
