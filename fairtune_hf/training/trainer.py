"""The Hugging Face Trainer, fed from the device and told about epochs, groups and pruning.

Differs from the parent where the search needs it: trials report epochs instead of steps, the last
epoch is never pruned, and a pruned trial ends on every process, not only on the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import torch
from accelerate.utils import broadcast_object_list
from scipy.special import softmax
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from fairtune_hf.training.dataset import ImageDataset, collate_batch

# What can go wrong in one trial and be right in the next.
TRIAL_FAILURES = (FloatingPointError, torch.OutOfMemoryError, MemoryError)
_END = "no more trials"


class FairTrainer(Trainer):
    """Trainer over `ImageDataset` whose batches carry the group code beside the label.

    Args:
        class_weights: One weight a class for the cross entropy; the loss is the mean of weight times
            cross entropy over the batch, not divided by the sum of the weights.
        **kwargs: Everything `transformers.Trainer` takes.
    """

    def __init__(self, *, class_weights: tuple[float, float] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("data_collator", collate_batch)
        if kwargs.get("compute_metrics") is not None:
            kwargs["compute_metrics"] = _RefuseDiverged(kwargs["compute_metrics"])
        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)
        # What a search adds: called with (trial, epoch, is_last, curve row), returns why to end the trial, or None.
        self.judge: Callable[[optuna.Trial, int, bool, dict[str, Any]], str | None] | None = None
        self.stop_requested = False
        self._class_weights = None if class_weights is None else torch.tensor(class_weights)
        for dataset in (self.train_dataset, self.eval_dataset):
            if isinstance(dataset, ImageDataset):
                dataset.to(self.args.device)
        if isinstance(self.train_dataset, ImageDataset):
            self.add_callback(_RestartAugmentation(self.train_dataset))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Cross entropy of the label; the group code never reaches the model."""
        rest = {
            name: value for name, value in inputs.items() if name not in ("labels", "sensitive")
        }
        outputs = model(**rest)
        losses = nn.functional.cross_entropy(
            outputs.logits.float(), inputs["labels"], reduction="none"
        )
        if self._class_weights is not None:
            losses = losses * self._class_weights.to(losses.device)[inputs["labels"]]
        loss = losses.mean()
        if not return_outputs:
            return loss
        return loss, {"loss": loss, "logits": outputs.logits}

    def predict_scores(self, dataset: ImageDataset) -> np.ndarray:
        """Score every row: the probability of the second label, float64 in [0, 1], shape `(n,)`."""
        dataset.to(self.args.device)
        logits = self.predict(dataset).predictions
        return np.asarray(softmax(logits.astype(np.float64), axis=1)[:, 1])

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
        except (
            ValueError,
            FloatingPointError,
        ):  # between trials, or from numbers all processes share
            self._send(_END)
            raise
        self._send(_END)
        return found

    def train(self, *args: Any, trial: Any = None, **kwargs: Any) -> Any:
        """Train; a failed trial notes why, a pruned one ends quietly on the processes Optuna does not run in."""
        if trial is None:
            return super().train(*args, **kwargs)
        if trial == _END:
            raise _NoMoreTrials
        try:
            return super().train(*args, trial=trial, **kwargs)
        except TRIAL_FAILURES as error:
            if not isinstance(trial, optuna.Trial):
                if not isinstance(error, FloatingPointError):
                    raise
                self.objective = float("nan")
                return None  # the first process saw the same numbers, and decides what follows
            trial.set_user_attr("reason", f"{type(error).__name__}: {error}")
            raise
        except optuna.TrialPruned:
            if self.args.process_index == 0:
                raise
            return None
        finally:
            self.stop_requested |= isinstance(trial, optuna.Trial) and trial.study._stop_flag
            self._release_trial()

    def _report_to_hp_search(self, trial: Any, step: int, metrics: dict[str, float]) -> None:
        """Report the epoch's objective; the first process decides for all of them what ends early."""
        if self.hp_search_backend is None or trial is None:
            return
        self.objective = self.compute_objective(metrics.copy())
        epoch = round(self.state.epoch)
        is_last = epoch >= self.args.num_train_epochs
        ending: str | None = None
        if isinstance(trial, optuna.Trial):
            judge = self.judge or _judge_one_objective
            ending = judge(trial, epoch, is_last, self._curve_row(epoch, metrics))
        if self.args.world_size > 1:
            ending = self._send(ending) if self.args.process_index == 0 else self._receive()
        if ending is not None:
            self.callback_handler.on_train_end(self.args, self.state, self.control)
            raise optuna.TrialPruned(ending)

    def _curve_row(self, epoch: int, metrics: dict[str, float]) -> dict[str, Any]:
        """One line of the trial's learning curve: the validation metrics and the training loss."""
        values = self.objective if isinstance(self.objective, list) else [self.objective]
        row: dict[str, Any] = {"epoch": epoch, "value": values[0], "values": values}
        row["seconds"] = round(time.monotonic() - self._trial_start, 3)
        row |= {
            name.removeprefix("eval_"): value for name, value in metrics.items() if "auc" in name
        }
        losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        return {**row, "loss": losses[-1]} if losses else row

    def call_model_init(self, trial: Any = None) -> Any:
        """Build a trial's model, and start its clock."""
        self._trial_start = time.monotonic()
        return super().call_model_init(trial)

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


class _NoMoreTrials(Exception):
    """Takes the other processes out of the parent's loop over trials."""


def _judge_one_objective(
    trial: optuna.Trial, epoch: int, is_last: bool, row: dict[str, Any]
) -> str | None:
    """Report to Optuna and ask its pruner; at the end, pruning would only throw a result away."""
    if len(row["values"]) > 1:  # Optuna neither records nor prunes these
        return None
    trial.report(row["value"], epoch)
    return "pruned" if not is_last and trial.should_prune() else None


class _RefuseDiverged:
    """Name a diverged training as such before its metrics are computed."""

    def __init__(self, compute_metrics: Any) -> None:
        self._compute_metrics = compute_metrics

    def __call__(self, eval_prediction: Any) -> dict[str, float]:
        broken = ~np.isfinite(eval_prediction.predictions).all(axis=-1)
        if broken.any():
            raise FloatingPointError(
                f"the training diverged: {int(broken.sum())} of {len(broken)} rows have logits that are not numbers"
            )
        return dict(self._compute_metrics(eval_prediction))


class _RestartAugmentation(TrainerCallback):
    """Tie the augmentation's random stream to the run's seed, the process and the epoch."""

    def __init__(self, dataset: ImageDataset) -> None:
        self._dataset = dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._dataset.set_epoch(round(state.epoch), seed=1009 * args.seed + args.process_index)
