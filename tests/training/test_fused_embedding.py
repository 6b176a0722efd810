"""Patches embedded by a matrix product against Hugging Face's convolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from fairtune_hf.training.fast_forward import FastForward, run_by_module
from fairtune_hf.tuner import FairMaskConfig


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


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_embeds_as_a_cpu_does(dtype: torch.dtype) -> None:
    expected = make_model().vit.embeddings(pixels())
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = fast(make_model().cuda(), dtype)(pixels().cuda())
    assert found.dtype == dtype
    off = (found.float().cpu() - expected).norm() / expected.norm()
    assert off < (0.01 if dtype == torch.bfloat16 else 1e-3)


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


def test_pictures_get_their_gradient() -> None:
    gradients = []
    for quick in (False, True):
        model, picture = make_model(), pixels().requires_grad_()
        if quick:
            fast(model)
        model.vit.embeddings(picture).square().sum().backward()
        gradients.append(picture.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["projection", "patch_embeddings", "embeddings"])
def test_an_adapter_of_the_embedding_is_what_runs(target: str) -> None:
    config = FairMaskConfig(target_modules=[target, "classifier"])
    found = []
    for quick in (False, True):
        model = get_peft_model(make_model(), config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and "classifier" not in name:
                    parameter.add_(0.3)
        if quick:
            assert FastForward(model, dtype=torch.float32, residual=torch.float32).active
        model(pixel_values=pixels()).logits.square().sum().backward()
        trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        found.append([model(pixel_values=pixels()).logits, *trained.values()])
    assert len(found[0]) > 3
    for got, want in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_other_calls_are_left_to_the_model() -> None:
    model = make_model()
    masked = torch.zeros(5, 16, dtype=torch.bool)
    model.vit.embeddings.mask_token = nn.Parameter(torch.zeros(1, 1, 32))
    expected = model.vit.embeddings(pixels(), bool_masked_pos=masked)
    torch.testing.assert_close(fast(model)(pixels(), bool_masked_pos=masked), expected)
    with pytest.raises(ValueError, match="doesn't match model"):
        fast(model)(pixels(side=48))
    larger = model.vit.embeddings(pixels(side=48), interpolate_pos_encoding=True)
    assert larger.shape == (5, 1 + 36, 32)


def test_patches_that_leave_a_rest_or_were_adapted_are_left_to_the_model() -> None:
    adapted = make_model()
    adapted.vit.embeddings.patch_embeddings.projection.__class__ = type("Own", (nn.Conv2d,), {})
    for model in (make_model(patch=5), adapted):
        assert "forward" not in vars(fast(model))


def test_hooks_on_the_convolution_are_called_module_by_module() -> None:
    model, seen = make_model(), []
    fast(model).patch_embeddings.projection.register_forward_hook(lambda *_: seen.append(1))
    model(pixel_values=pixels())
    assert not seen
    with run_by_module(model):
        model(pixel_values=pixels())
    assert seen == [1]
