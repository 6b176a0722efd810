"""When a method has its turns in a training, and the parameters that it has learn otherwise than the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import TrainerCallback

from fairtune_hf.baselines.method import ParameterGroup
from fairtune_hf.training.dataset import ImageDataset
from fairtune_hf.training.fast_forward import run_by_module

if TYPE_CHECKING:
    from fairtune_hf.training.trainer import FairTrainer


class AskMethod(TrainerCallback):
    """Gives the Trainer's method its turns; a hook that it does not override is not asked."""

    def __init__(self, trainer: FairTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the method its look at the training rows."""
        dataset, method = self._trainer.train_dataset, self._trainer.method
        if isinstance(dataset, ImageDataset):
            dataset.views = method.views
            method.start_training(dataset)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Clip the gradients of the method's own parameters."""
        for group in self._trainer.parameter_groups:
            if group.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(group.parameters, group.max_grad_norm)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the method the model, and the validation rows' logits so many times an epoch."""
        method = self._trainer.method
        if method.overrides("after_step"):
            method.after_step(self._model(), state.global_step, state.max_steps)
        per_epoch = state.max_steps / args.num_train_epochs
        if method.evaluations and _is_due(state.global_step, per_epoch / method.evaluations):
            validation = self._trainer.eval_dataset
            logits = torch.from_numpy(self._trainer.predict(validation).predictions)
            if not method.after_evaluation(self._model(), logits, validation):
                control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the method its turn after the last epoch."""
        trainer = self._trainer
        if not trainer.method.overrides("finish") or not _is_over(args, state, control):
            return
        train, validation = trainer.train_dataset, trainer.eval_dataset
        if isinstance(train, ImageDataset) and isinstance(validation, ImageDataset):
            trainer.forget_parameters()
            model = self._model()
            with run_by_module(model):  # a method may look into single layers
                trainer.method.finish(model, train, validation)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the method hand back the model, unless the training was cut short."""
        if self._trainer.method.overrides("end_stage") and _is_over(args, state, control):
            self._trainer.end_stage()

    def _model(self) -> nn.Module:
        model: nn.Module = self._trainer.accelerator.unwrap_model(self._trainer.model)
        return model


def _is_over(args: Any, state: Any, control: Any) -> bool:
    """Whether the last epoch is done, or the method ended the training."""
    return control.should_training_stop or round(state.epoch) >= args.num_train_epochs


def _is_due(step: int, period: float) -> bool:
    """Whether the step is the first at or after a multiple of the period."""
    return math.floor(step / period + 1e-9) > math.floor((step - 1) / period + 1e-9)


def set_apart(optimizer: torch.optim.Optimizer, groups: Sequence[ParameterGroup]) -> None:
    """Give parameters groups of their own in an optimizer that has no scheduler yet.

    Raises:
        ValueError: A parameter is not trained by the optimizer.
    """
    for group in groups:
        own = {id(parameter) for parameter in group.parameters}
        for held in list(optimizer.param_groups):
            taken = [p for p in held["params"] if id(p) in own]
            if taken:
                held["params"] = [p for p in held["params"] if id(p) not in own]
                rate = held["lr"] * group.learning_rate_factor
                optimizer.add_param_group({**held, "params": taken, "lr": rate})
                own -= {id(p) for p in taken}
        if own:
            raise ValueError(
                f"parameter_groups: expected parameters of the model that are trained, and {len(own)} are not among "
                "them. Return those of the model as it is given; FSDP puts others in their place."
            )
