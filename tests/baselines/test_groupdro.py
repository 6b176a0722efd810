"""The exponentiated-gradient update by hand; the worse group gains weight; training only."""

from __future__ import annotations

import math

import pytest
import torch

from fairtune_hf.baselines import GroupDRO
from fairtune_hf.baselines.groupdro import update_group_weights


def batch_of(labels, group):
    return {"labels": torch.tensor(labels), "group": torch.tensor(group)}


def test_update_and_loss_are_those_computed_by_hand(rows):
    method = GroupDRO(step_size=0.5)
    method.start_training(rows)
    losses = torch.tensor([0.2, 0.4, 1.0, 2.0, 3.0], requires_grad=True)
    loss = method.reduce_losses(losses, batch_of([0, 1, 0, 1, 0], [0, 0, 1, 1, 1]), training=True)
    mean = (0.3, 2.0)
    raised = [0.5 * math.exp(0.5 * m) for m in mean]
    q = [r / sum(raised) for r in raised]
    assert method.weights.tolist() == pytest.approx(q)
    assert float(loss) == pytest.approx(q[0] * mean[0] + q[1] * mean[1])
    loss.backward()  # q is a constant in the gradient
    assert losses.grad.tolist() == pytest.approx([q[0] / 2] * 2 + [q[1] / 3] * 3)
    # A second step starts from the q of the first.
    method.reduce_losses(losses, batch_of([0, 1, 0, 1, 0], [0, 0, 1, 1, 1]), training=True)
    raised = [a * math.exp(0.5 * m) for a, m in zip(q, mean, strict=True)]
    assert method.weights.tolist() == pytest.approx([r / sum(raised) for r in raised])


def test_weights_move_to_the_worse_group_and_stay_a_distribution():
    weights = torch.full((3,), 1 / 3)
    for _ in range(50):
        weights = update_group_weights(weights, torch.tensor([0.1, 0.9, 0.3]), 0.1)
    assert weights.argmax() == 1
    assert float(weights.sum()) == pytest.approx(1.0)
    assert float(weights[1]) > 0.9


def test_a_group_absent_from_the_batch_counts_zero(rows):
    method = GroupDRO(step_size=0.1)
    method.start_training(rows)
    loss = method.reduce_losses(torch.tensor([2.0, 2.0]), batch_of([0, 1], [1, 1]), training=True)
    q = 0.5 * math.exp(0.2) / (0.5 + 0.5 * math.exp(0.2))
    assert method.weights.tolist() == pytest.approx([1 - q, q])
    assert float(loss) == pytest.approx(2 * q)


def test_evaluation_neither_weighs_nor_updates(rows):
    method = GroupDRO(step_size=0.5)
    method.start_training(rows)
    losses = torch.tensor([1.0, 5.0])
    loss = method.reduce_losses(losses, batch_of([0, 1], [0, 1]), training=False)
    assert float(loss) == 3.0
    assert method.weights.tolist() == [0.5, 0.5]


def test_a_new_training_forgets_the_weights(rows):
    method = GroupDRO(step_size=0.5)
    method.start_training(rows)
    method.reduce_losses(torch.tensor([1.0, 5.0]), batch_of([0, 1], [0, 1]), training=True)
    method.start_training(rows)
    assert method.weights.tolist() == [0.5, 0.5]


def test_cells_of_group_and_label_and_the_adjustment(rows):
    method = GroupDRO(step_size=1.0, groups="cell", adjustment=2.0)
    method.start_training(rows)
    counts = [int(((rows.group == s) & (rows.labels == y)).sum()) for s in (0, 1) for y in (0, 1)]
    loss = method.reduce_losses(torch.tensor([1.0, 3.0]), batch_of([1, 0], [0, 1]), training=True)
    adjusted = [0.0, 1.0 + 2 / math.sqrt(counts[1]), 3.0 + 2 / math.sqrt(counts[2]), 0.0]
    raised = [0.25 * math.exp(a) for a in adjusted]
    q = [r / sum(raised) for r in raised]
    assert method.weights.tolist() == pytest.approx(q)
    assert float(loss) == pytest.approx(sum(a * b for a, b in zip(q, adjusted, strict=True)))


def test_rows_are_drawn_so_that_groups_come_equally_often():
    group = torch.tensor([0] * 6 + [1] * 2)
    weights = GroupDRO().row_weights(torch.zeros(8).long(), group)
    assert float(weights[:6].sum()) == pytest.approx(float(weights[6:].sum()))


def test_its_weight_decay_is_the_stage_s():
    assert GroupDRO(weight_decay=0.05).stages(3)[0].weight_decay == 0.05


def test_untold_of_the_training_rows_it_says_so():
    with pytest.raises(RuntimeError, match="start_training"):
        GroupDRO().reduce_losses(torch.ones(1), batch_of([0], [0]), training=True)
