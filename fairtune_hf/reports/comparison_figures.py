"""Figures over many runs: what the masks did for the worst groups, and which parts they train."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from fairtune_hf.run_record import FAIRTUNE, MethodRecord, RunRecord

from . import numbers
from .figure import Figure, bound
from .interval_figures import ROWS, intervals_figure
from .mask_figures import shares_figure
from .tables import capital
from .verdict import method_name


def comparison_figures(settings: Mapping[str, RunRecord]) -> list[Figure]:
    """Draw every figure that these settings have data for."""
    drawn = [differences_figure(settings), *mask_shares_figures(settings)]
    return [figure for figure in drawn if figure is not None]


def differences_figure(settings: Mapping[str, RunRecord]) -> Figure | None:
    """Draw the paired differences of minimum AUC in each setting."""
    records = [
        (setting, i.method, i.reference, i.difference, bound(i.ci, 0), bound(i.ci, 1))
        for setting, run in settings.items()
        for i in run.comparisons
        if (i.metric, i.split) == ("min_auc", "test") and numbers.is_number(i.difference)
    ]
    if not records:
        return None
    columns = ["setting", "method", "reference", "difference", "low", "high"]
    rows = [
        (setting, f"{method_name(method)} minus {method_name(reference)}", *values)
        for setting, method, reference, *values in records
    ]
    return intervals_figure(
        pd.DataFrame(rows, columns=list(ROWS)),
        pd.DataFrame(records, columns=columns),
        name="setting_differences",
        title="The worst group, by setting",
        caption="Paired differences with 95\u202f% intervals; right of the line the first of the two did better, "
        "and an interval that touches it is within noise.",
        described="Differences of minimum AUC, by setting",
        axis="difference of min-group AUC",
        signed=True,
    )


def mask_shares_figures(settings: Mapping[str, RunRecord]) -> list[Figure]:
    """Draw how many of the masks that searches chose train each part, once for each layout of two or more."""
    layouts: dict[tuple[str, ...], list[str]] = {}
    for run in settings.values():
        choice = run.methods.get(FAIRTUNE, MethodRecord()).choice
        names = tuple(str(name) for name in choice.bit_names or [])
        if names and len(choice.mask) == len(names):
            layouts.setdefault(names, []).append(choice.mask)
    drawn = [
        shares_figure(
            masks,
            names,
            identity="chosen_masks" if index == 0 else f"chosen_masks_{index + 1}",
            title=capital(f"how many of the {len(masks)} chosen masks train each part"),
            caption="A cell fills up from below with the share of runs whose chosen mask trains it.",
        )
        for index, (names, masks) in enumerate(layouts.items())
        if len(masks) > 1
    ]
    return [figure for figure in drawn if figure is not None]
