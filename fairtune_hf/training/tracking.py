"""Experiment trackers of the Trainer (`report_to`): one run a training, with a name a person can read.

The Trainer's own callbacks are used. TensorBoard's is told where to write, because its default
folder carries the machine's name; the run that Weights & Biases has open is ended when the next
Trainer is built, because its training would be drawn into it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.integrations import TensorBoardCallback
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

_PACKAGES = {"azure_ml": "azureml-core", "clearml": "clearml", "comet_ml": "comet-ml"}


def check_trackers(report_to: object) -> list[str]:
    """Return the trackers named by `report_to`, after a look at whether each can be used here.

    Raises:
        ValueError: A tracker the Trainer does not know, or whose package is not installed.
    """
    names = [report_to] if isinstance(report_to, str) else report_to
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f'report_to: expected a name or a list of names, got {report_to!r}. Write it like ["tensorboard"].'
        )
    names = [name for name in names if name != "none"]
    available = get_available_reporting_integrations()
    for name in names:
        if name == "all":
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(
                f"report_to: expected trackers among {', '.join(sorted(INTEGRATION_TO_CALLBACK))}, got {name!r}. "
                "Correct the name, or leave it out."
            )
        if name not in available:
            package = _PACKAGES.get(name, name)
            raise ValueError(
                f"report_to: expected the package of the tracker {name} to be installed, and it is not. "
                f"Install it (pip install {package}), or leave {name} out."
            )
    return names


def trial_name(trial: Any) -> str:
    """Return the name of a trial's run: its number, and its preset where it has one."""
    preset = trial.user_attrs.get("preset")
    return f"trial-{trial.number:03d}" + (f"-{preset}" if preset else "")


def add_tracking(trainer: Trainer) -> None:
    """Give each training of a Trainer a run of its own in every tracker it reports to."""
    if "tensorboard" in trainer.args.report_to:
        trainer.remove_callback(TensorBoardCallback)
        trainer.add_callback(_NamedTensorBoard)
    if "wandb" in trainer.args.report_to and trainer.is_world_process_zero():
        import wandb

        # Not at the end of a training: the callback still logs to its run when rows are scored.
        wandb.finish()


class _NamedTensorBoard(TensorBoardCallback):
    """Writes to `tensorboard/NAME` of the training's folder."""

    tb_writer: Any  # the parent's

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        if self.tb_writer is not None:  # of a training that failed before its end
            self.tb_writer.close()
        name = state.trial_name or args.run_name or "training"
        folder = Path(args.output_dir) / "tensorboard" / name
        self.tb_writer = self._SummaryWriter(log_dir=str(folder))
        super().on_train_begin(args, state, control, **kwargs)
