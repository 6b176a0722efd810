"""Which counts of a table are not shown: those of fewer than ten people, and what gives them away.

One rule for the data report, the cards, the run's report and the `run.json` that is pushed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from fairtune_hf.data.checks import FEW

SMALL = f"<{FEW}"
WITHHELD = "not shown"

Key = TypeVar("Key")


def hidden_cells(people: Mapping[Key, float]) -> dict[Key, str]:
    """Return the words that stand in place of the hidden counts of one column.

    A cell of one to nine people is shown as "<10". Totals of a column are shown in many places, so
    where one cell is hidden, or all that are hidden hold fewer than ten people, the next smallest
    is "not shown" either: the total less the shown cells would be the hidden one.

    Args:
        people: Number of people in each cell of a column, such as the groups of one split.

    >>> hidden_cells({"light": 300, "dark": 8, "medium": 40})
    {'dark': '<10', 'medium': 'not shown'}
    >>> hidden_cells({"light": 300, "dark": 8, "medium": 4})
    {'dark': '<10', 'medium': '<10'}
    """
    hidden = {cell: SMALL for cell, n in people.items() if 0 < n < FEW}
    held = sum(people[cell] for cell in hidden)
    others = [cell for cell, n in people.items() if n >= FEW]
    if hidden and others and (len(hidden) == 1 or held < FEW):
        hidden[min(others, key=lambda cell: people[cell])] = WITHHELD
    return hidden
