"""FairPrune (Wu et al., MICCAI 2022): weights that only the privileged group needs are set to zero.

Works on a trained model and does not train again. The second derivative is the diagonal of the
generalised Gauss-Newton matrix, exact for two classes: it equals the Hessian's diagonal where the
network is piecewise linear in each single weight, and is the Fisher information in any case. The
reference has only the flags `pruning_ratio 0.35` and `b_param 0.33`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from peft import PeftModel
from torch import Tensor, nn

from fairtune_hf.baselines.method import (
    Hyperparameter,
    LabelledImages,
    Method,
    model_inputs,
    score_rows,
)
from fairtune_hf.metrics import group_metrics
from fairtune_hf.tuner import describe

Weighted = nn.Linear | nn.Conv2d


def diagonal_curvature(
    model: nn.Module, layers: Mapping[str, Weighted], batch: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Diagonal of the Gauss-Newton matrix of the mean cross entropy, for the weights of some layers.

    For two classes with p the probability of the second, the matrix of one row is
    p (1 - p) g g' with g the gradient of the difference of the logits, so one backward pass with
    per-row weight gradients gives the diagonal exactly.

    Args:
        model: Maps the batch's inputs to an output with `logits`, `(n, 2)`.
        layers: Layers by name; each may run several times in a forward pass.
        batch: `n` rows as the data set serves them.

    Returns:
        One tensor a layer, shaped like its weight; no entry is below 0.
    """
    passes: dict[str, list[list[Tensor]]] = {name: [] for name in layers}

    def remember(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            record = [arguments[0].detach()]
            passes[name].append(record)
            output.register_hook(lambda gradient: record.append(gradient.detach()))

        return hook

    hooks = [layer.register_forward_hook(remember(name)) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            logits = model(**model_inputs(batch)).logits.float()
            difference = logits[:, 1] - logits[:, 0]
            chance = torch.sigmoid(difference.detach())
            weighted = ((chance * (1 - chance)).sqrt() * difference).sum()
            parameters = [p for p in model.parameters() if p.requires_grad]
            torch.autograd.grad(weighted, parameters, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    silent = [name for name, records in passes.items() if not records]
    if silent:
        raise RuntimeError(
            f"FairPrune: expected every layer to run in a forward pass; {', '.join(silent[:3])} did not. "
            "Run the model module by module, or leave these layers out."
        )
    return {
        name: _sum_of_squares(layer, passes[name]) / len(difference)
        for name, layer in layers.items()
    }


def _sum_of_squares(layer: Weighted, passes: Sequence[Sequence[Tensor]]) -> Tensor:
    """Square each row's gradient of the weight and add up the rows."""
    of_rows = torch.stack([_row_gradients(layer, *one) for one in passes]).sum(dim=0)
    return of_rows.square().sum(dim=0).reshape(layer.weight.shape)


def _row_gradients(layer: Weighted, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of the weight for each row: `(n, out, in)`, for a convolution `(n, out, in * k * k)`."""
    if isinstance(layer, nn.Linear):
        flat_inputs = inputs.reshape(len(inputs), -1, inputs.shape[-1])
        flat = gradient.reshape(len(gradient), -1, gradient.shape[-1])
        return torch.einsum("nto,nti->noi", flat.float(), flat_inputs.float())
    if layer.groups != 1 or isinstance(layer.padding, str):
        raise ValueError(
            f"FairPrune: expected convolutions without groups and with numeric padding, got {layer}. "
            "Prune a model without them."
        )
    patches = nn.functional.unfold(
        inputs.float(), layer.kernel_size, layer.dilation, layer.padding, layer.stride
    )
    return torch.einsum("nol,nil->noi", gradient.float().flatten(2), patches)


def saliency(
    layers: Mapping[str, Weighted],
    unprivileged: Mapping[str, Tensor],
    privileged: Mapping[str, Tensor],
    beta: float,
) -> dict[str, Tensor]:
    """Score each weight: w^2 / 2 times (curvature for the unprivileged - beta * for the privileged).

    The lower, the less the unprivileged group needs the weight and the more the privileged one does.

    Source: Wu et al. 2022, equation 4.
    """
    return {
        name: 0.5
        * layer.weight.detach().square()
        * (unprivileged[name] - beta * privileged[name]).to(layer.weight.dtype)
        for name, layer in layers.items()
    }


def prune_smallest(
    layers: Mapping[str, Weighted],
    scores: Mapping[str, Tensor],
    pruned: Mapping[str, Tensor],
    count: int,
) -> dict[str, Tensor]:
    """Set further weights to zero, lowest score first over all layers, until `count` are pruned.

    Args:
        layers: Layers by name.
        scores: Score of each weight.
        pruned: Which weights are pruned already; they stay so.
        count: How many are pruned afterwards, those before included.

    Returns:
        Which weights are pruned now: exactly `count`, or as before where that is more.
    """
    names = list(layers)
    flat = torch.cat([scores[n].masked_fill(pruned[n], torch.inf).flatten() for n in names])
    more = count - sum(int(pruned[n].sum()) for n in names)
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    if more > 0:
        chosen[torch.topk(flat, more, largest=False, sorted=False).indices] = True
    parts = chosen.split([pruned[n].numel() for n in names])
    now = {
        n: pruned[n] | part.reshape(pruned[n].shape) for n, part in zip(names, parts, strict=True)
    }
    with torch.no_grad():
        for name in names:
            layers[name].weight.masked_fill_(now[name], 0.0)
    return now


class FairPrune(Method):
    """Fine-tune with the mask given, then prune the trained weights in steps, scored anew at each.

    Biases, norms and the head are left alone. The groups are those with the lowest and the highest
    AUC on validation rows after training, decided once.

    Args:
        prune_share: Share of the trained weights of linear layers and convolutions to set to zero.
        beta: How much the privileged group's need counts.
        step: Share pruned between two estimates of the curvature.
        batches: Batches of each group in an estimate.
        batch_size: Rows of a batch.
    """

    source = "Wu et al., MICCAI 2022, section 2; beta = 0.33, share 0.35 are the reference's flags"
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]] = (
        Hyperparameter(name="prune_share", low=0.1, high=0.5),
        Hyperparameter(name="beta", low=0.1, high=1.0),
    )

    def __init__(
        self,
        *,
        prune_share: float = 0.35,
        beta: float = 0.33,
        step: float = 0.1,
        batches: int = 10,
        batch_size: int = 16,
    ) -> None:
        if not 0 <= prune_share < 1:
            raise ValueError(f"prune_share: expected a share in [0, 1), got {prune_share}.")
        self.prune_share, self.beta, self.step = prune_share, beta, step
        self.batches, self.batch_size = batches, batch_size
        self.roles: tuple[str, str] | None = None
        """Names of the unprivileged and the privileged group, once decided."""

    def finish(self, model: nn.Module, train: LabelledImages, validation: LabelledImages) -> None:
        """Decide who is privileged and prune the model in place.

        Raises:
            ValueError: The mask trains no weight of a linear layer or convolution beside the head.
        """
        layers = prunable_layers(model)
        if not layers:
            raise ValueError(
                "FairPrune: expected trained weights to prune, and the mask trains no linear layer or convolution "
                "beside the head. Combine it with a mask that does, such as full."
            )
        unprivileged, privileged = self._decide_roles(model, validation)
        was_training = model.training
        model.eval()
        generator = torch.Generator().manual_seed(0)
        pruned = {
            n: torch.zeros_like(layer.weight, dtype=torch.bool) for n, layer in layers.items()
        }
        total = sum(layer.weight.numel() for layer in layers.values())
        for share in self._schedule():
            scores = saliency(
                layers,
                self._estimate(model, layers, train, unprivileged, generator),
                self._estimate(model, layers, train, privileged, generator),
                self.beta,
            )
            pruned = prune_smallest(layers, scores, pruned, round(share * total))
        model.train(was_training)

    def _decide_roles(self, model: nn.Module, validation: LabelledImages) -> tuple[int, int]:
        names = [validation.groups[code] for code in validation.group.tolist()]
        found = group_metrics(
            validation.labels.cpu().numpy(),
            score_rows(model, validation).cpu().numpy(),
            sensitive_features=names,
        )
        order = sorted(found.by_group, key=lambda name: found.by_group[name].auc)
        self.roles = (order[0], order[-1])
        return validation.groups.index(order[0]), validation.groups.index(order[-1])

    def _schedule(self) -> list[float]:
        """Shares pruned after each step; the last is exactly the share asked for."""
        steps = max(1, round(self.prune_share / self.step))
        return [self.prune_share * (k + 1) / steps for k in range(steps)]

    def _estimate(
        self,
        model: nn.Module,
        layers: Mapping[str, Weighted],
        train: LabelledImages,
        group: int,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Average the curvature over batches of one group's training rows."""
        rows = torch.nonzero(train.group.cpu() == group).flatten()
        if not len(rows):
            raise ValueError(
                f"fairprune: expected training rows of every group, got none of group number {group}. "
                "Merge groups, or leave this method out."
            )
        wanted = self.batches * self.batch_size
        repeats = -(-wanted // len(rows))
        drawn = torch.cat(
            [rows[torch.randperm(len(rows), generator=generator)] for _ in range(repeats)]
        )
        mean: dict[str, Tensor] = {}
        for batch in drawn[:wanted].split(self.batch_size):
            found = diagonal_curvature(model, layers, train.__getitems__(batch.tolist()))
            for name, values in found.items():
                share = values * (len(batch) / wanted)
                mean[name] = mean[name] + share if name in mean else share
        return mean


def prunable_layers(model: nn.Module) -> dict[str, Weighted]:
    """Return the linear layers and convolutions whose weight is trained, the head's left out."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    heads = {
        leaf.name.rpartition(".")[0] for leaf in describe(base).leaves if leaf.region == "head"
    }
    return {
        name: module
        for name, module in base.named_modules()
        if isinstance(module, Weighted)
        and module.weight.requires_grad
        and not any(name == head or name.startswith(f"{head}.") for head in heads)
    }
