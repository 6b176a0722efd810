"""Checks that stop a run and checks that warn.

Messages give counts and rows of the metadata file, never a patient's id.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fairtune_hf.data.table import SPLITS
from fairtune_hf.naming import shortened, value_counts

FEW = 10


def check_label(frame: pd.DataFrame, origin: str, label_names: Sequence[str]) -> None:
    """Raise ValueError unless both labels occur."""
    present = sorted(set(frame["label"]))
    if present != [0, 1]:
        named = frame["label"].map(dict(enumerate(label_names)))
        raise ValueError(
            f"the label must have two classes in {origin}; after the filters it has "
            f"{len(present)} ({value_counts(named) or 'no row is left'}). "
            "Check the label rule or column, and the filters."
        )


def check_row_ids(frame: pd.DataFrame, origin: str) -> None:
    """Raise ValueError when a row id occurs twice."""
    twice = frame[frame["row_id"].duplicated(keep=False)]
    if len(twice):
        lines = ", ".join(str(r) for r in twice["source_row"].head(6))
        raise ValueError(
            f"every row of {origin} must have its own id or file name; {len(twice)} rows share "
            f"one with another row (lines {lines}). Remove the copies."
        )


def check_splits(frame: pd.DataFrame) -> None:
    """Raise ValueError when train, validation or test has no row."""
    sizes = {s: int((frame["split"] == s).sum()) for s in SPLITS}
    empty = [s for s, n in sizes.items() if n == 0]
    if empty:
        raise ValueError(
            f"every split must have rows; {' and '.join(empty)} is empty "
            f"({', '.join(f'{s}: {n}' for s, n in sizes.items())}). Give more patients, another "
            "seed, or a split column whose values are train, validation and test."
        )


def check_patient_leak(frame: pd.DataFrame, origin: str) -> None:
    """Raise ValueError when rows of one patient lie in two splits."""
    spread = frame.groupby("patient_id")["split"].transform("nunique")
    leaking = frame[spread > 1]
    if leaking.empty:
        return
    one = leaking[leaking["patient_id"] == leaking["patient_id"].iloc[0]]
    first = one.iloc[0]
    second = one[one["split"] != first["split"]].iloc[0]
    raise ValueError(
        f"a patient's rows must all be in one split; {leaking['patient_id'].nunique()} patients "
        f"({len(leaking)} rows) are in more than one, for example line {first['source_row']} of "
        f"{origin} in {first['split']} and line {second['source_row']} in {second['split']}. "
        "Correct the splits, or have patients split anew with --split-rule stratified."
    )


def duplicate_pairs(frame: pd.DataFrame, digests: np.ndarray) -> pd.DataFrame:
    """Return the rows that share a picture's bytes with another row, with a column `digest`."""
    hexes = [bytes(d).hex() for d in digests]
    marked = frame.assign(digest=hexes)
    return marked[marked["digest"].duplicated(keep=False)].sort_values("digest", kind="stable")


def check_duplicate_pictures(shared: pd.DataFrame, origin: str) -> list[str]:
    """Raise ValueError for the same picture in two splits; warn for copies inside one.

    `shared` is the result of `duplicate_pairs`.
    """
    if shared.empty:
        return []
    spread = shared.groupby("digest")["split"].transform("nunique")
    leaking = shared[spread > 1]
    if leaking.empty:
        return [f"{len(shared)} rows show a picture that another row of the same split shows too"]
    pairs = []
    for _, rows in leaking.groupby("digest", sort=False):
        pairs.append(
            " and ".join(
                f"line {r} ({s})" for r, s in zip(rows["source_row"], rows["split"], strict=True)
            )
        )
    raise ValueError(
        f"the same picture must not be in two splits; {len(pairs)} pictures are, by their bytes: "
        f"{shortened(pairs)} of {origin}. Remove the copies, give them one patient id, or let "
        "--duplicates drop leave out the copies in the larger split."
    )


def duplicates_to_drop(shared: pd.DataFrame) -> list[str]:
    """Return the row ids to leave out so that no picture is in two splits.

    The copy in the test split stays, else the one in validation.
    """
    rank = shared["split"].map({"test": 2, "validation": 1, "train": 0})
    best = rank.groupby(shared["digest"]).transform("max")
    return list(shared.loc[rank < best, "row_id"])


def cells(frame: pd.DataFrame, sensitive: str, groups: Sequence[str]) -> pd.DataFrame:
    """Count negatives and positives per split and group: columns split, group, 0, 1."""
    counts = (
        frame.groupby(["split", sensitive, "label"]).size().unstack("label", fill_value=0)
        if len(frame)
        else pd.DataFrame()
    )
    index = pd.MultiIndex.from_product([SPLITS, list(groups)], names=["split", "group"])
    counts.index.names = ["split", "group"]
    return counts.reindex(index, fill_value=0).reindex(columns=[0, 1], fill_value=0).astype(int)


def check_groups(frame: pd.DataFrame, sensitive: str, groups: Sequence[str]) -> list[str]:
    """Raise ValueError for a group without both classes in validation; warn of small ones.

    A group without both classes in the test split is a warning: its AUC there is null.
    """
    counts = cells(frame, sensitive, groups)
    lacking = [
        f"{group!r} has {row[0]} negatives and {row[1]} positives"
        for group, row in counts.xs("validation").iterrows()
        if min(row[0], row[1]) == 0
    ]
    if lacking:
        raise ValueError(
            f"every group of {sensitive!r} must have both classes in the validation split, or its "
            f"AUC is undefined; {'; '.join(lacking)}. Merge groups, choose another attribute or "
            "split rule, or give more validation rows."
        )
    labels = frame.loc[frame["split"] == "train", "label"]
    positives = int(labels.sum())
    if positives in (0, len(labels)):
        raise ValueError(
            "the training split must have both classes; it has "
            f"{len(labels) - positives} negatives and {positives} "
            "positives. Correct the split column or choose another seed."
        )
    return [
        *_small(frame, sensitive, groups, "validation"),
        *check_test_groups(frame, sensitive, groups),
    ]


def check_test_groups(frame: pd.DataFrame, sensitive: str, groups: Sequence[str]) -> list[str]:
    """Warn of small groups among the rows for a test."""
    return _small(frame, sensitive, groups, "test")


def _small(frame: pd.DataFrame, sensitive: str, groups: Sequence[str], split: str) -> list[str]:
    """Warn of groups with few patients of a class; several pictures of one patient count once.

    The counts themselves stay out, since the warnings are published with a run.
    """
    found = []
    patients = cells(frame.drop_duplicates(["patient_id", sensitive, "label"]), sensitive, groups)
    for group, row in patients.xs(split).iterrows():
        negatives, positives = int(row[0]), int(row[1])
        if min(negatives, positives) == 0:
            found.append(
                f"group {group!r} has one class only in {split}: its AUC there is undefined and given as null"
            )
        elif min(negatives, positives) < FEW:
            found.append(
                f"group {group!r} has fewer than {FEW} patients with or without the label in {split}: "
                f"expect an AUC near 0.8 to be known to about ±{auc_half_width(negatives, positives):.2f}"
            )
    return found


def auc_half_width(negatives: int, positives: int, auc: float = 0.8) -> float:
    """Return the half-width of the 95 % interval of an AUC to expect from so many patients, at most 0.5.

    Source: the standard error of Hanley and McNeil (1982), equation 2. `fairtune_hf.metrics` has the same
    for any use; data and metrics do not know of each other.
    """
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return float(min(0.5, 1.96 * np.sqrt(variance / (negatives * positives))))


def check_confounding(frame: pd.DataFrame, attributes: Sequence[str]) -> list[str]:
    """Warn when an attribute is a function of the split, or the label a function of it."""
    found = []
    for name in attributes:
        known = frame[frame[name] != ""]
        if known[name].nunique() < 2:
            continue
        if (known.groupby("split")[name].nunique() == 1).all():
            found.append(f"attribute {name!r} is the same within each split: it follows the split")
        if (known.groupby(name)["label"].nunique() == 1).all():
            found.append(f"attribute {name!r} determines the label: each group has one class")
    return found
