"""Train, validation and test: published recipes, patient-grouped stratified splits, their hash.

The unit is always the patient (or lesion, or subject): all rows of one go to one split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairtune_hf.data.table import SPLITS
from fairtune_hf.data.tabular import read_table
from fairtune_hf.naming import require_columns

FRACTIONS = (0.8, 0.1, 0.1)


def published_split(
    patients: pd.Series,
    *,
    seeds: tuple[int, int],
    held_out: float = 0.2,
    test_share: float = 0.5,
) -> pd.Series:
    """Split by the recipe of MEDFAIR: scikit-learn's `train_test_split` on the sorted ids, twice.

    `held_out` of the ids leave training with the first seed; `test_share` of these become the
    test split with the second. Reproduces the paper's Tables 9 and 10.
    """
    # Here and not above: declarations, and so mistyped flags, do not need its second of imports.
    from sklearn.model_selection import train_test_split

    ids = sorted(set(patients))
    train, rest = train_test_split(ids, test_size=held_out, random_state=seeds[0])
    validation, test = train_test_split(rest, test_size=test_share, random_state=seeds[1])
    where = dict.fromkeys(train, "train")
    where |= dict.fromkeys(validation, "validation") | dict.fromkeys(test, "test")
    return patients.map(where).astype(str)


def stratified_split(
    patients: pd.Series,
    strata: pd.DataFrame,
    *,
    seed: int,
    fractions: Sequence[float] = FRACTIONS,
) -> pd.Series:
    """Split patients so that every stratum has about its share of rows in each split.

    Each column of `strata` names a cell for each row, such as its label, or label x sex; all are
    balanced, and so is the number of rows. Patients with the same rows per cell are dealt out in
    proportion, at random; the ones that are left over go, the largest first, where most rows of
    their cells are still missing.

    >>> patients = pd.Series(list("aabbccddee") * 2)
    >>> split = stratified_split(patients, pd.DataFrame({"label": [0, 1] * 10}), seed=0)
    >>> split.groupby(patients).nunique().max()
    np.int64(1)
    """
    parts = _deal_rows(patients, strata, fractions, seed)
    names = np.asarray(SPLITS, dtype=object)[parts]
    return pd.Series(names, index=patients.index).astype(str)


def stratified_folds(
    patients: pd.Series, strata: pd.DataFrame, *, folds: int, fold: int, seed: int
) -> pd.Series:
    """Split patients into stratified folds: `fold` is the test, the next one the validation.

    With one seed, each patient is in the test split of exactly one fold.

    Raises:
        ValueError: if there are fewer than three folds, or `fold` is not one of them.
    """
    if folds < 3 or not 0 <= fold < folds:
        raise ValueError(
            f"folds must be 3 or more and fold between 0 and folds - 1; folds={folds} and "
            f"fold={fold} came."
        )
    parts = _deal_rows(patients, strata, [1.0] * folds, seed)
    names = np.where(
        parts == fold, "test", np.where(parts == (fold + 1) % folds, "validation", "train")
    )
    return pd.Series(names, index=patients.index).astype(str)


def complete_split(
    given: pd.Series,
    patients: pd.Series,
    strata: pd.DataFrame,
    *,
    seed: int,
    fractions: Sequence[float] = FRACTIONS,
) -> pd.Series:
    """Deal the splits that `given` lacks out of its training rows, by patient; the others stay.

    A missing split gets the share of the training rows that it has of `fractions` beside train.
    Without training rows, or with all splits, nothing is dealt.
    """
    missing = missing_splits(given)
    if not missing:
        return given
    rows = given == "train"
    names = ["train", *missing]
    shares = [fractions[SPLITS.index(name)] for name in names]
    parts = _deal_rows(patients[rows], strata[rows], shares, seed)
    dealt = given.copy()
    dealt[rows] = np.asarray(names, dtype=object)[parts]
    return dealt


def missing_splits(given: pd.Series) -> list[str]:
    """Return the splits that have no row, if there are training rows to deal them from."""
    held = set(given)
    return [s for s in SPLITS if s not in held] if "train" in held else []


def _deal_rows(
    patients: pd.Series, strata: pd.DataFrame, fractions: Sequence[float], seed: int
) -> npt.NDArray[np.int64]:
    codes, ids = pd.factorize(patients, sort=True)
    cells = [np.zeros(len(patients), dtype=np.int64)]
    cells += [pd.factorize(strata[column], sort=True)[0] for column in strata]
    counts = np.column_stack([_count_pairs(codes, cell, len(ids)) for cell in cells])
    return deal_patients(counts, np.asarray(fractions, dtype=float), seed)[codes]


def _count_pairs(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], height: int
) -> npt.NDArray[np.float64]:
    """Count how often each pair of codes occurs, as a table of `height` lines."""
    width = int(columns.max()) + 1
    counts = np.bincount(rows * width + columns, minlength=height * width)
    return counts.reshape(height, width).astype(float)


def label_strata(frame: pd.DataFrame, attributes: Sequence[str]) -> pd.DataFrame:
    """Return the cells to balance: the label, label x each attribute, label x all of them."""
    label = frame["label"].astype(str)
    cells = {"label": label} | {name: label + "|" + frame[name] for name in attributes}
    joint = label
    for name in attributes:
        joint = joint + "|" + frame[name]
    if len(attributes) > 1:
        cells["all attributes"] = joint
    return pd.DataFrame(cells)


def deal_patients(
    counts: npt.NDArray[np.float64], fractions: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.int64]:
    """Assign each line of `counts` (patients x cells) to one part of `fractions`."""
    rng = np.random.default_rng(seed)
    fractions = fractions / fractions.sum()
    parts = np.full(len(counts), -1, dtype=np.int64)
    _, pattern = np.unique(counts, axis=0, return_inverse=True)
    for lines in _lines_by_pattern(pattern.ravel(), rng):
        whole = np.floor(len(lines) * fractions + 1e-9).astype(int)
        parts[lines[: whole.sum()]] = np.repeat(np.arange(len(fractions)), whole)
    left = rng.permutation(np.flatnonzero(parts < 0))
    left = left[np.argsort(-counts[left].sum(axis=1), kind="stable")]
    totals = np.maximum(counts.sum(axis=0), 1.0)
    targets = fractions[:, None] * totals
    held = np.stack([counts[parts == p].sum(axis=0) for p in range(len(fractions))])
    for line in left:
        # Large patients come first and go where most rows of their strata are still missing.
        part = int(np.argmax((targets - held) / totals @ counts[line]))
        parts[line] = part
        held[part] += counts[line]
    return parts


def _lines_by_pattern(
    pattern: npt.NDArray[np.int64], rng: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    shuffled = rng.permutation(len(pattern))
    order = shuffled[np.argsort(pattern[shuffled], kind="stable")]
    bounds = np.flatnonzero(np.diff(pattern[order])) + 1
    return np.split(order, bounds)


def hash_split(frame: pd.DataFrame) -> str:
    """Return the sha256 over the sorted lines "row_id split" of a table, order-free."""
    lines = sorted(
        f"{r} {s}" for r, s in zip(frame["row_id"].tolist(), frame["split"].tolist(), strict=True)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_split_file(path: Path, row_ids: pd.Series) -> pd.Series:
    """Return the split of each row from a table with the columns row_id and split.

    Raises:
        ValueError: if a row of the data set is not in the file, or a split has another name.
        FileNotFoundError: if there is no such file.
    """
    table = read_table(path)
    require_columns(table, ["row_id", "split"], path.name)
    odd = table[~table["split"].isin(SPLITS)]
    if len(odd) or table["row_id"].duplicated().any():
        raise ValueError(
            f"{path.name} must name each row_id once with a split of {', '.join(SPLITS)}; "
            f"{len(odd)} rows have another split and {int(table['row_id'].duplicated().sum())} are "
            "repeated. Export the splits again with fairtune prepare."
        )
    split = row_ids.map(dict(zip(table["row_id"], table["split"], strict=True)))
    if split.isna().any():
        raise ValueError(
            f"{path.name} must hold every row of the data set; {int(split.isna().sum())} of "
            f"{len(split)} are not in it. It was exported from other data or other options."
        )
    return split
