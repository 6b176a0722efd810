"""Steps without walks over the model train exactly what the Trainer's and Accelerate's own steps do."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import GradientState
from peft import get_peft_model
from torch import nn
from transformers import TrainerCallback

from fairtune_hf.baselines import Method
from fairtune_hf.data import ImageTable
from fairtune_hf.training import (
    Backbone,
    FairTrainer,
    FitArguments,
    build_datasets,
    load_backbone,
    trainer,
)
from fairtune_hf.training.quick_steps import KnownModules, PlainOptimizer
from fairtune_hf.tuner import FairMaskConfig


def make_model(backbone: Backbone) -> Any:
    """The backbone under a mask, with dropout: the mode shows in the numbers."""
    torch.manual_seed(0)
    model = get_peft_model(backbone.copy_with_new_head(), FairMaskConfig(mask="attention"))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.2
    return model.train()


@pytest.fixture
def model(tiny_vit: Path) -> Any:
    return make_model(load_backbone(tiny_vit))


def make_trainer(table: ImageTable, folder: Path, further: str = "{}") -> FairTrainer:
    fit = FitArguments(epochs=3, batch_size=16, transforms="flip", training_arguments=further)
    backbone = load_backbone(folder)
    splits = build_datasets(table, backbone, fit)
    arguments = fit.to_training_arguments(
        folder, learning_rate=1e-2, seed=0, evaluation_rows=len(splits["validation"])
    )
    return FairTrainer(
        model=make_model(backbone),
        args=arguments,
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
    )


class KnowsNothing:
    """Leaves the model to walk each time."""

    def __init__(self, model: nn.Module) -> None:
        pass

    def forget(self) -> None:
        pass


@pytest.mark.parametrize("further", ["{}", '{"gradient_accumulation_steps": 2}'])
def test_the_trained_weights_are_bit_for_bit_those_of_the_libraries_own_steps(
    search_table: ImageTable, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch, further: str
) -> None:
    quick = make_trainer(search_table, tiny_vit, further)
    quick.train()
    assert isinstance(quick.optimizer, PlainOptimizer)
    monkeypatch.setattr(trainer, "KnownModules", KnowsNothing)
    monkeypatch.setattr(trainer, "PlainOptimizer", lambda optimizer: optimizer)
    theirs = make_trainer(search_table, tiny_vit, further)
    start = copy.deepcopy(theirs.model.state_dict())
    theirs.train()
    assert not isinstance(theirs.optimizer, PlainOptimizer)
    trained = quick.model.state_dict()
    for name, expected in theirs.model.state_dict().items():
        assert torch.equal(trained[name], expected), name
    assert any(not torch.equal(trained[name], was) for name, was in start.items())
    # What the evaluations saw, too.
    losses = [[e["eval_loss"] for e in t.state.log_history if "eval_loss" in e] for t in (quick, theirs)]  # fmt: skip
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]


def test_a_training_sets_the_mode_only_where_it_changes_and_leaves_the_model_as_it_was(
    search_table: ImageTable, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_trainer(search_table, tiny_vit)
    calls = []
    original = nn.Module.train

    def count(module: nn.Module, mode: bool = True) -> nn.Module:
        if module is made.model:
            calls.append(mode)
        return original(module, mode)

    monkeypatch.setattr(nn.Module, "train", count)
    own = set(made.model.__dict__)
    made.train()
    # Three epochs of several steps: out of training for the evaluation, and back.
    assert made.state.global_step >= 12
    assert calls == [False, True, False, True, False]
    assert set(made.model.__dict__) <= own | {"_is_accelerate_prepared"}


@pytest.mark.parametrize("change", ["scaler", "processes"])
def test_what_scales_or_shares_gradients_keeps_the_libraries_own_steps(
    search_table: ImageTable, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    made = make_trainer(search_table, tiny_vit)
    if change == "scaler":  # of fp16, which a CPU has not
        made.accelerator.scaler = torch.amp.GradScaler("cpu", enabled=False)
    else:  # FSDP's: it puts other parameters in the model's place
        monkeypatch.setattr(FairTrainer, "_is_alone", False)
    made.train()
    assert not isinstance(made.optimizer, PlainOptimizer)
    known = [name for name in ("train", "parameters") if name in vars(made.model)]
    assert not known
    if change == "processes":
        made.training_step(made.model, made.train_dataset.__getitems__([0, 1]))
        assert made._known is None


def test_a_training_that_is_interrupted_leaves_the_model_as_it_was(
    search_table: ImageTable, tiny_vit: Path
) -> None:
    class Interrupts(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            assert "parameters" in vars(made.model)
            raise KeyboardInterrupt

    made = make_trainer(search_table, tiny_vit)
    made.add_callback(Interrupts())
    with pytest.raises(KeyboardInterrupt):
        made.train()
    assert not {"train", "parameters"} & set(vars(made.model))


def test_a_method_that_finishes_a_model_sees_it_as_it_is(
    search_table: ImageTable, tiny_vit: Path
) -> None:
    seen: list[bool] = []

    class Replaces(Method):
        def finish(self, model: nn.Module, train: Any, validation: Any) -> None:
            head: Any = next(m for m in model.modules() if isinstance(m, nn.Linear))
            head.bias = nn.Parameter(head.bias.detach().clone())
            seen.append(any(p is head.bias for p in model.parameters()))

    made = make_trainer(search_table, tiny_vit)
    made.method = Replaces()
    made.train()
    assert seen == [True]


def test_no_step_is_taken_while_gradients_are_added_up() -> None:
    Accelerator(cpu=True)
    weight = nn.Parameter(torch.ones(3))
    optimizer = PlainOptimizer(torch.optim.AdamW([weight], lr=0.1))
    weight.grad = torch.ones(3)
    GradientState()._set_sync_gradients(False)
    try:
        optimizer.step()
        assert torch.equal(weight.data, torch.ones(3))
    finally:
        GradientState()._set_sync_gradients(True)
    optimizer.step()
    assert float(weight.detach().max()) < 0.95


def test_an_optimizer_of_another_kind_is_wrapped_as_accelerate_does(
    search_table: ImageTable, tiny_vit: Path
) -> None:
    made = make_trainer(search_table, tiny_vit, '{"optim": "sgd"}')
    made.train()
    assert not isinstance(made.optimizer, PlainOptimizer)


def test_known_modules_answer_as_the_model_does(model: Any) -> None:
    names = [name for name, _ in model.named_parameters()]
    by_hand = [p for _, p in model.named_parameters()]
    known = KnownModules(model)
    assert all(a is b for a, b in zip(model.parameters(), by_hand, strict=True))
    assert not list(model.parameters(recurse=False))
    for mode in (False, True, True, False):
        assert model.train(mode) is model
        assert {module.training for module in model.modules()} == {mode}
    next(m for m in model.modules() if isinstance(m, nn.Dropout)).train()
    assert model.eval() is model
    assert not any(module.training for module in model.modules())
    known.forget()
    assert [name for name, _ in model.named_parameters()] == names
    assert "train" not in vars(model)
    assert "parameters" not in vars(model)


def test_what_is_new_in_a_model_is_known_after_a_change_of_the_mode(model: Any) -> None:
    KnownModules(model)
    added = nn.Linear(2, 2).eval()
    model.added = added
    model.eval()
    model.train()
    assert added.training
    assert any(p is added.weight for p in model.parameters())


def test_a_copy_made_in_the_middle_is_a_model_of_its_own(model: Any) -> None:
    KnownModules(model)
    copied = copy.deepcopy(model)
    copied.eval()
    assert model.training
    assert not copied.training
    own = {id(p) for p in model.parameters()}
    assert not own & {id(p) for p in copied.parameters()}
