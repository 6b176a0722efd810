"""Messages about names: the closest valid name, short lists, columns that are not there.

Owns the wording that every reader shares, so that each error says what was expected, what came
and what to do next. Imports nothing of the package.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a mistyped flag is answered from here, without pandas
    import pandas as pd

SHOWN = 5


def flag_of(field: str) -> str:
    """Return the flag of a field, as `--learning-rate` of `learning_rate`."""
    return f"--{field.replace('_', '-')}"


def closest_name(name: str, valid: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """Return the one of `valid` that is most like `name`, upper and lower case alike, if any is."""
    by_lower = {v.lower(): v for v in valid}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def closest(name: str, valid: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the closest of `valid`, or an empty string."""
    found = closest_name(name, valid)
    return "" if found is None else f" Did you mean {found!r}?"


def unknown_name(what: str, name: str, valid: Sequence[str]) -> ValueError:
    """Build the error for a `name` that is not one of `valid`, the closest one offered."""
    return ValueError(
        f"{what} {name!r} is not known.{closest(name, valid)} Valid: {', '.join(valid) or 'none'}."
    )


def shortened(items: Sequence[str], shown: int = SHOWN) -> str:
    """Join the first few of `items` and count the rest."""
    rest = len(items) - shown
    return "; ".join(items[:shown]) + (f"; and {rest} more" if rest > 0 else "")


def some(names: Sequence[str], most: int = 4) -> str:
    """Name the first few of `names` and count the rest, within a sentence."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def require_columns(frame: pd.DataFrame, names: Iterable[str], origin: str) -> None:
    """Raise ValueError when a column of `names` is not in the table read from `origin`."""
    # The line of the file is a column of ours, not one of the user's.
    columns = [str(c) for c in frame.columns if c != "source_row"]
    for name in names:
        if name not in columns:
            raise ValueError(
                f"column {name!r} was expected in {origin} and is not there."
                f"{closest(name, columns)} Its columns: {', '.join(columns)}. "
                "Give the name of one of these, or add the column."
            )


def value_counts(values: pd.Series) -> str:
    """Render the values of a column with their counts, most frequent first."""
    counts = values.value_counts()
    return shortened([f"{v!r}: {n}" for v, n in counts.items()], shown=8)
