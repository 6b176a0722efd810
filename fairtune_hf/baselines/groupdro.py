"""GroupDRO (Sagawa et al., ICLR 2020): groups are weighed by how badly they do.

Algorithm 1 of the paper. MEDFAIR's version searches two parameters that have no effect and updates
the weights on validation batches too; here the step size is searched and only training updates.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, distributed

from fairtune_hf.baselines.method import Hyperparameter, LabelledImages, Method, Stage
from fairtune_hf.baselines.resampling import cell_weights


def update_group_weights(weights: Tensor, group_losses: Tensor, step_size: float) -> Tensor:
    """Take one exponentiated-gradient step towards the groups with the larger loss.

    Args:
        weights: q, `(groups,)`, in [0, 1] with sum 1.
        group_losses: Mean loss of each group, `(groups,)`; 0 for a group without a row.
        step_size: eta > 0.

    Source: Sagawa et al. 2020, Algorithm 1.
    """
    risen = weights * torch.exp(step_size * group_losses)
    return risen / risen.sum()


class GroupDRO(Method):
    """Minimise the q-weighted mean of the groups' losses, q moving towards the worst group.

    Args:
        step_size: eta of the exponentiated gradient.
        weight_decay: AdamW's weight decay, which the method needs large (section 3.2); None is the run's.
        groups: What a group is: the sensitive group, or the cell of group and label.
        adjustment: C of the generalisation adjustment C / sqrt(rows of the group), added to its loss.
    """

    source = "Sagawa et al., ICLR 2020, Algorithm 1"
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]] = (
        Hyperparameter(name="step_size", low=1.0e-3, high=1.0e-1, log=True),
        Hyperparameter(name="weight_decay", low=1.0e-5, high=1.0e-1, log=True),
    )

    def __init__(
        self,
        *,
        step_size: float = 0.01,
        weight_decay: float | None = None,
        groups: Literal["sensitive", "cell"] = "sensitive",
        adjustment: float = 0.0,
    ) -> None:
        if step_size <= 0:
            raise ValueError(f"step_size: expected more than 0, got {step_size}. 0.01 is usual.")
        self.step_size, self.weight_decay = step_size, weight_decay
        self.groups, self.adjustment = groups, adjustment
        self.weights: Tensor | None = None
        self._adjustments: Tensor | None = None

    def stages(self, epochs: int) -> tuple[Stage, ...]:
        """One stage with the method's own weight decay."""
        return (Stage(method=self, epochs=epochs, weight_decay=self.weight_decay),)

    def start_training(self, train: LabelledImages) -> None:
        """Give every group the same weight."""
        codes = self._codes(train.labels, train.group)
        size = len(train.groups) * (2 if self.groups == "cell" else 1)
        counts = torch.bincount(codes, minlength=size).float()
        self.weights = torch.full((size,), 1.0 / size, device=codes.device)
        self._adjustments = self.adjustment / counts.clamp(min=1).sqrt()

    def row_weights(self, labels: Tensor, group: Tensor) -> Tensor:
        """Draw every group equally often."""
        by = "balanced" if self.groups == "cell" else "group"
        return cell_weights(labels, group, by)  # type: ignore[arg-type]

    def reduce_losses(self, losses: Tensor, batch: dict[str, Tensor], *, training: bool) -> Tensor:
        """Weigh the groups' mean losses by q; in training, move q first. In evaluation the plain mean.

        Raises:
            RuntimeError: Training has not been started with `start_training`.
        """
        if not training:
            return losses.mean()
        if self.weights is None or self._adjustments is None:
            raise RuntimeError(
                "GroupDRO: expected start_training(train) before the first batch. Train it with FairTrainer(method=...)."
            )
        codes = self._codes(batch["labels"], batch["group"]).to(losses.device)
        weights = self.weights.to(losses.device)
        sums = torch.zeros_like(weights).index_add(0, codes, losses.float())
        counts = torch.zeros_like(weights).index_add(0, codes, torch.ones_like(losses).float())
        all_sums, all_counts, processes = _over_processes(sums.detach(), counts)
        adjustments = self._adjustments.to(losses.device) * (all_counts > 0)
        seen = all_counts.clamp(min=1)
        self.weights = update_group_weights(weights, all_sums / seen + adjustments, self.step_size)
        # Gradients are averaged over processes, sums of losses are not: hence the factor. The
        # adjustment is constant in the parameters and has no gradient.
        return (self.weights * (sums / seen * processes + adjustments)).sum()

    def _codes(self, labels: Tensor, group: Tensor) -> Tensor:
        return 2 * group + labels if self.groups == "cell" else group


def _over_processes(sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, int]:
    """Add up the groups' losses and rows of all processes, so that q is the same on each."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return sums, counts, 1
    both = torch.stack([sums, counts])
    distributed.all_reduce(both)
    return both[0], both[1], distributed.get_world_size()
