"""One line that says where a search stands, whoever works on it."""

from __future__ import annotations

import datetime
from typing import Any

from optuna.trial import TrialState
from tqdm.auto import tqdm

from fairtune_hf.search.budget import busy_seconds, count_epochs
from fairtune_hf.search.study import SearchStudy


class Progress:
    """A bar of trials, with running and pruned ones, the best so far, and what is left of each budget.

    Args:
        study: What to show; None draws nothing.
        show: Whether to draw.
    """

    def __init__(self, study: SearchStudy | None, *, show: bool) -> None:
        self._study = study
        self._bar: Any = None
        if study is not None and show:
            self._bar = tqdm(
                total=study.arguments.trials, initial=study.finished(), desc="search", unit="trial"
            )

    def refresh(self) -> None:
        """Read the study and draw."""
        if self._bar is None or self._study is None:
            return
        self._bar.set_postfix_str(describe(self._study), refresh=False)
        self._bar.n = self._study.finished()
        self._bar.refresh()

    def close(self) -> None:
        """End the line."""
        if self._bar is not None:
            self._bar.close()


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
