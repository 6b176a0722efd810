"""Training of a method whose work may have several stages, each one Trainer run on the same data.

The stages before the last are trained here; the last one is trained by whoever asks, so that a
search sees its epochs and a refit its scores.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import set_seed

from fairtune_hf.baselines.method import Method, Stage
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.dataset import ImageDataset
from fairtune_hf.training.trainer import FairTrainer
from fairtune_hf.tuner import FairMaskConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodTraining:
    """What the trainings of one method share, whatever the candidate.

    Attributes:
        backbone: Where every training starts.
        arguments: How the run trains; `epochs` is the budget of all stages together.
        datasets: The splits as model inputs; `train` and `validation` are needed.
        class_weights: One factor a class, or None.
        compile_blocks: Compile the transformer blocks, as of `FairTrainer`.
    """

    backbone: Backbone
    arguments: FitArguments
    datasets: Mapping[str, ImageDataset]
    class_weights: tuple[float, float] | None = None
    compile_blocks: bool = False

    def build_last_stage(
        self, method: Method, mask: FairMaskConfig, *, learning_rate: float, seed: int
    ) -> nn.Module:
        """Return the model as the last stage finds it; the head is drawn from torch's random state."""
        model = method.prepare_model(self.backbone.copy_with_new_head(), mask)
        *earlier, last = method.stages(self.arguments.epochs)
        for stage in earlier:
            model = stage.method.start_stage(model)
            trainer = self._trainer(model, stage, learning_rate=learning_rate, seed=seed)
            trainer.train()
            # The next Trainer prepares the model for its precision again.
            model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        return last.method.start_stage(model)

    def train(
        self, method: Method, mask: FairMaskConfig, *, learning_rate: float, seed: int
    ) -> FairTrainer:
        """Train all stages at one seed and return the Trainer with the finished model."""
        set_seed(seed)
        model = self.build_last_stage(method, mask, learning_rate=learning_rate, seed=seed)
        last = method.stages(self.arguments.epochs)[-1]
        trainer = self._trainer(model, last, learning_rate=learning_rate, seed=seed)
        trainer.train()
        return trainer

    def _trainer(
        self, model: nn.Module, stage: Stage, *, learning_rate: float, seed: int
    ) -> FairTrainer:
        arguments = stage_arguments(self.arguments, stage)
        return FairTrainer(
            model=model,
            method=stage.method,
            args=arguments.to_training_arguments(
                Path(tempfile.gettempdir()),
                learning_rate=learning_rate if stage.learning_rate is None else stage.learning_rate,
                seed=seed,
            ),
            train_dataset=self.datasets["train"],
            eval_dataset=self.datasets["validation"],
            class_weights=self.class_weights,
            compile_blocks=self.compile_blocks,
        )


def stage_arguments(arguments: FitArguments, stage: Stage) -> FitArguments:
    """Return the run's settings with the epochs and the weight decay of a stage."""
    changes: dict[str, Any] = {"epochs": stage.epochs}
    if stage.weight_decay is not None:
        changes["weight_decay"] = stage.weight_decay
    return dataclasses.replace(arguments, **changes)
