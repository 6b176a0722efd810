"""A field of a dataclass with its default and the one text that says what it is.

Help, pages and the model card's tables read that text from the field, so that no field is described twice.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, TypeVar

_T = TypeVar("_T")


def described(default: _T, text: str) -> _T:
    """Return a field with this default, described by `text` in its metadata as `help`."""
    made: Any = field(default=default, metadata={"help": text})
    return made  # type: ignore[no-any-return]
