"""The labels of another data set, turned the way that a run was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fairtune_hf.cli.messages import say
from fairtune_hf.data import ImageTable
from fairtune_hf.label_values import match_value


def agree_labels(table: ImageTable, names: Sequence[str], positive: str | None) -> ImageTable:
    """Return a table whose label 1 is what label 1 was in the run.

    Args:
        table: The other data set.
        names: The run's own names of label 0 and label 1.
        positive: The value that `--positive-label` calls label 1, if it was given.

    Raises:
        ValueError: The names differ and `positive` is not given; or it is neither of the table's
            values, or contradicts the run's own names.
    """
    own = (str(names[0]), str(names[1]))
    same = {match_value(name, table.label_names) for name in own} == set(table.label_names)
    if positive is None and not same:
        raise ValueError(
            f"--positive-label: expected the label names of the run, {own[0]!r} for 0 and {own[1]!r} for 1, and the "
            f"other data set has {table.label_names[0]!r} and {table.label_names[1]!r}. Say which of these is the run's "
            f"{own[1]!r}, as in --positive-label {table.label_names[1]!r}."
        )
    one = match_value(own[1] if positive is None else positive, table.label_names)
    if one is None:
        raise ValueError(
            f"--positive-label: expected one of the other data set's labels, {table.label_names[0]!r} or "
            f"{table.label_names[1]!r}, got {positive!r}. Write it as it stands there."
        )
    if same and one != match_value(own[1], table.label_names):
        raise ValueError(
            f"--positive-label: expected {own[1]!r}, which is label 1 in the run, got {positive!r}. Leave it out: the "
            "names are those of the run."
        )
    turned = table if one == table.label_names[1] else _turn(table)
    if turned.label_names[1] != own[1]:
        say(f"Label 1 is {turned.label_names[1]!r} here and {own[1]!r} in the run.")
    return turned


def _turn(table: ImageTable) -> ImageTable:
    one, zero = table.label_names
    options = dict(table.options)
    if "positive_label" in options:
        options["positive_label"] = one
    return replace(
        table,
        frame=table.frame.assign(label=1 - table.frame["label"]),
        label_names=(zero, one),
        options=options,
        # What was taken to be label 1 is decided by the run.
        warnings=tuple(w for w in table.warnings if not w.startswith("label 1 of ")),
    )
