"""What `FairTrainer` does between the steps: the augmentation's stream, the clock, the log, the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from transformers import TrainerCallback

from fairtune_hf.training.cost import CostMeter
from fairtune_hf.training.dataset import ImageDataset


class BetweenSteps(TrainerCallback):
    """Restarts the augmentation with each epoch, stops the optimizer's clock, and has each epoch's loss recorded."""

    def __init__(self, cost: CostMeter, dataset: ImageDataset | None) -> None:
        self._cost, self._dataset = cost, dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tie the augmentation's random stream to the run's seed, the process and the epoch."""
        if self._dataset is not None:
            self._dataset.set_epoch(round(state.epoch), seed=1009 * args.seed + args.process_index)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the optimizer's part of the clock."""
        self._cost.clock.mark("other")

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a record, also where the loss is recorded every few steps: `epoch_loss` needs it."""
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
