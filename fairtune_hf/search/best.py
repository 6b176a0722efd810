"""The best trial's adapter and validation scores, kept from the moment it is the best.

A search that is cut short leaves a model to use, not only a mask to train again.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from optuna.trial import Trial
from transformers import TrainerCallback

from fairtune_hf.search.objectives import Objective, ObjectiveMetrics
from fairtune_hf.search.storage import FileTurn
from fairtune_hf.training.trainer import FairTrainer

FOLDER = "best_trial"
_RECORD, _SCORES = "trial.json", "scores.npy"


class KeepBest(TrainerCallback):
    """Saves a trial that ends better than the one kept so far.

    Args:
        folder: The search's folder; the trial goes to `best_trial/` in it.
        trainer: Whose model and objective to look at.
        metrics: Holds the rows of the latest evaluation.
        objective: The first objective, by which trials are ranked.
    """

    def __init__(
        self, folder: Path, trainer: FairTrainer, metrics: ObjectiveMetrics, objective: Objective
    ) -> None:
        self._folder, self._trainer = folder, trainer
        self._metrics, self._objective = metrics, objective
        if trainer.is_world_process_zero():
            finish_interrupted(folder)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the model if its trial is complete and the best."""
        trainer = self._trainer
        trial = trainer._trial
        if not isinstance(trial, Trial) or not trainer.is_world_process_zero():
            return
        if round(state.epoch) < args.num_train_epochs:  # pruned
            return
        found = trainer.objective
        value = found[0] if isinstance(found, list) else found
        record = {"number": trial.number, "value": value, "params": trial.params}
        is_repeated = trial.user_attrs.get("retry_of") is not None
        if self._is_better(record, is_repeated):
            self._save(record, is_repeated)

    def _save(self, record: dict[str, Any], is_repeated: bool) -> None:
        partial = self._folder / f"{FOLDER}.{os.getpid()}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        model: Any = self._trainer.model
        model.save_pretrained(str(partial))
        if self._metrics.last is not None:
            np.save(partial / _SCORES, self._metrics.last.scores)
        (partial / _RECORD).write_text(json.dumps(record))  # last: with it the folder is whole
        turn = FileTurn(self._folder / f"{FOLDER}.lock")
        turn.acquire()
        try:
            # Still, whatever other workers saved meanwhile.
            if self._is_better(record, is_repeated):
                _put_in_place(partial, self._folder / FOLDER)
            else:
                shutil.rmtree(partial)
        finally:
            turn.release()

    def _is_better(self, record: dict[str, Any], is_repeated: bool) -> bool:
        kept = read_best(self._folder)
        if kept is None or (is_repeated and kept["params"] == record["params"]):
            return True  # or the kept one was lost after it was saved: its repetition is the one that counts
        return self._objective.sign * (record["value"] - kept["value"]) > 0


def _put_in_place(partial: Path, target: Path) -> None:
    old = partial.with_suffix(".old")
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def finish_interrupted(folder: Path) -> None:
    """Put what killed processes left half-done in place, or away."""
    for left in sorted(folder.glob(f"{FOLDER}.*.*")):
        if psutil.pid_exists(int(left.name.split(".")[1])):
            continue
        if not (folder / FOLDER).exists() and (left / _RECORD).is_file():
            left.rename(folder / FOLDER)
        else:
            shutil.rmtree(left)


def read_best(folder: Path) -> dict[str, Any] | None:
    """Read what is kept: number, value and params of the trial; None before the first one."""
    file = folder / FOLDER / _RECORD
    return dict(json.loads(file.read_text())) if file.is_file() else None


def read_best_scores(folder: Path) -> np.ndarray | None:
    """Read the validation scores of the trial kept, in the order of the rows."""
    file = folder / FOLDER / _SCORES
    return np.load(file, allow_pickle=False) if file.is_file() else None
