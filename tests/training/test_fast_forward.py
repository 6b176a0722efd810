"""The blocks run the fast way, eager and compiled, against Hugging Face's own forward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import ViTConfig, ViTForImageClassification

from fairtune_hf.training import fast_forward
from fairtune_hf.training.fast_forward import FastForward
from fairtune_hf.tuner import FairMaskConfig

MASKS = ["none", "layernorm", "attention", "101001010110", "full_blocks"]
ROWS = 6


def make_model(mask: str, *, blocks: int = 4, size: str = "tiny") -> nn.Module:
    torch.manual_seed(0)
    sizes = {"tiny": (32, 2, 64), "small": (128, 2, 512)}
    width, heads, inner = sizes[size]
    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        intermediate_size=inner,
        image_size=32,
        patch_size=8,
        num_labels=2,
        initializer_range=0.15,
    )
    return get_peft_model(ViTForImageClassification(config), FairMaskConfig(mask=mask)).train()


def batch(device: str = "cpu", rows: int = ROWS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(rows, 3, 32, 32, generator=generator).to(device)
    return pixels, (torch.arange(rows) % 2).to(device)


def step(model: nn.Module, device: str = "cpu", dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Logits of training and evaluation, and the gradient of every trained parameter."""
    pixels, labels = batch(device)
    with torch.autocast(device, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        logits = model(pixel_values=pixels).logits
        with torch.no_grad():
            scored = model.eval()(pixel_values=pixels).logits
    functional.cross_entropy(logits.float(), labels).backward()
    model.train()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    # The softmax does not change with the key's bias: its gradient is rounding alone.
    gradients = {n: gradient for n, gradient in gradients.items() if "k_proj.bias" not in n}
    assert all(gradient is not None for gradient in gradients.values())
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    return {"logits": logits.detach(), "scored": scored, **gradients}


def assert_close(got: dict[str, Any], want: dict[str, Any], tolerance: float) -> None:
    """Compare by the norm of the difference over the norm, since single entries may be near 0."""
    assert got.keys() == want.keys()
    for name, expected in want.items():
        difference = (got[name].float() - expected.float()).norm()
        assert float(difference) <= tolerance * float(expected.float().norm()) + 1e-6, name


@pytest.fixture
def fresh_kinds(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[Any, Any]]:
    kinds: dict[Any, Any] = {}
    monkeypatch.setattr(fast_forward, "_compiled", kinds)
    monkeypatch.setattr(fast_forward, "BACKEND", "aot_eager")  # traced as on a GPU, no compiler
    yield kinds
    torch._dynamo.reset()


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("compiled", [False, True])
def test_fp32_equals_the_models_own_forward(
    mask: str, compiled: bool, fresh_kinds: dict[Any, Any]
) -> None:
    want = step(make_model(mask))
    model = make_model(mask)
    rows = frozenset([ROWS] if compiled else [])
    assert FastForward(
        model, dtype=torch.float32, residual=torch.float32, compiled_rows=rows
    ).active
    assert_close(step(model), want, 1e-4)
    assert bool(fresh_kinds) == compiled


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("compiled", [False, True])
def test_bf16_is_as_near_to_fp32_as_autocast_is(
    mask: str, compiled: bool, fresh_kinds: dict[Any, Any]
) -> None:
    exact = step(make_model(mask))
    autocast = step(make_model(mask), dtype=torch.bfloat16)
    model = make_model(mask)
    rows = frozenset([ROWS] if compiled else [])
    FastForward(model, dtype=torch.bfloat16, residual=torch.bfloat16, compiled_rows=rows)
    fast = step(model, dtype=torch.bfloat16)
    for name, expected in exact.items():
        off, allowed = (
            float((found[name].float() - expected).norm() / expected.norm())
            for found in (fast, autocast)
        )
        # The residual stream is rounded once a block instead of kept in fp32.
        assert off <= 3 * allowed + 0.02, name


class NoMixedLayerNorm(TorchDispatchMode):
    """Refuses what a GPU refuses and the CPU accepts: a layer norm over tensors of two dtypes."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.ops.aten.native_layer_norm.default:
            dtypes = {tensor.dtype for tensor in args if isinstance(tensor, Tensor)}
            assert len(dtypes) == 1, f"layer norm of {dtypes}"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("autocast", [True, False])
def test_no_layer_norm_meets_two_dtypes_with_or_without_autocast(autocast: bool) -> None:
    model = make_model("full_blocks")
    FastForward(model, dtype=torch.bfloat16, residual=torch.bfloat16)
    with NoMixedLayerNorm(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = model(pixel_values=batch()[0]).logits
        logits.float().sum().backward()


def test_trials_share_what_is_compiled(fresh_kinds: dict[Any, Any]) -> None:
    def train(mask: str) -> None:
        model = make_model(mask)
        FastForward(
            model, dtype=torch.float32, residual=torch.float32, compiled_rows=frozenset([ROWS])
        )
        step(model)

    train("full_blocks")
    known = set(fresh_kinds)
    assert len(known) == 2  # blocks 2 and 3 of four in training, the first three in evaluation
    train("full_blocks")
    train("none")  # a frozen block is what an evaluation computes
    assert set(fresh_kinds) == known


def test_kinds_beyond_the_limit_run_as_they_are(
    fresh_kinds: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_forward, "MOST_KINDS", 1)
    want = step(make_model("full_blocks"))
    model = make_model("full_blocks")
    FastForward(model, dtype=torch.float32, residual=torch.float32, compiled_rows=frozenset([ROWS]))
    assert_close(step(model), want, 1e-4)
    assert len(fresh_kinds) == 1


def test_batches_of_other_sizes_are_not_compiled(fresh_kinds: dict[Any, Any]) -> None:
    model = make_model("full_blocks")
    FastForward(model, dtype=torch.float32, residual=torch.float32, compiled_rows=frozenset([99]))
    step(model)
    assert not fresh_kinds


@pytest.mark.gpu
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("compiled", [False, True])
def test_the_gpus_default_is_as_near_to_fp32_as_autocast_is(mask: str, compiled: bool) -> None:
    exact = step(make_model(mask, size="small").cuda(), "cuda")
    autocast = step(make_model(mask, size="small").cuda(), "cuda", torch.bfloat16)
    model = make_model(mask, size="small").cuda()
    rows = frozenset([ROWS] if compiled else [])
    FastForward(model, dtype=torch.bfloat16, residual=torch.bfloat16, compiled_rows=rows)
    fast = step(model, "cuda", torch.bfloat16)
    for name, expected in exact.items():
        off, allowed = (
            float((found[name].float() - expected).norm() / expected.norm())
            for found in (fast, autocast)
        )
        assert off <= 3 * allowed + 0.02, name
