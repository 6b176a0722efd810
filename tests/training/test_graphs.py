"""CUDA graphs of small models: the numbers are those of the model as it is."""

from __future__ import annotations

import gc
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification

from fairtune_hf.baselines import GroupDRO, Method
from fairtune_hf.data import ImageTable
from fairtune_hf.search import SearchArguments, SearchSpace, run_study
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.training import (
    FairTrainer,
    FitArguments,
    RunFolder,
    Training,
    graphs,
    load_backbone,
)
from fairtune_hf.training.graphs import GraphedModel
from fairtune_hf.tuner import FairMaskConfig


class Contrastive(Method):
    """A method that calls the model twice before one backward pass."""

    def compute_loss(self, model: Any, batch: Any, class_weights: Any = None) -> Any:
        first, _ = super().compute_loss(model, batch, class_weights)
        second, outputs = super().compute_loss(model, batch, class_weights)
        return first + second, outputs


MASKS = ["none", "layernorm", "attention", "101001010110", "full_blocks"]


def make_model(mask: str, device: str) -> nn.Module:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=128,
        image_size=32,
        patch_size=8,
        num_labels=2,
        initializer_range=0.15,
    )
    model = get_peft_model(ViTForImageClassification(config), FairMaskConfig(mask=mask))
    return model.to(device).train()


def train(model: nn.Module, call: Any, sizes: list[int]) -> list[Tensor]:
    """Logits of each step; sizes below 0 are evaluated."""
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=3e-3, fused=True
    )
    found = []
    for number, size in enumerate(sizes):
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randn(abs(size), 3, 32, 32, generator=generator).to(device)
        labels = (torch.arange(abs(size)) % 2).to(device)
        model.train(size > 0)
        with torch.set_grad_enabled(size > 0):
            logits = call(pixel_values=pixels).logits
        found.append(logits.detach())  # kept: a replay must not write over it
        if size > 0:
            functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
    return found


SIZES = [*[8] * 6, 5, -12, *[8] * 4, 5, -12, 5, -12, 5, -12, 8, 5, -12]


def train_on_gpu(mask: str, *, graphed: bool, bf16: bool) -> Tensor:
    """Logits of all steps one after the other."""
    model = make_model(mask, "cuda")
    call = GraphedModel(model, forward_operations=1.0) if graphed else model
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=bf16):
        found = torch.cat(train(model, call, SIZES)).float()
    if graphed:
        recorded = {key[0][0]: key[1:] for key in call.graphs}
        assert recorded == {8: (True, True), 5: (True, True), 12: (False, False)}
    return found


@pytest.mark.gpu
@pytest.mark.parametrize("mask", MASKS)
def test_recorded_steps_compute_the_same(mask: str) -> None:
    as_it_is = train_on_gpu(mask, graphed=False, bf16=False)
    recorded = train_on_gpu(mask, graphed=True, bf16=False)
    torch.testing.assert_close(recorded, as_it_is, rtol=1e-4, atol=1e-5)
    assert float(as_it_is.std()) > 0.01


@pytest.mark.gpu
@pytest.mark.parametrize("mask", MASKS)
def test_recorded_steps_in_bf16_are_as_near_to_fp32_as_they_are_without(mask: str) -> None:
    exact = train_on_gpu(mask, graphed=False, bf16=False)
    off, allowed = (
        float((train_on_gpu(mask, graphed=graphed, bf16=True) - exact).norm() / exact.norm())
        for graphed in (True, False)
    )
    assert 0 < off <= 2 * allowed + 0.01


def reserved_bytes() -> int:
    """Bytes held on the GPU, those of recordings too."""
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_search_finds_the_same_with_and_without(
    search_table: ImageTable,
    tiny_vit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    recorded: list[int] = []

    class Watched(FairTrainer):
        def _note_cost(self, trial: Any) -> None:
            recorded.append(0 if self._graphed is None else len(self._graphed.graphs))
            super()._note_cost(trial)

    values, reserved = {}, []
    for most in (0.0, graphs._FORWARD_OF_A_BLOCK):
        monkeypatch.setattr(graphs, "_FORWARD_OF_A_BLOCK", most)
        folder = RunFolder(tmp_path / str(most))
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="The training steps could not be recorded")
            study = run_study(
                StudyPlan(
                    folder,
                    SearchSpace(blocks=2),
                    SearchArguments(trials=4, pruner="none"),
                    FitArguments(epochs=6, batch_size=16, precision=precision),
                ),
                Training(
                    table=search_table,
                    backbone=load_backbone(tiny_vit),
                    arguments=FitArguments(epochs=6, batch_size=16, precision=precision),
                    make_trainer=Watched,
                ),
                keep_best=False,
                show_progress=False,
                on_candidate=lambda _: reserved.append(reserved_bytes()),
            )
        assert study is not None
        values[most] = [trial.value for trial in study.trials()]
    # Whole batches, the rest of an epoch, and the evaluation.
    assert recorded == [0] * 4 + [3] * 4
    np.testing.assert_allclose(*values.values(), atol=0.02 if precision == "fp32" else 0.1)
    assert max(reserved[-3:]) <= reserved[-4] + 2**22, "a trial's recordings outlive it"


@pytest.mark.gpu
def test_what_cannot_be_recorded_runs_as_it_is_and_says_so() -> None:
    class Reads(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Tensor) -> Any:
            float(pixel_values.sum())  # waits for the device, which a recording cannot
            return self.model(pixel_values=pixel_values)

    model = Reads(make_model("attention", "cuda"))
    call = GraphedModel(model, forward_operations=1.0)
    with pytest.warns(UserWarning, match="could not be recorded as CUDA graphs"):
        found = train(model, call, [8] * 6)
    assert not call.graphs
    torch.randn(3, device="cuda")  # the random numbers are not left locked
    reference = make_model("attention", "cuda")
    for got, want in zip(found, train(reference, reference, [8] * 6), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


class Recorded:
    """What a recording is without a GPU: the same logits for ever."""

    def __init__(self, model: nn.Module, pixels: Tensor, pool: Any) -> None:
        with torch.no_grad():
            self.logits = model(pixel_values=pixels).logits

    def run(self, pixels: Tensor) -> Tensor:
        return self.logits.clone()


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_random_state_kept", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(graphs, "_Graphs", Recorded)


def is_replayed(call: GraphedModel, rows: int = 8) -> bool:
    """Whether other pictures give the same logits."""
    with torch.no_grad():
        one, other = (call(pixel_values=torch.randn(rows, 3, 32, 32)).logits for _ in range(2))
    return torch.equal(one, other)


@pytest.mark.usefixtures("without_gpu")
def test_a_size_is_recorded_at_its_fourth_time() -> None:
    call = GraphedModel(make_model("attention", "cpu"), forward_operations=1.0)
    assert [is_replayed(call) for _ in range(3)] == [False, False, True]  # two at a time
    assert not is_replayed(call, rows=5)
    call.model.eval()
    assert not is_replayed(call)


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize("change", ["disable", "unfreeze", "move", "replace"])
def test_what_was_recorded_is_forgotten_when_the_parameters_change(change: str) -> None:
    model: Any = make_model("attention", "cpu")
    call = GraphedModel(model, forward_operations=1.0)
    for _ in range(3):
        is_replayed(call)
    assert is_replayed(call)
    if change == "disable":
        with model.disable_adapter():
            assert not is_replayed(call)
    elif change == "unfreeze":
        model.requires_grad_(True)
    elif change == "move":
        model.double().float()
    else:
        weight = next(p for p in model.parameters() if p.requires_grad)
        weight.data = weight.data.clone()
    assert not is_replayed(call)


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_recording_that_fails_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    class Fails(Recorded):
        def __init__(self, model: nn.Module, pixels: Tensor, pool: Any) -> None:
            if len(pixels) == 5:
                raise error("made up")
            super().__init__(model, pixels, pool)

    monkeypatch.setattr(graphs, "_Graphs", Fails)
    call = GraphedModel(make_model("attention", "cpu"), forward_operations=1.0)
    for _ in range(2):
        is_replayed(call)
    assert is_replayed(call)
    with pytest.warns(UserWarning, match=r"could not be recorded as CUDA graphs \(made up\)"):
        assert not any(is_replayed(call, rows=5) for _ in range(3))
    assert not is_replayed(call), "what was recorded before is let go, as memory may be short"


def test_large_batches_are_left_alone() -> None:
    base = 2 * 17.5e9  # ViT-B/16 at 224 px
    model = ViTForImageClassification(ViTConfig(num_hidden_layers=12, num_labels=2))
    rows = GraphedModel(model, base)._most_rows
    assert 42 < rows < 294  # PAPILA's validation rows, and its training rows


def test_nothing_is_recorded_on_a_cpu(tiny_vit: Path, tmp_path: Path) -> None:
    arguments = FitArguments(epochs=1, training_arguments='{"use_cpu": true}')
    trainer = FairTrainer(
        model=load_backbone(tiny_vit).copy_with_new_head(),
        args=arguments.to_training_arguments(tmp_path, learning_rate=1e-4, seed=0),
    )
    trainer._prepare_model()
    assert trainer._graphed is None


@pytest.mark.parametrize(
    ("changes", "method", "recorded"),
    [
        ({}, Method(), True),
        ({"gradient_accumulation_steps": 2}, Method(), False),
        ({"gradient_checkpointing": True}, Method(), False),
        ({}, GroupDRO(), True),
        ({}, Contrastive(), False),
        ({"compiles": True}, Method(), False),
        ({"_is_alone": False}, Method(), False),
    ],
)
def test_only_steps_of_one_forward_and_one_backward_pass_are_recorded(
    tiny_vit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    method: Method,
    recorded: bool,
) -> None:
    arguments = FitArguments(epochs=1).to_training_arguments(tmp_path, learning_rate=1e-4, seed=0)
    trainer = FairTrainer(
        model=load_backbone(tiny_vit).copy_with_new_head(), args=arguments, method=method
    )
    for name, value in changes.items():
        if name == "compiles":
            trainer._compile_blocks = True
            monkeypatch.setattr(FairTrainer, "_runs_fast", True)
        elif name == "_is_alone":  # as under FSDP or data parallelism
            monkeypatch.setattr(FairTrainer, name, value)
        else:
            setattr(trainer.args, name, value)
    assert trainer._takes_plain_steps() is recorded
