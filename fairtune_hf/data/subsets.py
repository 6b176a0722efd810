"""A part of the training rows to search on: stratified by label and group, seeded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairtune_hf.data.table import ImageTable, Int64Array


def stratified_fraction(
    table: ImageTable, fraction: float, *, seed: int = 0, splits: Sequence[str] = ("train",)
) -> ImageTable:
    """Keep a fraction of the rows of `splits`, and all rows of the others.

    Each cell of split, label and group keeps its share, rounded, and one row at least; the paper
    searches on 10 % of CheXpert's training rows (section 4.1). Rows stay in order, `split_hash`
    stays that of the complete table.

    Raises:
        ValueError: if `fraction` is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1; {fraction} came.")
    if fraction == 1:
        return table
    rng = np.random.default_rng(seed)
    split = table.frame["split"].to_numpy()
    cells = 2 * table.group_codes + table.labels
    keep = [np.flatnonzero(~np.isin(split, list(splits)))]
    for name in splits:
        for cell in range(2 * len(table.groups)):
            rows = np.flatnonzero((split == name) & (cells == cell))
            keep.append(_draw(rows, fraction, rng))
    return table.take(np.sort(np.concatenate(keep)))


def _draw(rows: Int64Array, fraction: float, rng: np.random.Generator) -> Int64Array:
    count = min(len(rows), max(1, round(fraction * len(rows)))) if len(rows) else 0
    return rng.permutation(rows)[:count]
