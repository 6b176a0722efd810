"""The seam every method is written against: the loss, the drawing of rows, the model, the stages.

A method is a small strategy over one Trainer. It says what it changes of plain fine-tuning and
nothing else; which parts of the model are trained comes from a mask, so a method and a mask can be
combined freely. Adding one is one file with a subclass of `Method` and one line in `registry.py`.
Must not import the training loop. Formulas and their sources are named in each method's file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from peft import PeftConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

# `sensitive` is an older name of `group` that a batch still has, for scripts whose label_names ask for it.
_NOT_FOR_MODELS = ("labels", "group", "sensitive")


@dataclass(frozen=True, kw_only=True)
class Hyperparameter:
    """A number or a choice that a method wants tuned beside the learning rate.

    Attributes:
        name: Name of the parameter, also of the argument of the method's constructor.
        low: Lower end of the range, None where `choices` are given.
        high: Upper end of the range.
        log: Whether the range is searched on a logarithmic scale.
        choices: The values to choose from, instead of a range.
    """

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        ranged = self.low is not None and self.high is not None
        if ranged == bool(self.choices):
            raise ValueError(
                f"{self.name}: expected low and high, or choices, and not both. Declare one of them."
            )
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(
                f"{self.name}: expected low < high, got {self.low} and {self.high}. Swap them."
            )
        if self.log and (self.low is None or self.low <= 0):
            raise ValueError(
                f"{self.name}: a logarithmic range starts above 0, got {self.low}. Raise it."
            )


class LabelledImages(Protocol):
    """One split on its device: what a method may read of the data."""

    labels: Tensor
    group: Tensor
    groups: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return `pixel_values`, `labels` and `group` of some rows, augmented if they train."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training of a method; the stages of a method spend its budget of epochs in order.

    Attributes:
        method: What the stage does; most often the method itself.
        epochs: Epochs of the stage.
        learning_rate: Peak learning rate; None is the candidate's.
        weight_decay: AdamW's weight decay; None is the run's.
    """

    method: Method
    epochs: int
    learning_rate: float | None = None
    weight_decay: float | None = None


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that learn at a rate of their own and whose gradients are clipped apart from all others.

    Attributes:
        parameters: Trained parameters of the model, as of a head beside it.
        learning_rate_factor: Times the learning rate of the rest, over the whole schedule.
        max_grad_norm: Largest norm of their gradients together; None leaves them as they are.
    """

    parameters: Sequence[nn.Parameter]
    learning_rate_factor: float = 1.0
    max_grad_norm: float | None = None


class Method:
    """Plain fine-tuning: mean cross entropy over rows drawn once an epoch. Subclasses change a part.

    Empirical risk minimisation is the paper's "full fine-tuning", "linear readout" and so on,
    depending on the mask it is combined with.
    """

    source: ClassVar[str] = "Dutt et al., ICLR 2024, section 4.1"
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]] = ()
    views: ClassVar[int] = 1
    """Augmented views of each picture in a batch; view v of row i is at v * rows + i."""
    evaluations: ClassVar[int] = 0
    """How often an epoch the validation rows are scored for `after_evaluation`."""

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Method:
        """Build the method from the values of its hyperparameters."""
        return cls(**values)

    def stages(self, epochs: int) -> tuple[Stage, ...]:
        """Divide a budget of epochs among the stages; by default there is one."""
        return (Stage(method=self, epochs=epochs),)

    def prepare_model(self, model: PreTrainedModel, mask: PeftConfig) -> nn.Module:
        """Make a pre-trained classifier with a new head ready for the first stage.

        Args:
            model: A copy of the backbone, which the method may change.
            mask: Configuration of the tuner: what is to be trained.
        """
        return get_peft_model(model, mask)

    def start_training(self, train: LabelledImages) -> None:
        """Take notice of the training rows; called once at the start of each stage."""

    def start_stage(self, model: nn.Module) -> nn.Module:
        """Change the model at the start of the stage; called before the optimiser is made."""
        return model

    def end_stage(self, model: nn.Module) -> nn.Module:
        """Return the model as it is after the stage; called after its last epoch.

        What stands beside the classifier for the training alone is dropped here. The last stage's model is saved,
        and scored by its logits alone if it is another than the one that was trained.
        """
        return model

    def parameter_groups(self, model: nn.Module) -> Sequence[ParameterGroup]:
        """Return what learns otherwise than the rest of the model; by default nothing."""
        return ()

    def compute_gradients(self, model: nn.Module, backward: Callable[..., Tensor]) -> Tensor:
        """Add a batch's gradients to those that the parameters hold, and return the loss; by default in one pass.

        Args:
            model: The model, as wrapped by the Trainer.
            backward: Runs a forward and a backward pass on the batch, the same pictures each time, adds to the
                gradients and returns the loss. `backward(reduce=False)` leaves them those of this process.
        """
        return backward()

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Look at the model after an optimiser step, `step` of `steps` in the stage, counted from 1."""

    def after_evaluation(
        self, model: nn.Module, logits: Tensor, validation: LabelledImages
    ) -> bool:
        """Look at the logits of the validation rows, `(n, 2)`, in their order; return whether to go on training."""
        return True

    def row_weights(self, labels: Tensor, group: Tensor) -> Tensor | None:
        """Return each training row's chance to be drawn, any scale, `(n,)`; None draws each row once an epoch.

        Args:
            labels: 0 or 1, `(n,)`.
            group: Group codes, `(n,)`.
        """
        return None

    def compute_loss(
        self,
        model: nn.Module,
        batch: dict[str, Tensor],
        class_weights: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Return the loss to minimise and the model's output with `logits` of shape `(n, 2)`.

        Args:
            model: The model, as wrapped by the Trainer.
            batch: `labels`, `group` and the model's inputs.
            class_weights: One factor a class for the cross entropy, or None.
        """
        outputs = model(**model_inputs(batch))
        losses = row_losses(outputs.logits, batch["labels"], class_weights)
        return self.reduce_losses(losses, batch, training=model.training), outputs

    def reduce_losses(self, losses: Tensor, batch: dict[str, Tensor], *, training: bool) -> Tensor:
        """Turn the losses of a batch's rows, `(n,)`, into one number."""
        return losses.mean()

    def finish(self, model: nn.Module, train: LabelledImages, validation: LabelledImages) -> None:
        """Change the trained model in place after the last epoch, before it is measured."""

    def overrides(self, hook: str) -> bool:
        """Whether the method does anything of its own at a hook: what it leaves alone costs nothing."""
        return getattr(type(self), hook) is not getattr(Method, hook)


def model_inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what of a batch goes into the model: never the label or the group."""
    return {name: value for name, value in batch.items() if name not in _NOT_FOR_MODELS}


def row_losses(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross entropy of each row, `(n,)`, times the weight of its class."""
    losses = nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    if class_weights is None:
        return losses
    return losses * class_weights.to(losses.device)[labels]


def trainable_parameters(model: nn.Module) -> int:
    """Count the parameters that an optimiser would change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def score_rows(model: nn.Module, rows: LabelledImages, *, batch_size: int = 256) -> Tensor:
    """Return the probability of the second label of every row, `(n,)`, in evaluation mode."""
    was_training = model.training
    model.eval()
    scores = []
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            batch = rows.__getitems__(range(start, min(start + batch_size, len(rows))))
            logits = model(**model_inputs(batch)).logits
            scores.append(torch.softmax(logits.double(), dim=1)[:, 1])
    model.train(was_training)
    return torch.cat(scores)
