"""Whether another data set shares pictures or patients with what a run was trained and chosen on.

Pictures are the same where their pixels are, as prepared: a copy of a file under another name, or
in another lossless format, is found; one that was compressed again or cropped is not. Patients are
compared by their ids, where both ids mean the same: those of one known data set, or of one's own data
under the same column. Numbers that count up (1, 2, ..., P0001) stand in many tables for different
people; so many shared ones as chance would give are told and not taken for the same people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairtune_hf.data import ImageTable
from fairtune_hf.data.fingerprint import PATIENT, PICTURE, keyed, number_range, real_ids
from fairtune_hf.described import described
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.training.identity import patient_source, read_identity, read_rows

_SEEN = ("train", "validation")
# Shared ids are evidence where they are this many times what two draws from the range would share.
_BEYOND_CHANCE = 10.0


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What another data set has in common with a run's training and validation rows."""

    pictures: int = described(0, "its rows whose picture the run has seen")
    patients: int = described(0, "its patients whom the run has seen")
    notes: tuple[str, ...] = described((), "what could not be compared")

    @property
    def words(self) -> str:
        """Say what is shared; an empty text where nothing is."""
        told = [f"{self.pictures:,} of its pictures"] if self.pictures else []
        told += [f"{self.patients:,} of its patients"] if self.patients else []
        return " and ".join(told)


def find_overlap(folder: RunFolder, table: ImageTable) -> Overlap:
    """Compare a data set with the training and validation rows of a run.

    Args:
        folder: The run.
        table: The other data set, its pictures of the side that the run's model takes.
    """
    held, rows = read_identity(folder), read_rows(folder)
    if held is None or rows is None or table.fingerprint is None:
        return Overlap(
            notes=(
                "whether pictures or patients of this data set were in the run's training or validation rows is not "
                "known: the run does not know what it is of",
            )
        )
    seen = rows[rows["split"].isin(_SEEN)]
    notes: list[str] = []
    if held["described"]["picture side"] != table.images.shape[1]:
        notes.append("pictures were not compared: those of the run have another size")
    shared = _shared_pictures(seen, table.fingerprint.pictures)
    patients, told = _shared_patients(held, seen, table)
    return Overlap(pictures=shared, patients=patients, notes=(*notes, *told))


def _shared_pictures(seen: pd.DataFrame, theirs: npt.NDArray[np.uint8]) -> int:
    pair = np.dtype([(name, np.uint64) for name in PICTURE])
    ours = np.ascontiguousarray(seen[list(PICTURE)].to_numpy(np.uint64)).view(pair).ravel()
    return int(np.isin(np.ascontiguousarray(theirs).view(pair).ravel(), ours).sum())


def _shared_patients(
    held: dict[str, Any], seen: pd.DataFrame, table: ImageTable
) -> tuple[int, list[str]]:
    """Count the patients that are shared, and say what was not compared or not counted."""
    ours, theirs = held["described"].get("patients of"), patient_source(table)
    if ours is None or ours != theirs:
        return 0, [
            f"patients were not compared: the run's are of {ours or 'no column'}, those of the other data of "
            f"{theirs or 'no column'}"
        ]
    ids = real_ids(table.frame["patient_id"])
    run = np.unique(seen[PATIENT].to_numpy(np.uint64))
    shared = int(np.isin(keyed(ids, held["key"]), run).sum())
    ranges = (number_range(ids), held["described"].get("patient number range"))
    if shared and _is_chance(shared, len(ids) * len(run), ranges):
        return 0, [
            f"{shared} patient ids also stand in the run's training or validation rows; they are numbers that count "
            "up, which different people have in different tables. If they are the same people here, this is no "
            "external test"
        ]
    return shared, []


def _is_chance(shared: int, pairs: int, ranges: tuple[int | None, int | None]) -> bool:
    """Whether two draws of numbers, with so many pairs of them, would share about as many."""
    known = [count for count in ranges if count is not None]
    return len(known) == 2 and shared <= _BEYOND_CHANCE * pairs / max(known)
