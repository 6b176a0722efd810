"""Run the blocks of a Hugging Face ViT through `run_block` instead of module by module.

Only how the same arithmetic is carried out changes: q, k and v in one product, fused attention, the
residual stream in one dtype instead of casts around every product, and of the last block only the
token that the classifier reads. Parameters, adapters and `state_dict` stay where they are; models of
another shape are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTForImageClassification
from transformers.models.vit.modeling_vit import ViTLayer

from fairtune_hf.training.fused_block import Attention, BlockTensors, run_block
from fairtune_hf.tuner.layer import FairMaskLayer

_TRACES = 128  # one a combination of trained parts, input with gradient or not, and batch size


class FastForward:
    """Replaces the `forward` of every block of one model.

    Args:
        model: The model, possibly inside a PEFT model.
        dtype: In which products and attention are computed.
        residual: Dtype of the residual stream.
        compiled_rows: Batch sizes that run compiled; others (a last, smaller batch) run as they are.

    Attributes:
        active: Whether the model has the shape that can be run this way.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        dtype: torch.dtype,
        residual: torch.dtype,
        compiled_rows: frozenset[int] = frozenset(),
    ) -> None:
        self.dtype, self.residual, self.compiled_rows = dtype, residual, compiled_rows
        classifier = find_vit(model)
        self.active = classifier is not None
        if classifier is None:
            return
        self._heads = classifier.config.num_attention_heads
        self._epsilon = classifier.config.layer_norm_eps
        layers = list(classifier.vit.layers)
        for layer in layers:
            layer.forward = self._forward_of(layer, last=layer is layers[-1])

    def _forward_of(self, layer: nn.Module, *, last: bool) -> Callable[..., Tensor]:
        def forward(hidden: Tensor, *args: object, **kwargs: object) -> Tensor:
            tensors = gather_tensors(layer)
            compiled = len(hidden) in self.compiled_rows and hidden.is_cuda
            run = compiled_block() if compiled else run_block
            kernel: Attention = "flash" if hidden.is_cuda and self.dtype.itemsize == 2 else "sdpa"
            with torch.autocast(hidden.device.type, enabled=False):
                return run(
                    hidden.to(self.residual),
                    tensors,
                    self._heads,
                    self._epsilon,
                    self.dtype,
                    kernel,
                    last,
                )

        return forward


def gather_tensors(layer: nn.Module) -> BlockTensors:
    """Collect the parameters of a block that run now, the active adapter's where it has its own.

    Without gradients they are detached, so that every mask shares one compiled evaluation.
    """
    tensors: list[Tensor | None] = []
    for module in block_modules(layer):
        tensors += [module.weight, module.bias]  # type: ignore[list-item]
    if not torch.is_grad_enabled():
        tensors = [None if tensor is None else tensor.detach() for tensor in tensors]
    return BlockTensors(*tensors)  # type: ignore[arg-type]


def find_vit(model: nn.Module) -> ViTForImageClassification | None:
    """Find a ViT classifier without dropout whose blocks `run_block` computes; None if there is none."""
    for module in model.modules():
        if not isinstance(module, ViTForImageClassification):
            continue
        config = module.config
        plain = config.hidden_act == "gelu" and module.vit.pooler is None
        plain &= config.hidden_dropout_prob == 0 and config.attention_probs_dropout_prob == 0
        plain &= all(
            isinstance(layer, ViTLayer) and all(map(_is_plain, block_modules(layer)))
            for layer in module.vit.layers
        )
        return module if plain else None
    return None


def block_modules(layer: nn.Module) -> list[nn.Module]:
    """Return the modules of a block that run now and whose parameters `run_block` takes, in its order.

    An adapter may have its own copy of the attention or the MLP as a whole, so their children are
    looked up in what runs, never in the wrapper, which would answer with the base model's.
    """
    attention, mlp = _running(layer.attention), _running(layer.mlp)
    modules = [
        *(layer.layernorm_before, attention.q_proj, attention.k_proj, attention.v_proj),
        *(attention.o_proj, layer.layernorm_after, mlp.fc1, mlp.fc2),
    ]
    return [_running(module) for module in modules]


def _running(module: Any) -> Any:
    return module.current_module() if isinstance(module, FairMaskLayer) else module


def _is_plain(module: nn.Module) -> bool:
    """Whether a module computes with its weight and bias alone; LoRA's layers, for one, do not."""
    return type(module) in (nn.Linear, nn.LayerNorm)


@contextmanager
def run_by_module(model: nn.Module) -> Iterator[None]:
    """Let the blocks run module by module for a while, so that hooks on their layers are called."""
    layers = [module for module in model.modules() if isinstance(module, ViTLayer)]
    fast = [
        (layer, layer.__dict__.pop("forward")) for layer in layers if "forward" in layer.__dict__
    ]
    try:
        yield
    finally:
        for layer, forward in fast:
            layer.forward = forward


@cache
def compiled_block() -> Callable[..., Tensor]:
    """`run_block`, compiled once for the process; traces are kept for every mask seen."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _TRACES)
    compiled: Callable[..., Tensor] = torch.compile(run_block, dynamic=False)
    return compiled
