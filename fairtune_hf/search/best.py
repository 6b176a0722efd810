"""The best trial's adapter and validation scores, kept from the moment it is the best.

A search that is cut short leaves a model to use, not only a mask to train again.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import Trial, TrialState
from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm
from transformers import TrainerCallback

from fairtune_hf.checksums import digest_of, read_noted, write_noted
from fairtune_hf.search.objectives import Objective, ObjectiveMetrics
from fairtune_hf.training.adapter_folder import remove_blank_card
from fairtune_hf.training.trainer import FairTrainer
from fairtune_hf.turn import FileTurn
from fairtune_hf.whole_files import flush, remove

FOLDER = "best_trial"
_RECORD, _SCORES, _WEIGHTS = "trial.json", "scores.npy", "adapter_model.safetensors"
# One name each, since whoever writes them holds the turn: what lies there without it is a killed process's.
_PARTIAL, _OLD = f".{FOLDER}.partial", f".{FOLDER}.old"


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
            with _turn(folder):
                finish_interrupted(folder)
            if damage := describe_damage(folder):
                tqdm.write(damage, file=sys.stderr)

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
        if self._is_better(trial, record):
            self._save(trial, record)

    def _save(self, trial: Trial, record: dict[str, Any]) -> None:
        partial = self._folder / _PARTIAL
        with _turn(self._folder):
            # Still, whatever other workers saved meanwhile.
            if not self._is_better(trial, record):
                return
            finish_interrupted(self._folder)
            partial.mkdir(parents=True)
            model: Any = self._trainer.model
            model.save_pretrained(str(partial))
            remove_blank_card(partial)
            if self._metrics.last is not None:
                np.save(partial / _SCORES, self._metrics.last.scores)
            noted = {file.name: [digest_of(file.read_bytes())] for file in partial.iterdir()}
            # Last: with it the folder is whole.
            write_noted(partial, {_RECORD: json.dumps(record)}, **noted)
            for file in [*partial.iterdir(), partial]:
                flush(file)
            _put_in_place(self._folder)

    def _is_better(self, trial: Trial, record: dict[str, Any]) -> bool:
        kept, sign = read_best(self._folder), self._objective.sign
        is_repeated = trial.user_attrs.get("retry_of") is not None
        if kept is None:
            # Before the first one, or it was lost: what is less than the best may not stand for it.
            complete = trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            return all(sign * (record["value"] - other.values[0]) > 0 for other in complete)
        if is_repeated and kept["params"] == record["params"]:
            return True  # the kept one was lost after it was saved: its repetition is the one that counts
        return bool(sign * (record["value"] - kept["value"]) > 0)


def _turn(folder: Path) -> FileTurn:
    return FileTurn(folder / f"{FOLDER}.lock")


def _put_in_place(folder: Path) -> None:
    """Let what was written take the place of what was kept. Call it during a turn."""
    target, old = folder / FOLDER, folder / _OLD
    if os.path.lexists(target):
        target.rename(old)
    (folder / _PARTIAL).rename(target)
    flush(folder)
    remove(old)


def finish_interrupted(folder: Path) -> None:
    """Put what a killed process left half-done in place, or away. Call it during a turn."""
    target, partial, old = folder / FOLDER, folder / _PARTIAL, folder / _OLD
    if not os.path.lexists(target):
        if _why_not_whole(partial) is None:
            partial.rename(target)
        elif os.path.lexists(old):
            old.rename(target)
    remove(partial)
    remove(old)


def why_unreadable(folder: Path) -> str | None:
    """Say what is wrong with the trial kept, as after a power cut; None if nothing is, or none is kept."""
    kept = folder / FOLDER
    return _why_not_whole(kept) if os.path.lexists(kept) else None


def describe_damage(folder: Path) -> str | None:
    """Say that the trial kept is damaged, why, and what comes of it; None if nothing is, or none is kept."""
    reason = why_unreadable(folder)
    if reason is None:
        return None
    return (
        f"{folder / FOLDER} cannot be read ({reason}) and counts as absent; a trial that is better than all before "
        "takes its place."
    )


def _why_not_whole(kept: Path) -> str | None:
    try:
        record = json.loads(read_noted(kept / _RECORD))
        if not (isinstance(record["number"], int) and isinstance(record["params"], dict)):
            return f"{_RECORD}: not a trial"
        if not math.isfinite(record["value"]):
            return f"{_RECORD}: its value is not finite"
        if (kept / _SCORES).exists():
            np.load(io.BytesIO(read_noted(kept / _SCORES)), allow_pickle=False)
        json.loads(read_noted(kept / "adapter_config.json"))
        read_noted(kept / _WEIGHTS)
        with safe_open(kept / _WEIGHTS, framework="np"):
            pass
    except (OSError, ValueError, EOFError, KeyError, TypeError, SafetensorError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def read_best(folder: Path) -> dict[str, Any] | None:
    """Read what is kept: number, value and params of the trial; None before the first one, or if it is not whole."""
    kept = folder / FOLDER
    if _why_not_whole(kept) is not None:
        return None
    return dict(json.loads((kept / _RECORD).read_text(encoding="utf-8")))


def read_best_scores(folder: Path) -> np.ndarray | None:
    """Read the validation scores of the trial kept, in the order of the rows; None where none is kept whole."""
    file = folder / FOLDER / _SCORES
    if _why_not_whole(folder / FOLDER) is not None or not file.is_file():
        return None
    return np.load(file, allow_pickle=False)
