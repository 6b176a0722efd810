"""Patches embedded by a matrix product against Hugging Face's convolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from fairtune_hf.training.fast_forward import FastForward, run_by_module


def make_model(patch: int = 8, channels: int = 3, bias: bool = True) -> Any:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=patch,
        num_channels=channels,
        num_labels=2,
    )
    model = ViTForImageClassification(config)
    embeddings = model.vit.embeddings
    for parameter in embeddings.parameters():  # Hugging Face starts some of them at 0
        nn.init.normal_(parameter, std=0.2)
    if not bias:
        embeddings.patch_embeddings.projection.bias = None
    return model.requires_grad_(False)


def pixels(channels: int = 3, side: int = 32) -> Tensor:
    return torch.randn(5, channels, side, side, generator=torch.Generator().manual_seed(1))


def fast(model: Any, dtype: torch.dtype = torch.float32) -> Any:
    assert FastForward(model, dtype=dtype, residual=dtype).active
    return model.vit.embeddings


@pytest.mark.parametrize("patch", [4, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_the_convolution(patch: int, channels: int, bias: bool) -> None:
    expected = make_model(patch, channels, bias).vit.embeddings(pixels(channels))
    model = make_model(patch, channels, bias)
    torch.testing.assert_close(fast(model)(pixels(channels)), expected, rtol=1e-5, atol=1e-5)
    by_columns = pixels(channels).to(memory_format=torch.channels_last)
    torch.testing.assert_close(model.vit.embeddings(by_columns), expected, rtol=1e-5, atol=1e-5)


def test_bf16_is_as_near_to_fp32_as_autocast_is() -> None:
    exact = make_model().vit.embeddings(pixels())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        allowed = (make_model().vit.embeddings(pixels()).to(torch.bfloat16) - exact).norm()
        found = fast(make_model(), torch.bfloat16)(pixels())
    assert found.dtype == torch.bfloat16
    assert 0 < (found - exact).norm() <= 1.5 * allowed


def test_what_is_trained_of_the_embedding_gets_its_gradient() -> None:
    gradients = []
    for quick in (False, True):
        model = make_model()
        embeddings = model.vit.embeddings.requires_grad_(True)
        if quick:
            fast(model)
        embeddings(pixels()).square().sum().backward()
        gradients.append({name: p.grad for name, p in embeddings.named_parameters()})
    assert len(gradients[0]) == 4
    for name, expected in gradients[0].items():
        assert expected is not None
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-4, atol=1e-4)


def test_other_calls_are_left_to_the_model() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="doesn't match model"):
        fast(model)(pixels(side=48))
    larger = model.vit.embeddings(pixels(side=48), interpolate_pos_encoding=True)
    assert larger.shape == (5, 1 + 36, 32)


def test_patches_that_leave_a_rest_or_were_adapted_are_left_to_the_model() -> None:
    for model in (make_model(patch=5), make_model()):
        if model.config.patch_size == 8:
            projection = model.vit.embeddings.patch_embeddings.projection
            adapted = type("Adapted", (nn.Conv2d,), {})
            projection.__class__ = adapted
        assert "forward" not in vars(fast(model))


def test_hooks_on_the_convolution_are_called_module_by_module() -> None:
    model, seen = make_model(), []
    fast(model).patch_embeddings.projection.register_forward_hook(lambda *_: seen.append(1))
    model(pixel_values=pixels())
    assert not seen
    with run_by_module(model):
        model(pixel_values=pixels())
    assert seen == [1]
