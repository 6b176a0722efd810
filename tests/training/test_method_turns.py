"""The turns a method has in a training: steps of its own, parameters apart, looks at the model, the bare model at the end."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from optuna.trial import TrialState
from torch import Tensor, nn

from fairtune_hf.baselines import FSCL, GroupDRO, Hyperparameter, Method
from fairtune_hf.baselines.method import ParameterGroup, model_inputs, row_losses
from fairtune_hf.data import ImageTable
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.search import SearchArguments, SearchSpace, StudyPlan, run_study
from fairtune_hf.training import (
    Backbone,
    Candidate,
    FairTrainer,
    FitArguments,
    Training,
    load_backbone,
)
from fairtune_hf.training.trial_trainer import COST

ROWS = 108  # training rows of the drawn folder
SGD = {"optim": "sgd", "max_grad_norm": 1.0}
RATE = 0.1


@pytest.fixture(scope="module")
def backbone(tiny_vit: Path) -> Backbone:
    return load_backbone(tiny_vit)


def training_of(
    table: ImageTable, backbone: Backbone, method: type[Method], *, batch: int = 16, epochs: int = 1, **further: Any
) -> Training:  # fmt: skip
    arguments = FitArguments(
        epochs=epochs, batch_size=batch, transforms="none", schedule="constant", warmup_fraction=0.0,
        weight_decay=0.0, training_arguments=json.dumps({**SGD, **further}),
    )  # fmt: skip
    return Training(table=table, backbone=backbone, arguments=arguments, method=method)


def train(training: Training, **tuned: Any) -> FairTrainer:
    return training.train(
        Candidate(mask="full_blocks", layout="block3", learning_rate=RATE, hyperparameters=tuned)
    )


def trained_values(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


class TwoPasses(Method):
    """Sharpness-aware minimisation: the gradient at w + rho g / |g|."""

    rho = 0.5

    def compute_gradients(self, model: nn.Module, backward: Callable[..., Tensor]) -> Tensor:
        parameters = [p for p in model.parameters() if p.requires_grad]
        loss = backward(reduce=False)
        norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p in parameters:
                if p.grad is not None:
                    p.add_(self.rho * p.grad / (norm + 1e-12))
        model.zero_grad()
        backward()
        with torch.no_grad():
            for p, value in zip(parameters, before, strict=True):
                p.copy_(value)
        return loss


def test_a_step_of_two_passes_is_the_one_done_by_hand(
    search_table: ImageTable, backbone: Backbone
) -> None:
    training = training_of(search_table, backbone, TwoPasses, batch=ROWS, max_grad_norm=0.0)
    trainer = train(training)
    torch.manual_seed(0)
    by_hand = Method().prepare_model(
        backbone.copy_with_new_head(), Candidate(mask="full_blocks", layout="block3", learning_rate=RATE).config()
    )  # fmt: skip
    batch = training.datasets["train"].__getitems__(range(ROWS))

    def gradients(model: nn.Module) -> dict[str, Tensor]:
        model.zero_grad()
        loss = row_losses(model(**model_inputs(batch)).logits, batch["labels"]).mean()
        loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    first = gradients(by_hand)
    norm = torch.sqrt(sum(g.square().sum() for g in first.values()))
    moved = copy.deepcopy(by_hand)
    with torch.no_grad():
        for name, p in moved.named_parameters():
            if name in first:
                p.add_(0.5 * first[name] / norm)
    second = gradients(moved)
    found, start = trained_values(trainer.model), trained_values(by_hand)
    assert second
    for name, gradient in second.items():
        expected = start[name] - RATE * gradient
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6, msg=name)
    assert any(not torch.allclose(first[n], second[n], rtol=1e-2) for n in second)
    assert trainer.cost.record()["images"] == 2 * ROWS  # both passes


class Beside(nn.Module):
    """A masked classifier with an adversary beside it that reads its logits."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier, self.adversary = classifier, nn.Linear(2, 2)


class Adversary(Method):
    """An adversary whose loss is a million times too large, learns ten times as fast and is clipped apart."""

    hyperparameters: ClassVar[tuple[Hyperparameter, ...]] = ()

    def prepare_model(self, model: Any, mask: Any) -> nn.Module:
        classifier = super().prepare_model(model, mask)
        state = torch.get_rng_state()  # so that what follows is as without it
        beside = Beside(classifier)
        torch.set_rng_state(state)
        return beside

    def parameter_groups(self, model: nn.Module) -> list[ParameterGroup]:
        own = list(model.adversary.parameters())  # type: ignore[union-attr,operator]
        self.start = [p.detach().clone() for p in own]
        return [ParameterGroup(parameters=own, learning_rate_factor=10.0, max_grad_norm=0.5)]

    def compute_loss(
        self, model: Any, batch: dict[str, Tensor], class_weights: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        outputs = model.classifier(**model_inputs(batch))
        loss = row_losses(outputs.logits, batch["labels"]).mean()
        guess = model.adversary(outputs.logits.detach())
        if model.training:
            loss = loss + 1e6 * row_losses(guess, batch["group"]).mean()
        return loss, outputs

    def end_stage(self, model: nn.Module) -> nn.Module:
        own = model.adversary.parameters()  # type: ignore[union-attr,operator]
        moves = [(p.detach() - s).flatten() for p, s in zip(own, self.start, strict=True)]
        Adversary.last = float(torch.cat(moves).norm())
        return model.classifier  # type: ignore[return-value]

    last: ClassVar[float] = 0.0


def test_what_learns_apart_leaves_the_rest_alone_and_is_gone_at_the_end(
    search_table: ImageTable, backbone: Backbone
) -> None:
    plain = train(training_of(search_table, backbone, Method))
    beside = train(training_of(search_table, backbone, Adversary))
    expected, found = trained_values(plain.model), trained_values(beside.model)
    assert type(beside.model) is type(plain.model)
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7, msg=name)
    scores = beside.predict_scores(beside.eval_dataset)  # as an ordinary classifier
    torch.testing.assert_close(
        torch.from_numpy(scores),
        torch.from_numpy(plain.predict_scores(plain.eval_dataset)),
        rtol=0,
        atol=1e-6,
    )
    steps = -(-ROWS // 16)
    assert 0 < Adversary.last <= steps * RATE * 10 * 0.5 + 1e-6  # ten times the rate, half the norm


def test_one_step_goes_as_far_as_rate_and_clipping_allow(
    search_table: ImageTable, backbone: Backbone
) -> None:
    train(training_of(search_table, backbone, Adversary, batch=ROWS))
    assert pytest.approx(RATE * 10 * 0.5, rel=1e-4) == Adversary.last


def test_parameters_that_are_not_the_model_s_are_refused(
    search_table: ImageTable, backbone: Backbone
) -> None:
    class Foreign(Method):
        def parameter_groups(self, model: nn.Module) -> list[ParameterGroup]:
            return [ParameterGroup(parameters=[nn.Parameter(torch.zeros(1))])]

    with pytest.raises(ValueError, match="parameter_groups: expected parameters of the model"):
        train(training_of(search_table, backbone, Foreign))


class Averaged(Method):
    """The mean of the weights after each step, until the fourth look at the validation rows."""

    evaluations = 2
    seen: ClassVar[list[Any]] = []

    def start_training(self, train: Any) -> None:
        self.steps: list[tuple[int, int]] = []
        self.weights: list[dict[str, Tensor]] = []
        self.logits: list[Tensor] = []
        Averaged.seen.append(self)

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        self.steps.append((step, steps))
        self.weights.append(trained_values(model))

    def after_evaluation(self, model: nn.Module, logits: Tensor, validation: Any) -> bool:
        self.logits.append(logits)
        assert len(logits) == len(validation.labels) == len(validation.group)
        self.after = len(self.steps)
        return len(self.logits) < 4

    def finish(self, model: nn.Module, train: Any, validation: Any) -> None:
        with torch.no_grad():
            for name, p in model.named_parameters():
                if p.requires_grad:
                    p.copy_(torch.stack([w[name] for w in self.weights]).mean(dim=0))


def test_looks_after_steps_and_evaluations_and_an_end_that_the_method_chooses(
    search_table: ImageTable, backbone: Backbone
) -> None:
    Averaged.seen.clear()
    trainer = train(training_of(search_table, backbone, Averaged, epochs=5))
    (method,) = Averaged.seen
    assert method.steps == [
        (step, 35) for step in range(1, 15)
    ]  # 7 an epoch, ended after two epochs
    assert [len(logits) for logits in method.logits] == [36] * 4
    for name, value in trained_values(trainer.model).items():
        mean = torch.stack([w[name] for w in method.weights]).mean(dim=0)
        torch.testing.assert_close(value, mean, msg=name)


def test_a_trial_that_its_method_ends_is_complete_and_scored_as_it_left_the_model(
    search_table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    fit = FitArguments(epochs=6, batch_size=16, transforms="none")
    search = SearchArguments(trials=2, presets=False, pruner="none")
    plan = StudyPlan(RunFolder(tmp_path), SearchSpace(blocks=2, mask="full_blocks"), search, fit)
    how = Training(table=search_table, backbone=backbone, arguments=fit, method=Averaged)
    study = run_study(plan, how, keep_best=False, show_progress=False)
    assert study is not None
    trials = study.trials()
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 2
    assert [len(t.user_attrs["curve"]) for t in trials] == [2, 2]
    assert [t.user_attrs[COST]["images"] for t in trials] == [2 * ROWS] * 2


@pytest.mark.parametrize(
    ("method", "epochs", "pictures"),
    [(FSCL, 5, 2 * 3 + 2), (GroupDRO, 5, 5), (Method, 5, 5)],
    ids=["fscl", "groupdro", "plain"],
)
def test_every_stage_and_every_view_of_a_picture_is_counted(
    method: type[Method], epochs: int, pictures: int, search_table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:  # fmt: skip
    """Of five epochs FSCL contrasts two views of each picture in three and reads out one in two."""
    fit = FitArguments(epochs=epochs, batch_size=16)
    how = Training(table=search_table, backbone=backbone, arguments=fit, method=method)
    refit = how.train(Candidate(mask="full_blocks", layout="block3", learning_rate=1e-3))
    space = SearchSpace(blocks=2, mask="full_blocks", hyperparameters=method.hyperparameters)
    search = SearchArguments(trials=1, presets=False, pruner="none")
    study = run_study(
        StudyPlan(RunFolder(tmp_path), space, search, fit),
        how,
        keep_best=False,
        show_progress=False,
    )
    assert study is not None
    costs = [refit.cost.record(), study.trials()[0].user_attrs[COST]]
    for cost in costs:
        assert cost["images"] == pictures * ROWS
        assert cost["seconds"] == pytest.approx(sum(cost["by_part"].values()), abs=0.01)
        assert cost["by_part"]["backward"] > 0
