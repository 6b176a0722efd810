"""What `FairTrainer` does between the steps: the augmentation's stream, a method's turns, the clock, the log, the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback

from fairtune_hf.baselines.method import Method
from fairtune_hf.training.cost import CostMeter
from fairtune_hf.training.dataset import ImageDataset
from fairtune_hf.training.fast_forward import run_by_module

if TYPE_CHECKING:
    from fairtune_hf.training.trainer import FairTrainer


class RestartAugmentation(TrainerCallback):
    """Tie the augmentation's random stream to the run's seed, the process and the epoch."""

    def __init__(self, dataset: ImageDataset) -> None:
        self._dataset = dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restart the stream."""
        self._dataset.set_epoch(round(state.epoch), seed=1009 * args.seed + args.process_index)


class AskMethod(TrainerCallback):
    """Tell the method that training starts, and let it change the model after the last epoch."""

    def __init__(self, trainer: FairTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the method its look at the training rows."""
        dataset, method = self._trainer.train_dataset, self._trainer.method
        if isinstance(dataset, ImageDataset):
            dataset.views = method.views
            method.start_training(dataset)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the method its turn after the last epoch."""
        trainer = self._trainer
        finishes = type(trainer.method).finish is not Method.finish
        if not finishes or round(state.epoch) < args.num_train_epochs:
            return
        train, validation = trainer.train_dataset, trainer.eval_dataset
        if isinstance(train, ImageDataset) and isinstance(validation, ImageDataset):
            model = trainer.accelerator.unwrap_model(trainer.model)
            trainer._forget_parameters()
            with run_by_module(model):  # a method may look into single layers
                trainer.method.finish(model, train, validation)


class StopOptimizerTime(TrainerCallback):
    """Ends the optimizer's part of the clock at the end of a step."""

    def __init__(self, cost: CostMeter) -> None:
        self._cost = cost

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End it."""
        self._cost.clock.mark("other")


class LogEpochs(TrainerCallback):
    """Record the loss at each epoch's end, also where it is recorded every few steps: `epoch_loss` needs it."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a record."""
        control.should_log = True


class RefuseDiverged:
    """Name a diverged training as such before its metrics are computed."""

    def __init__(self, compute_metrics: Any) -> None:
        self._compute_metrics = compute_metrics

    def __call__(self, eval_prediction: Any) -> dict[str, float]:
        """Return the metrics.

        Raises:
            FloatingPointError: Logits are not numbers.
        """
        broken = ~np.isfinite(eval_prediction.predictions).all(axis=-1)
        if broken.any():
            raise FloatingPointError(
                f"the training diverged: {int(broken.sum())} of {len(broken)} rows have logits that are not numbers"
            )
        return dict(self._compute_metrics(eval_prediction))


def epoch_loss(history: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean loss over the steps of the epoch that has just ended, however often it was recorded.

    Args:
        history: The Trainer's records; each loss is the mean over the steps since the one before.

    Returns:
        `{"loss": ...}`, or nothing where no loss is on record.
    """
    records = [entry for entry in history if "loss" in entry]
    if not records:
        return {}
    # A record is made at each epoch's end, so none spans two epochs.
    start = round(records[-1]["epoch"]) - 1
    steps = pairwise([0, *(entry["step"] for entry in records)])
    parts = [
        (entry["loss"], last - first)
        for entry, (first, last) in zip(records, steps, strict=True)
        if entry["epoch"] > start + 1.0e-6
    ]
    return {"loss": sum(loss * n for loss, n in parts) / sum(n for _, n in parts)}
