"""Where the time of a recipe's training goes, measured over a few steps, and what would make it faster."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import TrainerCallback, set_seed
from transformers.trainer_utils import IntervalStrategy

from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.clock import PARTS
from fairtune_hf.training.dataset import ImageDataset
from fairtune_hf.training.graphs import SEEN_BEFORE
from fairtune_hf.training.trainer import FairTrainer
from fairtune_hf.tuner import FairMaskConfig

_WARM_UP_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Seconds of one epoch by part, and what they were measured on.

    Attributes:
        steps: Steps that were measured.
        steps_an_epoch: Steps of one epoch.
        seconds: Seconds of one epoch: the measured steps scaled to an epoch, and one evaluation.
        cost: The cost entry of the measured steps and the evaluation.
        rows: Training rows.
        batch_size: Rows of a step and process.
        evaluation_batch_size: Rows of a step of the evaluation.
        evaluation_rows: Validation rows of a process.
        memory_gib: Memory of the device; None without a GPU.
    """

    steps: int
    steps_an_epoch: int
    seconds: dict[str, float]
    cost: dict[str, Any]
    rows: int
    batch_size: int
    evaluation_batch_size: int
    evaluation_rows: int
    memory_gib: float | None

    @property
    def total(self) -> float:
        """Seconds of an epoch."""
        return sum(self.seconds.values())

    @property
    def images_per_second(self) -> float:
        """Training pictures a second over an epoch with its evaluation."""
        return self.rows / self.total

    def share(self, part: str) -> float:
        """Share of an epoch spent in a part."""
        return self.seconds[part] / self.total


def profile_training(
    datasets: Mapping[str, ImageDataset],
    backbone: Backbone,
    arguments: FitArguments,
    config: FairMaskConfig,
    *,
    steps: int,
    compile_blocks: bool,
) -> Profile:
    """Train a few steps under a mask, score the validation rows once, and take the time of the parts.

    A few steps and an evaluation before them, in which kernels are chosen and compiled, are not counted.
    The evaluation runs as it is: that a search replays it for a small model on a GPU is not measured.
    Nothing is written.
    """
    set_seed(arguments.seed)
    settings = arguments.to_training_arguments(
        Path(tempfile.gettempdir()),
        learning_rate=1.0e-5,
        seed=arguments.seed,
        evaluation_rows=len(datasets["validation"]),
    )
    settings.eval_strategy = IntervalStrategy.NO  # scored below instead
    rows = len(datasets["train"])
    steps_an_epoch = math.ceil(rows / (settings.train_batch_size * settings.world_size))
    before = _warm_up_steps(steps_an_epoch, on_gpu=settings.device.type == "cuda")
    settings.max_steps = before + steps  # a step is measured whether or not the epoch ends with it
    trainer = FairTrainer(
        model=get_peft_model(backbone.copy_with_new_head(), config),
        args=settings,
        train_dataset=datasets["train"],
        eval_dataset=datasets["validation"],
        compile_blocks=compile_blocks,
    )
    trainer.evaluate()
    trainer.add_callback(_MeasureSteps(trainer, before))
    trainer.train()
    training = trainer.cost.record()["by_part"]
    trainer.evaluate()
    cost = trainer.cost.record()
    seconds: dict[str, float] = {part: training[part] * steps_an_epoch / steps for part in PARTS}
    seconds["evaluation"] = cost["by_part"]["evaluation"]
    device = trainer.args.device
    memory = None
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    return Profile(
        steps=steps,
        steps_an_epoch=steps_an_epoch,
        seconds=seconds,
        cost=cost,
        rows=rows,
        batch_size=trainer.args.train_batch_size,
        evaluation_batch_size=trainer.args.eval_batch_size,
        evaluation_rows=math.ceil(len(datasets["validation"]) / settings.world_size),
        memory_gib=memory,
    )


def _warm_up_steps(steps_an_epoch: int, *, on_gpu: bool) -> int:
    """Steps until what is measured runs as in a long training: small models are recorded on a GPU, see `graphs`.

    The rest that ends an epoch has a size of its own, and matters in short ones.
    """
    if not on_gpu:
        return _WARM_UP_STEPS
    recorded = SEEN_BEFORE + 1
    return max(recorded + 1, recorded * steps_an_epoch if steps_an_epoch <= 10 else 0)


class _MeasureSteps(TrainerCallback):
    """Leaves out what a training does before it has warmed up, and after its last step.

    The peak of the memory is kept: it is that of the same steps, and a recorded one has it only when it is recorded.
    """

    def __init__(self, trainer: FairTrainer, warm_up_steps: int) -> None:
        self._cost, self._before = trainer.cost, warm_up_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._before:
            self._cost.reset(peak=False)
            self._cost.clock.mark("other")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._cost.clock.mark(None)


def advise(profile: Profile, *, compiling_pays: bool) -> list[str]:
    """Say what would make the training faster; empty where nothing stands out.

    Args:
        profile: What was measured.
        compiling_pays: Whether the whole run would be long enough to compile for.
    """
    cost, found = profile.cost, []
    on_gpu = profile.memory_gib is not None
    if not on_gpu:
        found.append("No GPU was used: a ViT-B/16 trains a hundred times as fast on one.")
    if on_gpu and cost["precision"] == "fp32":
        found.append("fp32 is several times slower than --precision bf16 where the GPU has it.")
    if on_gpu and cost["precision"] == "bf16" and compiling_pays and not cost["compiled"]:
        found.append("The run is long enough to gain about an eighth by --compile on.")
    if profile.share("data") > 0.1:
        found.append(
            f"Data take {profile.share('data'):.0%}: pictures that do not fit on the device are "
            "gathered on the CPU. Free device memory, or use a lighter --transforms."
        )
    if profile.share("evaluation") > 0.3:
        several = profile.evaluation_batch_size < profile.evaluation_rows
        larger = (
            "raise --training-arguments '{\"per_device_eval_batch_size\": N}' above "
            f"{profile.evaluation_batch_size}, or "
        )
        found.append(
            f"The evaluation of every epoch takes {profile.share('evaluation'):.0%}: "
            f"{larger if several else ''}check the size of the validation split."
        )
    if profile.share("other") + profile.share("optimizer") > 0.25:
        found.append(
            "A quarter of the time is neither data, forward nor backward: the steps are short. A "
            "larger --batch-size makes fewer of them."
        )
    used = cost["peak_memory_gib"]
    small = used is not None and profile.memory_gib and used < 0.4 * profile.memory_gib
    if small and profile.batch_size < min(512, profile.rows):
        found.append(
            f"{used:.0f} of {profile.memory_gib:.0f} GiB are used: a --batch-size above "
            f"{profile.batch_size} fits, and up to 512 raises the rate (and changes the training)."
        )
    return found
