"""A study as tables: trials.csv and curves.csv, written from it and held against it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
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


def read_listed(file: Path) -> dict[int, str] | None:
    """Return the state of each trial that trials.csv lists, by its number; None where it is no such table.

    What can be read of a damaged one counts: it tells what there was.
    """
    if not file.is_file():
        return {}
    text = file.read_bytes().decode("utf-8", errors="replace").replace("\0", "")
    rows = csv.DictReader(io.StringIO(text))
    if not {"number", "state"} <= set(rows.fieldnames or []):
        return None
    known = {state.name for state in TrialState}
    return {
        int(row["number"]): row["state"]
        for row in rows
        if str(row["number"]).isdecimal() and row["state"] in known
    }


def require_trials(
    folder: RunFolder, listed: Mapping[int, str] | None, states: Mapping[int, str], where: str
) -> None:
    """Refuse a study that does not hold what its folder's trials.csv lists, so that nothing is trained again unasked.

    Args:
        folder: Whose trials.csv it is.
        listed: What `read_listed` gave before the study was read: a table tells only what the study holds already.
        states: States of the study's trials by their numbers.
        where: What the study is kept in, for the message.

    Raises:
        ValueError: Trials that have ended are not in the study.
    """
    file = folder.trials_file
    if listed is None and not states:
        raise ValueError(
            f"--out: {file} is no table of trials, and {where} holds none: what was trained is not known. "
            f"Restore one of them, or move {file.name} away to train from the first trial on."
        )
    lost = [
        number
        for number, state in (listed or {}).items()
        if state in _ENDED and states.get(number) not in _ENDED
    ]
    if lost:
        raise ValueError(
            f"--out: {file} lists {len(lost)} finished trials that {where} does not hold, as when it was copied without "
            "its -wal file, or replaced. Restore it; or choose another --out, or add --overwrite to begin anew; or move "
            f"{file.name} away to train the lost trials again."
        )


_ENDED = {TrialState.COMPLETE.name, TrialState.PRUNED.name, TrialState.FAIL.name}


def are_whole(folder: RunFolder, trials: Sequence[FrozenTrial]) -> bool:
    """Whether trials.csv and curves.csv list just these trials and their epochs."""
    states = {t.number: t.state.name for t in trials}
    if read_listed(folder.trials_file) != states or not folder.curves_file.is_file():
        return False
    text = folder.curves_file.read_bytes().decode("utf-8", errors="replace").replace("\0", "")
    epochs = Counter(row.get("number") for row in csv.DictReader(io.StringIO(text)))
    curves = {str(t.number): len(t.user_attrs.get("curve", [])) for t in trials}
    return dict(epochs) == {number: length for number, length in curves.items() if length}


def _reason(trial: FrozenTrial) -> str | None:
    if CUT_SHORT in trial.user_attrs:
        return f"ended early: {trial.user_attrs[CUT_SHORT]}"
    if trial.state == TrialState.FAIL:
        return str(trial.user_attrs.get("reason", "its process ended"))
    return trial.user_attrs.get("reason")
