"""The persistent study: opened or resumed, cleaned of dead trials, read out as tables."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.sampling import (
    StartupPoint,
    build_pruner,
    build_sampler,
    startup_points,
)
from fairtune_hf.search.space import SearchSpace
from fairtune_hf.training.run_folder import RunFolder, write_text

STUDY_NAME = "fairtune"
_MAX_DEATHS = 3  # a point that killed its process this often is left failed
_TRIAL_COLUMNS = [
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


class SearchStudy:
    """One Optuna study in a run folder, counted and resumed exactly.

    Args:
        folder: Where the study's file and tables lie.
        space: What may vary; never changes within a study.
        arguments: The search's settings.
        epochs: Epochs of a full trial.
        seed: Seed of start-up points and sampler.
        startup: The first trials; by default those of `startup_points`.
    """

    def __init__(
        self,
        folder: RunFolder,
        space: SearchSpace,
        arguments: SearchArguments,
        *,
        epochs: int,
        seed: int,
        startup: Sequence[StartupPoint] | None = None,
    ) -> None:
        self._folder, self._arguments = folder, arguments
        self.space = space
        folder.path.mkdir(parents=True, exist_ok=True)
        self.storage = f"sqlite:///{Path(folder.study_file).resolve()}"
        self.sampler = build_sampler(arguments.sampler, seed=seed)
        self.pruner = build_pruner(
            arguments.pruner, epochs=epochs, judge_after=arguments.judge_after
        )
        self.study = optuna.create_study(direction="maximize", **self.create_study_arguments())
        self._bury_dead_trials()
        for point in startup_points(space, seed=seed) if startup is None else startup:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.enqueue_trial(
                    point.params, user_attrs={"preset": point.preset}, skip_if_exists=True
                )

    def create_study_arguments(self) -> dict[str, Any]:
        """Arguments by which `Trainer.hyperparameter_search` opens this same study."""
        return {
            "study_name": STUDY_NAME,
            "storage": self.storage,
            "load_if_exists": True,
            "sampler": self.sampler,
            "pruner": self.pruner,
        }

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in the given states (all but the waiting ones by default), in order of their numbers."""
        wanted = states or (
            TrialState.COMPLETE,
            TrialState.PRUNED,
            TrialState.FAIL,
            TrialState.RUNNING,
        )
        return self.study.get_trials(deepcopy=False, states=wanted)

    def finished(self) -> int:
        """Trials that count against the budget: complete and pruned."""
        return len(self.trials(TrialState.COMPLETE, TrialState.PRUNED))

    def best(self) -> FrozenTrial | None:
        """The complete trial with the highest value; the earliest of equals; None if none completed."""
        complete = self.trials(TrialState.COMPLETE)
        return max(complete, key=lambda t: (t.value, -t.number)) if complete else None

    def best_with_mask(self, mask: str) -> FrozenTrial | None:
        """The best complete trial of one mask, or None."""
        same = [t for t in self.trials(TrialState.COMPLETE) if self.mask_of(t) == mask]
        return max(same, key=lambda t: (t.value, -t.number)) if same else None

    def mask_of(self, trial: FrozenTrial) -> str:
        """Bits of a trial as a string; empty if it died before they were drawn."""
        return self.space.mask_of(trial.params)

    def write_tables(self) -> None:
        """Write trials.csv and curves.csv."""
        trials = [self._trial_row(t) for t in self.trials()]
        frame = pd.DataFrame(trials, columns=_TRIAL_COLUMNS)
        write_text(self._folder.trials_file, frame.to_csv(index=False))
        curves = [
            {"number": t.number, **row}
            for t in self.trials()
            for row in t.user_attrs.get("curve", [])
        ]
        columns = ["number", "epoch", "value", "overall_auc", "loss"]
        curve_frame = pd.DataFrame(curves).reindex(
            columns=columns + sorted({c for r in curves for c in r} - set(columns))
        )
        write_text(self._folder.curves_file, curve_frame.to_csv(index=False))

    def _trial_row(self, trial: FrozenTrial) -> dict[str, Any]:
        curve = trial.user_attrs.get("curve", [])
        last = curve[-1] if curve else {}
        return {
            "number": trial.number,
            "state": trial.state.name,
            "value": trial.value if trial.state == TrialState.COMPLETE else last.get("value"),
            "learning_rate": trial.params.get("learning_rate"),
            "mask": self.mask_of(trial),
            "preset": trial.user_attrs.get("preset"),
            "epochs": len(curve),
            "seconds": None if trial.duration is None else round(trial.duration.total_seconds(), 3),
            "overall_auc": last.get("overall_auc"),
            "auc_gap": last.get("auc_gap"),
            "reason": trial.user_attrs.get("reason", "its process ended")
            if trial.state == TrialState.FAIL
            else None,
        }

    def _bury_dead_trials(self) -> None:
        """Fail the trials a killed process left running and queue their points again.

        Queued before failed, and recognised by `retry_of`, so that a second kill in between neither
        loses a point nor queues it twice.
        """
        retried = {t.user_attrs.get("retry_of") for t in self.study.get_trials(deepcopy=False)}
        for trial in self.trials(TrialState.RUNNING):
            deaths = trial.user_attrs.get("deaths", 0) + 1
            complete = set(self.space.parameter_names) <= set(trial.params)
            point = trial.params if complete else trial.system_attrs.get("fixed_params")
            if point and trial.number not in retried and deaths < _MAX_DEATHS:
                self.study.enqueue_trial(
                    point,
                    user_attrs={
                        "preset": trial.user_attrs.get("preset"),
                        "retry_of": trial.number,
                        "deaths": deaths,
                    },
                )
            self.study.tell(trial.number, state=TrialState.FAIL)
