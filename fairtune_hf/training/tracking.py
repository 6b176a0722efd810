"""Experiment trackers of the Trainer (`report_to`): one run a training, with a name a person can read.

The Trainer's own callbacks are used and told where to write and under which name: TensorBoard's default
folder carries the machine's name, and Weights & Biases would write beside whatever folder the command
was given in, call the group of a search by its whole path, and draw one refit into the run of another.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.integrations import TensorBoardCallback, WandbCallback
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
    if "wandb" in trainer.args.report_to:
        trainer.remove_callback(WandbCallback)
        trainer.add_callback(_NamedWandb)


def training_name(args: Any, state: Any) -> str:
    """Return the name of a training: its trial's, or the one it was given."""
    return str(state.trial_name or args.run_name or "training")


def group_name(folder: Path) -> str:
    """Return what the trainings of a folder are grouped under: the run's name, and the part of it they are."""
    if folder.parent.name in ("controls", "control_searches"):
        return f"{folder.parent.parent.name}-{folder.name}"
    return f"{folder.parent.name}-{folder.name}" if folder.name == "confirm" else folder.name


class _NamedTensorBoard(TensorBoardCallback):
    """Writes to `tensorboard/NAME` of the training's folder."""

    tb_writer: Any  # the parent's

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        if self.tb_writer is not None:  # of a training that failed before its end
            self.tb_writer.close()
        folder = Path(args.output_dir) / "tensorboard" / training_name(args, state)
        self.tb_writer = self._SummaryWriter(log_dir=str(folder))
        super().on_train_begin(args, state, control, **kwargs)


class _NamedWandb(WandbCallback):
    """Writes each training to a run of its own, below `wandb/` of the training's folder."""

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            # Here and not at the end of the training before: rows scored after it still go to its run.
            self._wandb.finish()
            self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", "fairtune"),
                name=training_name(args, state),
                group=group_name(Path(args.output_dir).resolve()),
                dir=args.output_dir,
            )
        self.setup(args, state, model, **kwargs)
