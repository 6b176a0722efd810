"""What a table is of, as digests, so that a change of it is noticed and can be told in words.

Each part (the rows in their order, labels, patients, splits, every attribute, pictures) has one
digest over the complete table, whatever splits are held. Where they differ, the rows are compared
one by one, under keyed hashes of their ids (SipHash-2-4, the key beside them), so that what is kept
of a table names no row and no patient.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xxhash

from fairtune_hf.data.declaration import Pictures
from fairtune_hf.data.pixels import DIGEST_SIZE, Digests, digest_bytes, digest_pictures

ROW, PATIENT, PICTURE = "row", "patient", ("picture_0", "picture_1")
GROUP = "group "
_BLOCK = 256


@dataclass(frozen=True)
class Fingerprint:
    """The complete table that a run is of; comparable between two loads of it."""

    frame: pd.DataFrame = field(
        repr=False, metadata={"help": "row_id, patient_id, label, split and the attributes"}
    )
    pictures: Digests = field(repr=False, metadata={"help": "(n, 16) digest of each picture"})

    @property
    def attributes(self) -> list[str]:
        """Names of the attribute columns."""
        fixed = {"row_id", "patient_id", "label", "split"}
        return [str(c) for c in self.frame.columns if c not in fixed]

    @cached_property
    def parts(self) -> dict[str, str]:
        """The digest of each part, as hexadecimal digits."""
        told = {
            "rows": digest_text(self.frame["row_id"]),
            "patients": digest_text(self.frame["patient_id"]),
            "labels": digest_bytes(self.frame["label"].to_numpy(np.int64)),
            "splits": digest_text(self.frame["split"]),
        }
        told |= {GROUP + name: digest_text(self.frame[name]) for name in self.attributes}
        return told | {"pictures": digest_bytes(self.pictures)}

    def keyed_rows(self, key: str) -> pd.DataFrame:
        """Return one line a row with nothing in it that names a person.

        The result has the columns row and patient (keyed hashes), label, split, one "group NAME"
        for each attribute, and the two halves of the picture's digest.

        Args:
            key: 16 random ASCII characters.
        """
        halves = self.pictures.view(np.uint64)
        columns: dict[str, Any] = {
            ROW: keyed(self.frame["row_id"], key),
            PATIENT: keyed(self.frame["patient_id"], key),
            "label": self.frame["label"].to_numpy(np.int8),
            "split": self.frame["split"].to_numpy(object),
            **{GROUP + n: self.frame[n].to_numpy(object) for n in self.attributes},
            **{name: halves[:, i] for i, name in enumerate(PICTURE)},
        }
        return pd.DataFrame(columns)


def fingerprint(
    frame: pd.DataFrame,
    pictures: Pictures,
    positions: npt.NDArray[np.int64],
    held: npt.NDArray[np.int64],
    images: npt.NDArray[np.uint8],
) -> Fingerprint:
    """Take the fingerprint of a complete table.

    Args:
        frame: Its n rows.
        pictures: Where all pictures are.
        positions: Place of each row's picture in `pictures`.
        held: Rows whose pictures were read already.
        images: The pictures of these.
    """
    stored = getattr(pictures, "pixels", None)
    if stored is not None:
        return Fingerprint(frame, np.ascontiguousarray(stored[positions]))
    digests = np.zeros((len(frame), DIGEST_SIZE), dtype=np.uint8)
    digests[held] = digest_pictures(images)
    others = np.setdiff1d(np.arange(len(frame)), held)
    for start in range(0, len(others), _BLOCK):
        part = others[start : start + _BLOCK]
        digests[part] = digest_pictures(pictures.rows(positions[part]))
    return Fingerprint(frame, digests)


def digest_text(values: pd.Series) -> str:
    """Return one digest of a column of text, in its order."""
    words: list[str] = values.astype(str).tolist()
    # The lengths keep ("ab", "c") and ("a", "bc") apart.
    lengths = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
    digest = xxhash.xxh3_128(lengths.data)
    digest.update("".join(words).encode("utf-8", errors="surrogatepass"))
    return digest.hexdigest()


def keyed(values: pd.Series, key: str) -> npt.NDArray[np.uint64]:
    """Return the SipHash-2-4 of each value as text, under a key of 16 ASCII characters.

    What was kept under it must be found again: a test holds its values.
    """
    text = values.astype(str).to_numpy(object)
    return np.asarray(pd.util.hash_array(text, hash_key=key, categorize=False), dtype=np.uint64)


def real_ids(patients: pd.Series) -> pd.Series:
    """Return the distinct patient ids, without the names that rows of no known patient have."""
    ids = pd.Series(patients.unique()).astype(str)
    return ids[~ids.str.fullmatch(r"row \d+")].reset_index(drop=True)


def number_range(ids: pd.Series) -> int | None:
    """Return how many numbers lie between the least and the greatest of ids that are numbers.

    Numbers may have letters before and after them; where these differ, those that most ids have
    count. None where fewer than half of the ids are such numbers.
    """
    parts = ids.str.extract(r"^(\D*)(\d{1,18})(\D*)$").dropna()
    if 2 * len(parts) < len(ids) or parts.empty:
        return None
    alike = max((numbers for _, numbers in parts.groupby([0, 2])[1]), key=len).astype("int64")
    return None if 2 * len(alike) < len(ids) else int(alike.max() - alike.min()) + 1


def new_key() -> str:
    """Return a random key for `keyed`."""
    return secrets.token_urlsafe(12)


def name_changes(
    before: dict[str, str],
    now: Fingerprint,
    rows: pd.DataFrame | None = None,
    key: str | None = None,
) -> list[str]:
    """Say in words what differs between two tables; nothing where they are the same.

    Args:
        before: The parts of the earlier one.
        now: The later one.
        rows: The keyed rows of the earlier one, if there are any; they give counts.
        key: Their key.
    """
    changed = [part for part in {**before, **now.parts} if before.get(part) != now.parts.get(part)]
    if not changed:
        return []
    if rows is None or key is None:
        return [f"other {_part_name(part)}" for part in changed]
    return _count_changes(rows, now.keyed_rows(key)) or ["the same rows in another order"]


def _part_name(part: str) -> str:
    return f"groups of {part.removeprefix(GROUP)!r}" if part.startswith(GROUP) else part


def _count_changes(before: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    def attributes(rows: pd.DataFrame) -> list[str]:
        return [str(c) for c in rows.columns if str(c).startswith(GROUP)]

    both = before.merge(now, on=ROW, suffixes=(" before", " now"))
    if both.empty:
        return [f"{len(now)} other rows in place of the {len(before)}"]
    lost, new = len(before) - len(both), len(now) - len(both)
    words = [f"{_rows(lost)} gone"] if lost else []
    words += [f"{_rows(new)} new"] if new else []
    parts: dict[str, Sequence[str]] = {
        "labels": ("label",),
        "patients": (PATIENT,),
        "splits": ("split",),
        **{_part_name(c): (c,) for c in attributes(before) if c in now},
        "pictures": PICTURE,
    }
    for what, columns in parts.items():
        pairs = [(both[f"{c} before"] != both[f"{c} now"]).to_numpy() for c in columns]
        count = int(np.logical_or.reduce(pairs).sum())
        words += [f"the {what} of {_rows(count)} changed"] if count else []
    absent = sorted({*attributes(before)} ^ {*attributes(now)})
    return words + [f"other attributes ({', '.join(_part_name(c) for c in absent)})"] * bool(absent)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
