"""A study as tables: trials.csv and curves.csv, written from it and held against it."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from fairtune_hf.checksums import digest_of, read_fact, read_noted, write_noted
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.search.budget import CUT_SHORT, busy_seconds
from fairtune_hf.search.objectives import Objective
from fairtune_hf.search.space import SearchSpace
from fairtune_hf.search.storage import BEAT

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
_STUDY = "study"  # what is noted of it: its name, and a digest of each trial that has ended
_CURVE_COLUMNS = ["number", "epoch", "value", "overall_auc", "loss"]


def write_tables(
    folder: RunFolder,
    space: SearchSpace,
    objectives: Sequence[Objective],
    trials: Sequence[FrozenTrial],
    study_name: str,
) -> None:
    """Write trials.csv and curves.csv of a study into its folder, and note what each trial that has ended is."""
    rows = [trial_row(t, space, objectives) for t in trials]
    extra = [o.name for o in objectives] if len(objectives) > 1 else []
    extra += [h.name for h in space.hyperparameters] + (["seed"] if space.seeds else [])
    columns = _COLUMNS + [name for name in extra if name not in _COLUMNS]
    frame = pd.DataFrame(rows, columns=columns)
    curves = [
        {"number": t.number, **{name: value for name, value in row.items() if name != "values"}}
        for t in trials
        for row in t.user_attrs.get("curve", [])
    ]
    further = sorted({name for row in curves for name in row} - set(_CURVE_COLUMNS))
    curve_frame = pd.DataFrame(curves).reindex(columns=_CURVE_COLUMNS + further)
    texts = {
        folder.trials_file.name: frame.to_csv(index=False),
        folder.curves_file.name: curve_frame.to_csv(index=False),
    }
    study = {"name": study_name, "trials": {str(n): d for n, d in _digests(trials).items()}}
    write_noted(folder.path, texts, **{_STUDY: study})


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


def read_listed(folder: RunFolder, study_name: str) -> dict[int, str | None] | None:
    """Return the trials of a study that have ended, as its folder's tables tell; None where trials.csv is no table.

    By their numbers, each with its digest where one was noted, which earlier releases did not. What can be read
    of a damaged table counts: it tells what there was. Without a trials.csv nothing is told.
    """
    if not folder.trials_file.is_file():
        return {}
    states = _read_states(folder.trials_file.read_bytes())
    listed = {number for number, state in (states or {}).items() if state in _ENDED}
    held = read_fact(folder.path, _STUDY)
    noted = held["trials"] if held and held["name"] == study_name else {}
    if noted and len(listed) <= len(noted):  # else the table is of a longer search than the notes
        return {int(number): digest for number, digest in noted.items()}
    return None if states is None else dict.fromkeys(listed)


def noted_study(folder: RunFolder) -> str | None:
    """Return the name of the study whose trials were last noted in a folder."""
    return (read_fact(folder.path, _STUDY) or {}).get("name")


def require_trials(
    folder: RunFolder,
    listed: Mapping[int, str | None] | None,
    trials: Sequence[FrozenTrial],
    where: str,
) -> None:
    """Refuse a study that does not hold what its folder's tables list, so that nothing is trained again unasked.

    Args:
        folder: Whose tables they are.
        listed: What `read_listed` gave before the study was read: a table tells only what the study holds already.
        trials: The study's trials.
        where: What the study is kept in, for the message.

    Raises:
        ValueError: Trials that have ended are not in the study, or other than they were when they ended.
    """
    file = folder.trials_file
    if listed is None and not trials:
        raise ValueError(
            f"--out: {file} is no table of trials, and {where} holds none: what was trained is not known. "
            f"Restore one of them, or move {file.name} away to train from the first trial on."
        )
    ended = _digests(trials)
    lost = [number for number in listed or {} if number not in ended]
    if lost:
        raise ValueError(
            f"--out: {file} lists {len(lost)} finished trials that {where} does not hold, as when it was copied without "
            "its -wal file, or replaced. Restore it; or choose another --out, or add --overwrite to begin anew; or move "
            f"{file.name} away to train the lost trials again."
        )
    changed = [
        number for number, digest in (listed or {}).items() if digest not in (None, ended[number])
    ]
    if changed:
        raise ValueError(
            f"--storage: {where} is damaged: of its finished trials, {len(changed)} (the first is {changed[0]}) are other than "
            f"they were when {file} was written. Restore it from a copy; or choose another --out, or add --overwrite, to "
            "begin anew."
        )


_ENDED = {TrialState.COMPLETE.name, TrialState.PRUNED.name, TrialState.FAIL.name}


def _digests(trials: Sequence[FrozenTrial]) -> dict[int, str]:
    """Return a digest of all that a study holds of each trial that has ended, which nobody changes any more."""
    return {t.number: _digest(t) for t in trials if t.state.name in _ENDED}


def _digest(trial: FrozenTrial) -> str:
    attributes = {name: value for name, value in trial.user_attrs.items() if name != BEAT}
    held = [
        *(trial.state.name, trial.values, trial.params, trial.intermediate_values),
        *(attributes, trial.system_attrs, trial.datetime_start, trial.datetime_complete),
    ]
    return digest_of(json.dumps(held, sort_keys=True, default=str).encode())[:16]


def are_whole(folder: RunFolder, trials: Sequence[FrozenTrial]) -> bool:
    """Whether trials.csv and curves.csv are as they were written, and list just these trials and their epochs."""
    try:
        listed, curves = map(read_noted, (folder.trials_file, folder.curves_file))
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return False
    states = {t.number: t.state.name for t in trials}
    epochs = Counter(row.get("number") for row in _read_table(curves)[1])
    lengths = {str(t.number): len(t.user_attrs.get("curve", [])) for t in trials}
    due = {number: length for number, length in lengths.items() if length}
    return _read_states(listed) == states and dict(epochs) == due


def _read_states(content: bytes) -> dict[int, str] | None:
    """Return the state of each trial that a trials.csv lists, by its number; None where it is no such table."""
    columns, rows = _read_table(content)
    if not {"number", "state"} <= set(columns):
        return None
    known = {state.name for state in TrialState}
    return {
        int(row["number"]): row["state"]
        for row in rows
        if row.get("number", "").isdecimal() and row.get("state") in known
    }


def _read_table(content: bytes) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and the rows of a table, of a damaged one as far as it can be read."""
    text = content.decode("utf-8", errors="replace").replace("\0", "")
    lines: list[list[str]] = []
    with suppress(csv.Error):  # as where a stray quotation mark makes one field of all that follows
        for line in csv.reader(io.StringIO(text, newline="")):
            lines.append(line)
    columns = lines[0] if lines else []
    return columns, [dict(zip(columns, line, strict=False)) for line in lines[1:]]


def _reason(trial: FrozenTrial) -> str | None:
    if CUT_SHORT in trial.user_attrs:
        return f"ended early: {trial.user_attrs[CUT_SHORT]}"
    if trial.state == TrialState.FAIL:
        return str(trial.user_attrs.get("reason", "its process ended"))
    return trial.user_attrs.get("reason")
