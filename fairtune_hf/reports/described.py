"""What an evaluation adds to `fairtune.json` beside an adapter: the operating point, and what each group got.

Groups whose counts are not shown on the cards have none here either: an adapter is handed on.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pandas as pd

from fairtune_hf.data.small_cells import hidden_cells
from fairtune_hf.metrics import choose_operating_point
from fairtune_hf.model_description import OperatingPoint, read_description
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import MethodRecord, SeedRecord

MEASURED_ON = "test rows, read once"
_RATES = ("sensitivity", "specificity", "called_positive")


def complete_description(
    folder: RunFolder, method: MethodRecord, predictions: pd.DataFrame, sensitive: str
) -> None:
    """Write operating point and groups beside the adapter of a measured method; nothing where it describes nothing.

    Args:
        folder: The run, or the control.
        method: As measured.
        predictions: Of its refits.
        sensitive: The attribute whose groups were measured.
    """
    held = read_description(folder.adapter)
    refit = method.refit()
    if held is None or refit.seed != held.seed:
        return
    own = predictions[predictions["seed"] == refit.seed]
    held.operating_point = _operating_point(own[own["split"] == "validation"], refit)
    held.measured_on = MEASURED_ON
    held.groups = _groups(own[own["split"] == "test"], refit, sensitive)
    held.write(folder.adapter)


def _operating_point(validation: pd.DataFrame, refit: SeedRecord) -> OperatingPoint:
    threshold = refit.test.value("threshold")
    point = choose_operating_point(
        validation["label"],
        validation["score"],
        rule="fixed",
        target=0.5 if threshold is None else threshold,
    )
    return OperatingPoint(**dataclasses.asdict(point))


def _groups(test: pd.DataFrame, refit: SeedRecord, sensitive: str) -> dict[str, dict[str, Any]]:
    people = test.groupby(sensitive)["patient"].nunique()
    hidden = hidden_cells({str(name): float(n) for name, n in people.items()})
    threshold = refit.test.value("threshold")
    found: dict[str, dict[str, Any]] = {}
    for name, row in refit.test.groups.items():
        told: dict[str, Any] = {"auc": row.auc, "auc_ci": row.auc_ci}
        if name in hidden:
            found[name] = {"n": hidden[name], "positives": hidden[name], **told}
            continue
        rows = test[test[sensitive].astype(str) == name]
        rates = _rates(rows, 0.5 if threshold is None else threshold)
        found[name] = {"n": row.n, "positives": row.positives, **told, **rates}
    return found


def _rates(rows: pd.DataFrame, threshold: float) -> dict[str, float | None]:
    """Return what the threshold does to a group's rows; None where there is no row to ask."""
    called, label = rows["score"] >= threshold, rows["label"]
    values = (called[label == 1].mean(), (~called[label == 0]).mean(), called.mean())
    return {
        name: None if math.isnan(value) else round(float(value), 6)
        for name, value in zip(_RATES, values, strict=True)
    }
