"""The contrastive loss against a plain double loop; what each stage trains."""

from __future__ import annotations

import math

import pytest
import torch
from peft import get_peft_model

from fairtune_hf.baselines import FSCL, FSCLPlus, fair_contrastive_loss
from fairtune_hf.baselines.fscl import ProjectedModel
from fairtune_hf.tuner import FairMaskConfig


def by_double_loop(v, y, s, tau, base, group_norm):
    """The formulas of the paper, one anchor and one positive at a time."""
    n, total = len(y), 0.0
    dot = [[float(v[i] @ v[j]) for j in range(n)] for i in range(n)]

    def in_cell(j):
        return sum(1 for m in range(n) if m != j and y[m] == y[j] and s[m] == s[j])

    for i in range(n):
        positives = [j for j in range(n) if j != i and y[j] == y[i]]
        negatives = [j for j in range(n) if y[j] != y[i] and s[j] == s[i]]
        log_sum = math.log(sum(math.exp(dot[i][q] / tau) for q in negatives)) if negatives else 0.0
        anchor = 0.0
        for p in positives:
            term = dot[i][p] / tau - log_sum
            if group_norm:
                anchor += term / in_cell(p) if in_cell(p) else 0.0
            else:
                anchor += term / len(positives)
        total += anchor * (n / 8 / (in_cell(i) + 1) if group_norm else 1.0)
    return -(tau / base) * total / n


@pytest.mark.parametrize("group_norm", [False, True])
@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        ([0, 1, 0, 1, 1, 0, 0, 1], [0, 0, 1, 1, 0, 1, 0, 1]),
        ([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]),  # every cell has one row: FSCL+ counts nothing
        ([0, 0, 1, 1, 1], [0, 0, 1, 1, 0]),  # group 1 has one label: no negatives
        ([1, 0, 0], [0, 0, 0]),  # row 0 has no positive
    ],
)
def test_loss_equals_a_double_loop(labels, groups, group_norm):
    generator = torch.Generator().manual_seed(len(labels))
    v = torch.nn.functional.normalize(
        torch.randn(len(labels), 5, generator=generator, dtype=torch.float64), dim=1
    )
    found = fair_contrastive_loss(
        v,
        torch.tensor(labels),
        torch.tensor(groups),
        temperature=0.2,
        base_temperature=0.07,
        group_norm=group_norm,
    )
    expected = by_double_loop(v, labels, groups, 0.2, 0.07, group_norm)
    assert float(found) == pytest.approx(expected, abs=1e-9)


def test_gradient_is_finite_without_negatives():
    v = torch.nn.functional.normalize(torch.randn(4, 3), dim=1).requires_grad_()
    fair_contrastive_loss(v, torch.ones(4).long(), torch.zeros(4).long()).backward()
    assert torch.isfinite(v.grad).all()


def test_negatives_of_other_groups_do_not_repel():
    v = torch.nn.functional.normalize(torch.randn(6, 3), dim=1)
    labels, groups = torch.tensor([0, 0, 1, 1, 1, 1]), torch.tensor([0, 0, 0, 0, 1, 1])
    moved = v.clone()
    moved[4] = -moved[4]  # a row of group 1
    kept = [fair_contrastive_loss(x[:4], labels[:4], groups[:4]) for x in (v, moved)]
    assert torch.equal(*kept)
    anchors = v.clone().requires_grad_()
    fair_contrastive_loss(anchors, labels, groups).backward()
    # Row 4 is no positive and, being of another group, no negative of rows 0 and 1: its similarity to
    # them has no gradient, which shows in the gradient of row 0 being the same without group 1.
    alone = v[:4].clone().requires_grad_()
    fair_contrastive_loss(alone, labels[:4], groups[:4]).backward()
    torch.testing.assert_close(anchors.grad[0] * 6, alone.grad[0] * 4)


@pytest.mark.parametrize("epochs", [2, 3, 5, 30])
def test_stages_spend_the_budget_and_no_more(epochs):
    first, second = FSCL(readout_learning_rate=0.03).stages(epochs)
    assert first.epochs + second.epochs == epochs
    assert min(first.epochs, second.epochs) >= 1
    assert (first.learning_rate, second.learning_rate, second.weight_decay) == (None, 0.03, 0.0)
    assert first.method.views == 2


def test_one_epoch_cannot_be_divided():
    with pytest.raises(ValueError, match="at least 2"):
        FSCL().stages(1)


def test_plus_differs_by_the_normalisation_alone():
    assert FSCLPlus().stages(5)[0].method.group_norm
    assert not FSCL().stages(5)[0].method.group_norm


def test_first_stage_trains_encoder_and_projection_the_second_the_head(vit, vit_rows):
    method = FSCL()
    model = method.prepare_model(vit, FairMaskConfig(mask="full"))
    first, second = method.stages(4)
    model = first.method.start_stage(model)
    batch = vit_rows.__getitems__([*range(8), *range(8)])
    loss, _ = first.method.compute_loss(model, batch)
    loss.backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("projection" in n for n in moved)
    assert any("attention.fairmask_copies" in n for n in moved)
    assert not any("classifier" in n for n in moved)
    assert isinstance(model, ProjectedModel)
    classifier = second.method.start_stage(model)
    trained = {n for n, p in classifier.named_parameters() if p.requires_grad}
    assert {n.rpartition(".")[2] for n in trained} == {"weight", "bias"}
    assert all("classifier.fairmask_copies" in n for n in trained)
    assert sum(p.numel() for p in classifier.parameters() if p.requires_grad) == 16 * 2 + 2


def test_projection_reads_what_the_head_reads(vit, vit_rows):
    model = FSCL().prepare_model(vit, FairMaskConfig(mask="full"))
    inputs = vit_rows.__getitems__(range(5))["pixel_values"]
    vectors, outputs = model(pixel_values=inputs)
    bare = vit.vit(pixel_values=inputs).last_hidden_state[:, 0]
    expected = torch.nn.functional.normalize(model.projection(bare), dim=1)
    torch.testing.assert_close(vectors, expected)
    assert vectors.shape == (5, 128)
    assert outputs.logits.shape == (5, 2)


def test_a_foreign_model_is_refused(vit):
    with pytest.raises(TypeError, match="prepare_model"):
        FSCL().stages(2)[1].method.start_stage(get_peft_model(vit, FairMaskConfig(mask="full")))
