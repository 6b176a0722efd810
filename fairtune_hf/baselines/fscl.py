"""FSCL and FSCL+ (Park et al., CVPR 2022): a fair contrastive representation, then a linear readout.

Equations 3 and 5 of the paper in the form of its published code (checked against it to 1e-6). The
reference has only the flags. Here both stages share the budget of epochs, the encoder starts from
the pre-trained weights, and the two views of a picture are two draws of the run's own augmentation.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from fairtune_hf.baselines.method import Hyperparameter, Method, Stage, model_inputs
from fairtune_hf.tuner import describe

PROJECTION_SIZE = 128


def fair_contrastive_loss(
    vectors: Tensor,
    labels: Tensor,
    group: Tensor,
    *,
    temperature: float = 0.1,
    base_temperature: float = 0.1,
    group_norm: bool = False,
) -> Tensor:
    """Mean over anchors of the fair supervised contrastive loss; lower is better.

    Positives of an anchor are all other rows of its label; negatives are the rows of another label
    **in its own group**, so that groups cannot be told apart to tell labels apart. An anchor without a
    negative keeps the attraction alone; one without a positive counts 0.

    Args:
        vectors: L2-normalised projections, `(n, d)`.
        labels: `(n,)`.
        group: Group codes, `(n,)`.
        temperature: tau > 0.
        base_temperature: The loss is scaled by tau / base_temperature.
        group_norm: FSCL+: positives and anchors weighed so that every cell of label and group counts alike.

    Source: Park et al. 2022, equations 3 (FSCL) and 5 (FSCL+).
    """
    similar = (vectors @ vectors.T) / temperature
    same_label = labels[:, None] == labels[None, :]
    same_group = group[:, None] == group[None, :]
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive, negative = same_label & others, ~same_label & same_group
    repulsion = similar.masked_fill(~negative, -torch.inf).logsumexp(dim=1)
    repulsion = torch.where(negative.any(dim=1), repulsion, torch.zeros_like(repulsion))
    terms = similar - repulsion[:, None]
    if group_norm:
        in_cell = (same_label & same_group & others).sum(dim=1).to(similar.dtype)
        weights = positive * torch.where(in_cell > 0, 1.0 / in_cell.clamp(min=1), 0.0)[None, :]
        scale = len(labels) / 8 / (in_cell + 1)
    else:
        weights = positive.to(similar.dtype)
        scale = 1.0 / positive.sum(dim=1).clamp(min=1).to(similar.dtype)
    per_anchor = (weights * terms).sum(dim=1) * scale
    return -(temperature / base_temperature) * per_anchor.mean()


class ProjectedModel(nn.Module):
    """A classifier with a projection head beside it: maps pictures to unit vectors of the features.

    Args:
        encoder: The classifier under the tuner.
        head: Name of the classification head within the bare model; its input is the features.
        size: Length of the features.
    """

    def __init__(self, encoder: nn.Module, head: str, size: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.projection = nn.Sequential(
            nn.Linear(size, size), nn.ReLU(), nn.Linear(size, PROJECTION_SIZE)
        )

    def head_module(self) -> nn.Module:
        """Return the classification head, with whatever the tuner put around it."""
        base: nn.Module = self.encoder.get_base_model()  # type: ignore[operator]
        return base.get_submodule(self.head)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Any]:
        """Return the unit vectors `(n, 128)` in float32 and the classifier's output."""
        features: list[Tensor] = []
        hook = self.head_module().register_forward_pre_hook(
            lambda _, arguments: features.append(arguments[0])
        )
        try:
            outputs = self.encoder(**inputs)
        finally:
            hook.remove()
        projected = self.projection(features[0]).float()
        return nn.functional.normalize(projected, dim=1), outputs


class Contrastive(Method):
    """The first stage: two views of each picture, and the fair contrastive loss of their projections."""

    source = "Park et al., CVPR 2022, section 4.1"
    views = 2

    def __init__(self, *, temperature: float, base_temperature: float, group_norm: bool) -> None:
        self.temperature, self.base_temperature = temperature, base_temperature
        self.group_norm = group_norm

    def start_stage(self, model: nn.Module) -> nn.Module:
        """Leave the head alone: the loss does not reach it."""
        _projected(model).head_module().requires_grad_(False)
        return model

    def compute_loss(
        self, model: nn.Module, batch: dict[str, Tensor], class_weights: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Contrast the views; weights of classes have no place in this loss."""
        vectors, outputs = model(**model_inputs(batch))
        loss = fair_contrastive_loss(
            vectors,
            batch["labels"],
            batch["group"],
            temperature=self.temperature,
            base_temperature=self.base_temperature,
            group_norm=self.group_norm,
        )
        return loss, outputs


class Readout(Method):
    """The second stage: everything but the classification head is frozen, the projection dropped."""

    source = "Park et al., CVPR 2022, section 4.1"

    def start_stage(self, model: nn.Module) -> nn.Module:
        """Return the classifier with its head alone trainable."""
        projected = _projected(model)
        trained = {id(p) for p in _tuned_head(projected.head_module())}
        for parameter in projected.encoder.parameters():
            parameter.requires_grad_(id(parameter) in trained)
        return projected.encoder


class FSCL(Method):
    """Contrastive training of the encoder, then a linear readout of the frozen features.

    Args:
        readout_learning_rate: Learning rate of the second stage; the first has the candidate's.
        temperature: tau.
        base_temperature: tau_b.
        readout_share: Share of the epochs for the second stage, in (0, 1); at least one epoch each.
    """

    source = "Park et al., CVPR 2022, equation 3; flags of the reference: tau = tau_b = 0.1"
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]] = (
        Hyperparameter(name="readout_learning_rate", low=1.0e-3, high=1.0e-1, log=True),
    )
    group_norm: ClassVar[bool] = False

    def __init__(
        self,
        *,
        readout_learning_rate: float = 1.0e-2,
        temperature: float = 0.1,
        base_temperature: float = 0.1,
        readout_share: float = 0.4,
    ) -> None:
        self.readout_learning_rate = readout_learning_rate
        self.temperature, self.base_temperature = temperature, base_temperature
        self.readout_share = readout_share

    def stages(self, epochs: int) -> tuple[Stage, ...]:
        """Contrastive epochs first, then the readout without weight decay.

        Raises:
            ValueError: Fewer than two epochs, which cannot be divided.
        """
        if epochs < 2:
            raise ValueError(
                f"epochs: expected at least 2 for the two stages of FSCL, got {epochs}. Give --epochs 2 or more."
            )
        readout = min(max(1, round(self.readout_share * epochs)), epochs - 1)
        contrastive = Contrastive(
            temperature=self.temperature,
            base_temperature=self.base_temperature,
            group_norm=self.group_norm,
        )
        return (
            Stage(method=contrastive, epochs=epochs - readout),
            Stage(
                method=Readout(),
                epochs=readout,
                learning_rate=self.readout_learning_rate,
                weight_decay=0.0,
            ),
        )

    def prepare_model(self, model: PreTrainedModel, mask: PeftConfig) -> nn.Module:
        """Put the projection beside the masked classifier."""
        name = next(leaf.name for leaf in describe(model).leaves if leaf.region == "head")
        head = name.rpartition(".")[0]
        size = int(model.get_submodule(head).in_features)  # type: ignore[arg-type]
        return ProjectedModel(super().prepare_model(model, mask), head, size)


class FSCLPlus(FSCL):
    """FSCL with group-wise normalisation: cells of label and group count alike."""

    source = "Park et al., CVPR 2022, equation 5"
    group_norm = True


def _projected(model: nn.Module) -> ProjectedModel:
    if not isinstance(model, ProjectedModel):
        raise TypeError(
            f"FSCL: expected the model its prepare_model made, got {type(model).__name__}."
        )
    return model


def _tuned_head(head: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the head that the tuner trains: its copy's, not the base model's."""
    copies = getattr(head, "fairmask_copies", None)
    if copies is None:
        copies = getattr(head, "modules_to_save", None)
    return list((head if copies is None else copies).parameters())
