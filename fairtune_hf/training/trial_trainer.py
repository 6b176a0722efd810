"""The trials of a search in the Hugging Face Trainer: they report epochs to a judge, and end alike on every process.

Differs from the parent where the search needs it: trials report epochs instead of steps, the last epoch
is never pruned, and a pruned trial ends on every process, not only on the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import optuna
import torch
from accelerate.utils import broadcast_object_list
from transformers import Trainer

from fairtune_hf.training.callbacks import epoch_loss
from fairtune_hf.training.cost import CostMeter
from fairtune_hf.training.training_auc import FittedScores

PRUNED = "pruned"  # the judge's word for a trial that Optuna's pruner ends
# What can go wrong in one trial and be right in the next.
TRIAL_FAILURES = (FloatingPointError, torch.OutOfMemoryError, MemoryError)
_END = "no more trials"
COST = "cost"  # the trial's attribute with what it cost


class TrialTrainer(Trainer):
    """A Trainer whose `hyperparameter_search` runs trials under a judge, on one process or many.

    Attributes:
        judge: Called with (trial, epoch, is_last, curve row), returns why to end the trial, or None; without
            one Optuna's pruner is asked.
        stop_requested: Whether somebody stopped the study.
        cost: Adds up what the trainings cost; begun anew for each trial.
        fitted: Collects the scores of training rows, where there are any.
    """

    model: Any  # the parent's; None between trials, as is the optimizer
    model_wrapped: Any
    optimizer: Any
    cost: CostMeter
    fitted: FittedScores | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.judge: Callable[[optuna.Trial, int, bool, dict[str, Any]], str | None] | None = None
        self.stop_requested = False

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> Any:
        """Search as the parent does; whatever ends it ends it on every process.

        The parent's other processes wait for as many trials as were asked for. Here the first one tells them
        when there will be no more, also when a limit, `study.stop()` or a failure ended the search early.
        """
        if self.args.world_size == 1:
            return super().hyperparameter_search(*args, **kwargs)
        if self.args.process_index > 0:
            try:
                super().hyperparameter_search(*args, **kwargs)
                self._receive()  # all trials were run: only the end is still to come
            except _NoMoreTrials:
                pass
            return None
        try:
            found = super().hyperparameter_search(*args, **kwargs)
        except (ValueError, FloatingPointError, TrialCutShort):
            # Between trials, or from numbers that all processes share.
            self._send(_END)
            raise
        self._send(_END)
        return found

    def train(self, *args: Any, trial: Any = None, **kwargs: Any) -> Any:
        """Train; a failed trial notes why, a pruned one ends quietly on the processes Optuna does not run in."""
        if trial == _END:
            raise _NoMoreTrials
        self.let_go()  # of what was perhaps only scored so far
        if trial is not None:
            self.cost.reset()
            if self.fitted is not None:
                self.fitted.forget()
        self.cost.clock.mark("other")
        try:
            found = super().train(*args, trial=trial, **kwargs)
            self._note_cost(trial)
            return found
        except TRIAL_FAILURES as error:
            if not isinstance(trial, optuna.Trial):
                if trial is None or not isinstance(error, FloatingPointError):
                    raise
                self.objective = float("nan")
                return None  # the first process saw the same numbers, and decides what follows
            trial.set_user_attr("reason", f"{type(error).__name__}: {error}")
            raise
        except (optuna.TrialPruned, TrialCutShort):
            self._note_cost(trial)
            if self.args.process_index == 0:
                raise
            return None
        finally:
            self.cost.clock.mark(None)
            self.let_go()
            self.stop_requested |= isinstance(trial, optuna.Trial) and trial.study._stop_flag
            if trial is not None:
                self._release_trial()

    def let_go(self) -> None:
        """Let go of what holds for the model as it was; called before and after each training."""

    def _note_cost(self, trial: Any) -> None:
        """Leave what a trial cost with the trial, whichever process and restart it belongs to."""
        if isinstance(trial, optuna.Trial):
            self.cost.clock.mark(None)
            trial.set_user_attr(COST, self.cost.record())

    def _report_to_hp_search(self, trial: Any, step: int, metrics: dict[str, float]) -> None:
        """Report the epoch's objective; the first process decides for all of them what ends early."""
        if self.hp_search_backend is None or trial is None:
            return
        self.objective = self.compute_objective(metrics.copy())
        epoch = round(self.state.epoch)
        is_last = epoch >= self.args.num_train_epochs or self.control.should_training_stop
        ending: str | None = None
        fitted = {} if self.fitted is None else self.fitted.collect(self.args.world_size)
        if isinstance(trial, optuna.Trial):
            judge = self.judge or _judge_one_objective
            ending = judge(trial, epoch, is_last, {**self._curve_row(epoch, metrics), **fitted})
        if self.args.world_size > 1:
            ending = self._send(ending) if self.args.process_index == 0 else self._receive()
        if ending is not None:
            self.callback_handler.on_train_end(self.args, self.state, self.control)
            raise optuna.TrialPruned(ending) if ending == PRUNED else TrialCutShort(ending)

    def _curve_row(self, epoch: int, metrics: dict[str, float]) -> dict[str, Any]:
        """One line of the trial's learning curve: the validation metrics and the training loss."""
        values = self.objective if isinstance(self.objective, list) else [self.objective]
        row: dict[str, Any] = {"epoch": epoch, "value": values[0], "values": values}
        row["seconds"] = round(time.monotonic() - self._trial_start, 3)
        row |= {
            name.removeprefix("eval_"): value for name, value in metrics.items() if "auc" in name
        }
        return {**row, **epoch_loss(self.state.log_history)}

    def call_model_init(self, trial: Any = None) -> Any:
        """Build a trial's model, and start its clock."""
        self._trial_start = time.monotonic()
        model = super().call_model_init(trial)
        if trial is not None:
            self.cost.clock.mark("other")  # stages that were trained meanwhile stopped it
        return model

    def _release_trial(self) -> None:
        """Let go of a trial's model and optimizer on every process, whatever became of the trial."""
        self.model = self.model_wrapped = None
        self.optimizer = self.lr_scheduler = None
        self.callback_handler.model = self.callback_handler.optimizer = None
        self.callback_handler.lr_scheduler = None
        self.accelerator.free_memory()

    def _send(self, message: Any) -> Any:
        broadcast_object_list([message], from_process=0)
        return message

    def _receive(self) -> Any:
        received = [None]
        broadcast_object_list(received, from_process=0)
        return received[0]


class TrialCutShort(Exception):
    """The search's budget ended in the middle of a trial, which is to be repeated if there is more of it."""


class _NoMoreTrials(Exception):
    """Takes the other processes out of the parent's loop over trials."""


def _judge_one_objective(
    trial: optuna.Trial, epoch: int, is_last: bool, row: dict[str, Any]
) -> str | None:
    """Report to Optuna and ask its pruner; at the end, pruning would only throw a result away."""
    if len(row["values"]) > 1:  # Optuna neither records nor prunes these
        return None
    trial.report(row["value"], epoch)
    return PRUNED if not is_last and trial.should_prune() else None
