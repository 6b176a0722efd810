"""A study as tables: trials.csv and curves.csv."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from fairtune_hf.run_folder import RunFolder, write_text
from fairtune_hf.search.budget import CUT_SHORT, busy_seconds
from fairtune_hf.search.objectives import Objective
from fairtune_hf.search.space import SearchSpace

_COLUMNS = [
    "number",
    "state",
    "value",
    "learning_rate",
    "mask",
    "preset",
    "epochs",
    "seconds",
    "overall_auc",
    "auc_gap",
    "reason",
]
_CURVE_COLUMNS = ["number", "epoch", "value", "overall_auc", "loss"]


def write_tables(
    folder: RunFolder,
    space: SearchSpace,
    objectives: Sequence[Objective],
    trials: Sequence[FrozenTrial],
) -> None:
    """Write trials.csv and curves.csv of a study into its folder."""
    rows = [trial_row(t, space, objectives) for t in trials]
    extra = [o.name for o in objectives] if len(objectives) > 1 else []
    extra += [h.name for h in space.hyperparameters] + (["seed"] if space.seeds else [])
    columns = _COLUMNS + [name for name in extra if name not in _COLUMNS]
    frame = pd.DataFrame(rows, columns=columns)
    write_text(folder.trials_file, frame.to_csv(index=False))
    curves = [
        {"number": t.number, **{name: value for name, value in row.items() if name != "values"}}
        for t in trials
        for row in t.user_attrs.get("curve", [])
    ]
    further = sorted({name for row in curves for name in row} - set(_CURVE_COLUMNS))
    curve_frame = pd.DataFrame(curves).reindex(columns=_CURVE_COLUMNS + further)
    write_text(folder.curves_file, curve_frame.to_csv(index=False))


def trial_row(
    trial: FrozenTrial, space: SearchSpace, objectives: Sequence[Objective]
) -> dict[str, Any]:
    """Return a trial's line of trials.csv."""
    curve = trial.user_attrs.get("curve", [])
    last = curve[-1] if curve else {}
    values = trial.values if trial.state == TrialState.COMPLETE else last.get("values")
    named = dict(zip((o.name for o in objectives), values, strict=True)) if values else {}
    seconds = busy_seconds([trial]) if trial.datetime_start else None
    return {
        **trial.params,
        **named,
        "number": trial.number,
        "state": trial.state.name,
        "value": values[0] if values else None,
        "learning_rate": trial.params.get("learning_rate"),
        "mask": space.mask_of(trial.params),
        "preset": trial.user_attrs.get("preset"),
        "epochs": len(curve),
        "seconds": None if seconds is None else round(seconds, 3),
        "overall_auc": last.get("overall_auc"),
        "auc_gap": last.get("auc_gap"),
        "reason": _reason(trial),
    }


def _reason(trial: FrozenTrial) -> str | None:
    if CUT_SHORT in trial.user_attrs:
        return f"ended early: {trial.user_attrs[CUT_SHORT]}"
    if trial.state == TrialState.FAIL:
        return str(trial.user_attrs.get("reason", "its process ended"))
    return trial.user_attrs.get("reason")
