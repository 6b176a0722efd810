"""How much a search may spend, and has spent, over workers and restarts: all of it read from the study."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from fairtune_hf.search.arguments import SearchArguments

CUT_SHORT = "cut_short"  # attribute of a trial in whose middle the budget ended: what was spent; it is to be repeated


def busy_seconds(trials: Sequence[FrozenTrial]) -> float:
    """Seconds during which at least one trial ran; trials that ran side by side count once."""
    spans = sorted(span for t in trials if (span := _span(t)) is not None)
    total, until = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _span(trial: FrozenTrial) -> tuple[float, float] | None:
    if trial.datetime_start is None:
        return None
    start = trial.datetime_start.timestamp()
    if trial.state == TrialState.RUNNING:
        return start, max(start, datetime.datetime.now().timestamp())
    if trial.state == TrialState.FAIL and not {"reason", CUT_SHORT} & trial.user_attrs.keys():
        # Found dead long after: it ran at least until its last epoch.
        curve = trial.user_attrs.get("curve", [])
        return start, start + (curve[-1].get("seconds", 0.0) if curve else 0.0)
    if trial.datetime_complete is None:
        return None
    return start, trial.datetime_complete.timestamp()


def count_epochs(trials: Sequence[FrozenTrial]) -> int:
    """Epochs trained over all trials, whatever became of them."""
    return sum(len(t.user_attrs.get("curve", [])) for t in trials)


def spent_reason(search: SearchArguments, trials: Sequence[FrozenTrial]) -> str | None:
    """Say which limit of time or epochs is reached, or None."""
    if search.hours is not None and busy_seconds(trials) >= 3600 * search.hours:
        return f"the {search.hours:g} hours are over"
    if search.trained_epochs is not None and count_epochs(trials) >= search.trained_epochs:
        return f"{search.trained_epochs} epochs are trained"
    return None
