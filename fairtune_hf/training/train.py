"""The one training: a candidate under a method, with a judge (a trial) or without one (a refit).

A method's work may have several stages, each one Trainer run on the same data. The stages before the last
are trained while the model is built; the loop of the last one is a trial's own, so that a judge sees its
epochs, or that of a Trainer which nobody judges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import set_seed

from fairtune_hf.baselines.method import Method, Stage
from fairtune_hf.data import ImageTable
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.candidate import Candidate
from fairtune_hf.training.cost import CostMeter, expected_operations
from fairtune_hf.training.dataset import ImageDataset
from fairtune_hf.training.trainer import FairTrainer


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the candidates of one method are trained, whoever asks for it.

    Attributes:
        table: The rows; `train` and `validation` are needed.
        backbone: Where every training starts.
        arguments: How the run trains; `epochs` is the budget of all stages together.
        method: What is done beside plain fine-tuning.
        folder: Where the Trainer writes what trackers keep, and how they call the trainings; see `at`.
        trainings: How many of them this process does, which decides whether to compile.
        make_trainer: Called with the arguments of `FairTrainer`.
    """

    table: ImageTable
    backbone: Backbone
    arguments: FitArguments
    method: type[Method] = Method
    folder: Path = Path()
    trainings: int = 1
    make_trainer: Callable[..., FairTrainer] = FairTrainer

    @cached_property
    def datasets(self) -> Mapping[str, ImageDataset]:
        """The splits as model inputs."""
        return build_datasets(self.table, self.backbone, self.arguments)

    def at(self, folder: Path, **changes: Any) -> Training:
        """Return one like this on the same pictures for another folder, with other changes too."""
        other = replace(self, folder=folder, **changes)
        vars(other)["datasets"] = self.datasets
        return other

    def train(self, candidate: Candidate) -> FairTrainer:
        """Train all stages and return the Trainer with the finished model."""
        set_seed(self._seed(candidate))
        trainer = self._stage_trainer(*self.build(candidate), candidate)
        trainer.train()
        return trainer

    def for_trials(
        self, model_init: Callable[[Any], nn.Module], compute_metrics: Any, learning_rate: float
    ) -> FairTrainer:
        """Return the Trainer for `hyperparameter_search`; its `model_init` calls `build` for each trial."""
        arguments = self.arguments.to_training_arguments(
            self.folder,
            learning_rate=learning_rate,
            seed=self.arguments.seed,
            evaluation_rows=len(self.datasets["validation"]),
        )
        # So that a trial's model is copied there, not sent there.
        self.backbone.to(arguments.device)
        return self._make(model_init=model_init, compute_metrics=compute_metrics, args=arguments)

    def build(
        self, candidate: Candidate, cost: CostMeter | None = None
    ) -> tuple[nn.Module, Stage, CostMeter | None]:
        """Return the model as the last stage finds it, that stage, and what the stages before it cost.

        The head is drawn from torch's random state, which is the caller's to set.

        Args:
            candidate: What is trained.
            cost: Where to add the cost, if that is begun already.
        """
        method = self.method.from_values(candidate.hyperparameters)
        model = method.prepare_model(self.backbone.copy_with_new_head(), candidate.config())
        *earlier, last = method.stages(candidate.epochs or self.arguments.epochs)
        for number, stage in enumerate(earlier, start=1):
            model = stage.method.start_stage(model)
            trainer = self._stage_trainer(model, stage, cost, candidate, f"-stage-{number}")
            trainer.train()
            cost = trainer.cost
            # The next Trainer prepares the model for its precision again.
            model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        return last.method.start_stage(model), last, cost

    def _stage_trainer(
        self,
        model: nn.Module,
        stage: Stage,
        cost: CostMeter | None,
        candidate: Candidate,
        part: str = "",
    ) -> FairTrainer:
        rate, seed = stage.learning_rate, self._seed(candidate)
        arguments = stage_arguments(self.arguments, stage).to_training_arguments(
            self.folder,
            learning_rate=candidate.learning_rate if rate is None else rate,
            seed=seed,
            run_name=f"{self.folder.resolve().name}-seed-{seed}{part}",
        )
        return self._make(model=model, method=stage.method, cost=cost, args=arguments)

    def _make(self, **arguments: Any) -> FairTrainer:
        """Make a Trainer with what all trainings share."""
        return self.make_trainer(
            train_dataset=self.datasets["train"],
            eval_dataset=self.datasets["validation"],
            class_weights=class_weights(self.table, self.arguments),
            compile_blocks=compiling_pays(
                self.arguments, self.backbone, len(self.datasets["train"]), self.trainings
            ),
            **arguments,
        )

    def _seed(self, candidate: Candidate) -> int:
        return self.arguments.seed if candidate.seed is None else candidate.seed


def build_datasets(
    table: ImageTable, backbone: Backbone, arguments: FitArguments
) -> dict[str, ImageDataset]:
    """Turn each split that the table holds into model inputs; only training rows are augmented."""
    return {
        split: ImageDataset(
            table.subset(split),
            image_mean=backbone.image_mean,
            image_std=backbone.image_std,
            image_size=backbone.image_size,
            transforms=arguments.transforms if split == "train" else None,
            placement=arguments.images_on,
        )
        for split in table.splits
    }


def class_weights(table: ImageTable, arguments: FitArguments) -> tuple[float, float] | None:
    """Weight of each class, 1 - its share of the training rows, or None where classes weigh the same."""
    if arguments.class_weight == "none":
        return None
    positive_share = float(np.mean(table.subset("train").labels))
    return positive_share, 1.0 - positive_share


def compiling_pays(arguments: FitArguments, backbone: Backbone, rows: int, trainings: int) -> bool:
    """Whether to compile the blocks for so many trainings on so many rows in this process."""
    pictures = rows * arguments.epochs * trainings
    return arguments.compiles(expected_operations(backbone.model, pictures))


def stage_arguments(arguments: FitArguments, stage: Stage) -> FitArguments:
    """Return the run's settings with the epochs and the weight decay of a stage."""
    changes: dict[str, Any] = {"epochs": stage.epochs}
    if stage.weight_decay is not None:
        changes["weight_decay"] = stage.weight_decay
    return replace(arguments, **changes)
