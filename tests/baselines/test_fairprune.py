"""Saliency against finite differences of each group's loss; exactly the asked share is pruned."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model

from fairtune_hf.baselines import FairPrune
from fairtune_hf.baselines.fairprune import (
    diagonal_curvature,
    prunable_layers,
    prune_smallest,
    saliency,
)
from fairtune_hf.tuner import FairMaskConfig


def group_loss(network, rows, group):
    batch = rows.__getitems__(torch.nonzero(rows.group == group).flatten().tolist())
    logits = network(batch["pixel_values"]).logits
    return torch.nn.functional.cross_entropy(logits, batch["labels"])


def second_difference(network, rows, group, layer, position, step=1e-3):
    """(L(w + h) - 2 L(w) + L(w - h)) / h^2 of one weight."""
    values = []
    with torch.no_grad():
        for shift in (step, 0.0, -step):
            layer.weight.view(-1)[position] += shift
            values.append(float(group_loss(network, rows, group)))
            layer.weight.view(-1)[position] -= shift
    return (values[0] - 2 * values[1] + values[2]) / step**2


def curvature_of(network, layers, rows, group):
    batch = rows.__getitems__(torch.nonzero(rows.group == group).flatten().tolist())
    return diagonal_curvature(network, layers, batch)


@pytest.mark.parametrize("name", ["conv", "hidden"])
def test_saliency_is_that_of_finite_differences(network, rows, name):
    layers = {name: network.get_submodule(name)}
    own = [curvature_of(network, layers, rows, group) for group in (0, 1)]
    beta = 0.4
    found = saliency(layers, *own, beta)[name].flatten()
    weight = layers[name].weight.detach().flatten().clone()
    for position in range(len(weight)):
        by_group = [second_difference(network, rows, g, layers[name], position) for g in (0, 1)]
        expected = 0.5 * weight[position] ** 2 * (by_group[0] - beta * by_group[1])
        assert float(found[position]) == pytest.approx(float(expected), rel=1e-3, abs=2e-7)


def test_curvature_of_a_batch_is_the_mean_of_its_rows(network, rows):
    layers = {"hidden": network.hidden}
    whole = diagonal_curvature(network, layers, rows.__getitems__(range(8)))["hidden"]
    single = [
        diagonal_curvature(network, layers, rows.__getitems__([i]))["hidden"] for i in range(8)
    ]
    torch.testing.assert_close(whole, torch.stack(single).mean(0))


def test_a_layer_that_does_not_run_is_an_error_not_a_zero(network, rows):
    with pytest.raises(RuntimeError, match="unused did not"):
        diagonal_curvature(network, {"unused": torch.nn.Linear(2, 2)}, rows.__getitems__([0, 1]))


def test_smallest_scores_are_pruned_over_all_layers_and_stay_pruned():
    layers = {"a": torch.nn.Linear(2, 2, bias=False), "b": torch.nn.Linear(2, 1, bias=False)}
    scores = {"a": torch.tensor([[5.0, -1.0], [0.5, 4.0]]), "b": torch.tensor([[3.0, 0.1]])}
    none = {
        name: torch.zeros_like(layer.weight, dtype=torch.bool) for name, layer in layers.items()
    }
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    first = prune_smallest(layers, scores, none, 2)
    assert first["a"].tolist() == [[False, True], [False, False]]
    assert first["b"].tolist() == [[False, True]]
    # Scored anew, the lowest of what is left goes; what is pruned does not come back.
    second = prune_smallest(layers, {n: -s for n, s in scores.items()}, first, 3)
    assert second["a"].tolist() == [[True, True], [False, False]]
    assert layers["a"].weight[0].tolist() == [0.0, 0.0]
    assert torch.equal(layers["a"].weight[1], before["a"][1])


@pytest.mark.parametrize(("share", "step"), [(0.35, 0.1), (0.2, 0.2), (0.07, 0.5)])
def test_exactly_the_asked_share_of_the_trained_weights_is_pruned(vit, vit_rows, share, step):
    model = get_peft_model(vit, FairMaskConfig(mask="full"))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    method = FairPrune(prune_share=share, step=step, batches=2, batch_size=5)
    method.finish(model, vit_rows, vit_rows)
    layers = prunable_layers(model)
    total = sum(layer.weight.numel() for layer in layers.values())
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers.values())
    assert zeros == round(share * total)
    # 6 linear layers in each of 2 blocks and the patch embedding, no head.
    assert len(layers) == 13
    pruned = {id(layer.weight) for layer in layers.values()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in pruned:
            assert torch.equal(parameter, before[name]), name
        else:
            kept = parameter != 0
            assert torch.equal(parameter[kept], before[name][kept])


def test_roles_go_by_validation_auc(vit, vit_rows):
    class Scorer(torch.nn.Module):
        def forward(self, pixel_values):
            score = pixel_values.mean((1, 2, 3))
            return type("O", (), {"logits": torch.stack([-score, score], 1)})()

    spoiled = vit_rows.inputs.clone()
    spoiled[vit_rows.group == 0] *= -1  # the score ranks group a backwards
    validation = type(vit_rows)(spoiled, vit_rows.labels, vit_rows.group)
    method = FairPrune()
    assert method._decide_roles(Scorer(), validation) == (0, 1)
    assert method.roles == ("a", "b")


def test_a_mask_that_trains_no_layer_is_refused(vit, vit_rows):
    model = get_peft_model(vit, FairMaskConfig(mask="layernorm"))
    with pytest.raises(ValueError, match="trains no linear layer"):
        FairPrune().finish(model, vit_rows, vit_rows)


def test_fused_and_plain_gradients_agree_with_autograd(vit, vit_rows):
    """Per-row gradients of a real ViT: sum of squares of one backward pass a row."""
    model = get_peft_model(vit, FairMaskConfig(mask="full"))
    model.eval()
    layers = prunable_layers(model)
    batch = vit_rows.__getitems__(range(3))
    found = diagonal_curvature(model, layers, batch)
    expected = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}
    for i in range(3):
        logits = model(pixel_values=batch["pixel_values"][i : i + 1]).logits[0]
        chance = torch.softmax(logits.detach(), 0)[1]
        names = list(layers)
        gradients = torch.autograd.grad(logits[1] - logits[0], [layers[n].weight for n in names])
        for name, gradient in zip(names, gradients, strict=True):
            expected[name] += chance * (1 - chance) * gradient**2 / 3
    for name in layers:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-10)
