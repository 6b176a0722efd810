"""What a search says while it runs, whoever works on it: a line a finished trial, and where it stands.

The lines are an aligned table that reads the same in a terminal and in a log; the bar below them is
drawn in a terminal alone, since each of its redrawings would be a line of a log.
"""

from __future__ import annotations

import datetime
import sys
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from tqdm.auto import tqdm

from fairtune_hf.search.budget import busy_seconds, count_epochs
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.search.trial_tables import trial_row

_WIDTHS = {
    "done": 8,
    "trial": 6,
    "state": 9,
    "value": 9,
    "best": 9,
    "learning rate": 14,
    "trained": 8,
    "epochs": 7,
    "seconds": 8,
}
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_MISSING = "-"


class Progress:
    """A table of the trials as they finish, and a bar with what runs, the best so far and what is left.

    Trials that had finished before are counted and not written again.

    Args:
        study: What to show; None shows nothing.
        show: Whether to show anything.
    """

    def __init__(self, study: SearchStudy | None, *, show: bool) -> None:
        self._study = study if show else None
        self._bar: Any = None
        self._written: set[int] = set()
        self._has_head = False
        if self._study is None:
            return
        self._written = {trial.number for trial in self._study.trials(*_ENDED)}
        self._bar = tqdm(
            total=self._study.arguments.trials,
            initial=self._study.finished(),
            desc="search",
            unit="trial",
            disable=None,  # drawn in a terminal only
        )

    def refresh(self) -> None:
        """Read the study, write the trials that finished since, and draw the bar."""
        study = self._study
        if study is None:
            return
        ended = [t for t in study.trials(*_ENDED) if t.number not in self._written]
        for trial in sorted(ended, key=_end_of):
            self._written.add(trial.number)
            if not self._has_head:
                self._has_head = True
                tqdm.write(table_head(study), file=sys.stderr)
            tqdm.write(table_line(study, trial), file=sys.stderr)
        if not self._bar.disable:
            self._bar.set_postfix_str(describe(study), refresh=False)
            self._bar.n = study.finished()
            self._bar.refresh()

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            self._bar.close()


def _end_of(trial: FrozenTrial) -> tuple[float, int]:
    end = trial.datetime_complete
    return (end.timestamp() if end else 0.0, trial.number)


def table_head(study: SearchStudy) -> str:
    """Return which search it is and the heads of the columns; `value` is the first objective's."""
    names = {"value": study.objectives[0].name}
    title = f"{study.folder.path.resolve().name}, {study.arguments.trials} trials:"
    return title + "\n" + _aligned(study, [names.get(head, head) for head in _WIDTHS]) + "  mask"


def table_line(study: SearchStudy, trial: FrozenTrial) -> str:
    """Return one finished trial as a line of the table, with the best value so far."""
    row, best = trial_row(trial, study.space, study.objectives), study.best()
    mask = row["mask"]
    cells = [
        f"{study.finished()}/{study.arguments.trials}",
        str(trial.number),
        {"COMPLETE": "complete", "PRUNED": "pruned"}.get(row["state"], "failed"),
        _number(row["value"], ".4f"),
        _number(best.values[0] if best else None, ".4f"),
        _number(row["learning_rate"], ".2e"),
        f"{mask.count('1')}/{len(mask)}" if mask else _MISSING,
        str(row["epochs"]),
        _number(row["seconds"], ".1f"),
    ]
    said = row["reason"] if row["state"] == "FAIL" else row["preset"]
    return f"{_aligned(study, cells)}  {said or 'sampled'}"


def _aligned(study: SearchStudy, cells: list[str]) -> str:
    """Set the cells right in their columns; the column of the value is as wide as its name."""
    widths = {**_WIDTHS, "value": max(_WIDTHS["value"], len(study.objectives[0].name) + 1)}
    pairs = zip(cells, widths.values(), strict=True)
    return "".join(f" {cell:>{width - 1}}" for cell, width in pairs)


def _number(value: float | None, form: str) -> str:
    return _MISSING if value is None else format(value, form)


def describe(study: SearchStudy) -> str:
    """Say in a few words where a study stands."""
    words = [f"{study.running()} running", f"{len(study.trials(TrialState.PRUNED))} pruned"]
    failed = len([t for t in study.trials(TrialState.FAIL) if "reason" in t.user_attrs])
    if failed:
        words.append(f"{failed} failed")
    best = study.best()
    if best is not None:
        words.insert(0, f"best {best.values[0]:.4f} (trial {best.number})")
    search, trials = study.arguments, study.trials()
    if search.hours is not None:
        left = max(0.0, 3600 * search.hours - busy_seconds(trials))
        words.append(f"{datetime.timedelta(seconds=round(left))} left")
    if search.trained_epochs is not None:
        words.append(f"{max(0, search.trained_epochs - count_epochs(trials))} epochs left")
    return ", ".join(words)
