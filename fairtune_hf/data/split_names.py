"""How people call train, validation and test: in a column, as folders, as parts of a data set."""

from __future__ import annotations

import re
from collections.abc import Iterable

SPLIT_WORDS = {
    "train": "train", "training": "train", "trn": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "development": "validation", "tune": "validation", "tuning": "validation",
    "test": "test", "testing": "test", "tst": "test", "eval": "test", "evaluation": "test",
    "holdout": "test",
}  # fmt: skip
"""As in the ImageFolder convention of `datasets`, where eval is a test split too, and some more."""

PLAIN = {"train", "training", "validation", "valid", "val", "test", "testing"}
"""Names that need no explanation."""

_TURNS_ROUND = {"no", "non", "not", "un", "without", "excluded", "exclude"}


def split_of(name: object) -> str | None:
    """Return the split that a name means, or None.

    One of its words must be one of `SPLIT_WORDS`; words end at blanks, digits and the signs - . _

    >>> [split_of(n) for n in ("Train", "val", "images_test_2", "testament", "train-test")]
    ['train', 'validation', 'test', None, None]
    """
    words = [w for w in re.split(r"[-._\s0-9]+", str(name).strip().lower()) if w]
    found = {SPLIT_WORDS[w] for w in words if w in SPLIT_WORDS}
    return found.pop() if len(found) == 1 and not _TURNS_ROUND & set(words) else None


def split_of_path(parts: Iterable[str]) -> str | None:
    """Return the split that the folders of a path mean, or None if none or several are meant."""
    found = {s for s in map(split_of, parts) if s}
    return found.pop() if len(found) == 1 else None


def say_names(names: Iterable[object]) -> list[str]:
    """Say what was made of names of splits that are not the plain ones."""
    odd = {str(n): split_of(n) for n in names if str(n).strip().lower() not in PLAIN}
    read = ", ".join(f"{n!r} as {s}" for n, s in sorted(odd.items()) if s)
    return [f"names of splits were read so: {read}"] if read else []
