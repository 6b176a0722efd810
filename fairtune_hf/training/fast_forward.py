"""Run a Hugging Face ViT's blocks through `run_block` instead of module by module, and its patch embedding likewise.

Only how the same arithmetic is carried out changes: q, k and v in one product, fused attention, the
residual stream in one dtype instead of casts around every product, patches by a matrix product, and of
the last block only the token that the classifier reads. Parameters, adapters and `state_dict` stay
where they are; models of another shape are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTForImageClassification
from transformers.models.vit.modeling_vit import ViTEmbeddings, ViTLayer, ViTPatchEmbeddings

from fairtune_hf.training.fused_block import Attention, BlockTensors, run_block
from fairtune_hf.training.fused_embedding import EmbeddingTensors, embed_patches
from fairtune_hf.tuner.layer import FairMaskLayer

BACKEND = "inductor"
# Of `block3` there are eight with gradients and one without at a batch size; an evaluation adds one.
MOST_KINDS = 24
# Kept for the process: the trials of a search share what is compiled.
_compiled: dict[tuple[object, ...], Callable[..., Tensor]] = {}


class FastForward:
    """Replaces the `forward` of the patch embedding and of every block of one model.

    Args:
        model: The model, possibly inside a PEFT model.
        dtype: In which products and attention are computed.
        residual: Dtype of the residual stream between the blocks; what leaves the last one has the
            dtype of the parameters, so that what follows runs with or without autocast.
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
        embeddings = classifier.vit.embeddings
        if type(embeddings) is ViTEmbeddings and _has_plain_patches(embeddings):
            embeddings.forward = self._forward_of_embeddings(embeddings)

    def _forward_of_embeddings(self, embeddings: Any) -> Callable[..., Tensor]:
        convolution = embeddings.patch_embeddings.projection
        expected = (convolution.in_channels, *embeddings.patch_embeddings.image_size)

        def forward(pixel_values: Tensor, *args: object, **kwargs: object) -> Tensor:
            asked = any(a is not None and a is not False for a in (*args, *kwargs.values()))
            if pixel_values.shape[1:] != expected or asked:
                own: Tensor = type(embeddings).forward(embeddings, pixel_values, *args, **kwargs)
                return own
            tensors = EmbeddingTensors(
                weight=convolution.weight,
                bias=convolution.bias,
                class_token=embeddings.cls_token,
                positions=embeddings.position_embeddings,
            )
            with torch.autocast(pixel_values.device.type, enabled=False):
                return embed_patches(pixel_values, tensors, self.dtype, self.residual)

        return forward

    def _forward_of(self, layer: nn.Module, *, last: bool) -> Callable[..., Tensor]:
        def forward(hidden: Tensor, *args: object, **kwargs: object) -> Tensor:
            tensors = gather_tensors(layer)
            trained = tuple(tensor is not None and tensor.requires_grad for tensor in tensors)
            wanted = torch.is_grad_enabled() and (hidden.requires_grad or any(trained))
            if not wanted:  # a frozen prefix and an evaluation are the same computation
                tensors = BlockTensors(*[None if t is None else t.detach() for t in tensors])  # type: ignore[arg-type]
            run = run_block
            trained = trained if wanted else ()
            if self._is_worth_compiling(hidden, trained, last):
                run = compiled_block(hidden.shape, hidden.device, self.dtype, trained)
            kernel: Attention = "flash" if hidden.is_cuda and self.dtype.itemsize == 2 else "sdpa"
            off = torch.autocast(hidden.device.type, enabled=False)
            with off, torch.set_grad_enabled(wanted):
                found = run(
                    hidden.to(self.residual),
                    tensors,
                    self._heads,
                    self._epsilon,
                    self.dtype,
                    kernel,
                    last,
                )
                return found.to(tensors.norm2_weight.dtype) if last else found

        return forward

    def _is_worth_compiling(self, hidden: Tensor, trained: tuple[bool, ...], last: bool) -> bool:
        """Whether a block is one of many alike; each mask has one last and one lowest trained block.

        Compiling those two would double the number of kinds, for blocks of which the last computes
        one token and the lowest needs no gradient of its input.
        """
        lowest = any(trained) and not hidden.requires_grad
        return len(hidden) in self.compiled_rows and not last and not lowest


def gather_tensors(layer: nn.Module) -> BlockTensors:
    """Collect the parameters of a block that run now, the active adapter's where it has its own."""
    tensors: list[Tensor | None] = []
    for module in block_modules(layer):
        tensors += [module.weight, module.bias]  # type: ignore[list-item]
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


def _has_plain_patches(embeddings: ViTEmbeddings) -> bool:
    """Whether the patches are embedded by a convolution of its own weight and bias, without overlap or rest."""
    patches: Any = embeddings.patch_embeddings
    convolution = patches.projection
    plain = type(patches) is ViTPatchEmbeddings and type(convolution) is nn.Conv2d
    plain = plain and convolution.stride == convolution.kernel_size
    sides = zip(patches.image_size, convolution.stride, strict=True)
    return plain and all(side % step == 0 for side, step in sides)


@contextmanager
def run_by_module(model: nn.Module) -> Iterator[None]:
    """Let the model run module by module for a while, so that hooks on its layers are called."""
    layers = [module for module in model.modules() if isinstance(module, ViTLayer | ViTEmbeddings)]
    fast = [
        (layer, layer.__dict__.pop("forward")) for layer in layers if "forward" in layer.__dict__
    ]
    try:
        yield
    finally:
        for layer, forward in fast:
            layer.forward = forward


def compiled_block(
    shape: torch.Size, device: torch.device, dtype: torch.dtype, trained: tuple[bool, ...]
) -> Callable[..., Tensor]:
    """Return `run_block` compiled for one kind of block, or as it is once there are too many kinds.

    Args:
        shape: Of the residual stream.
        device: Of all tensors.
        dtype: Of the products.
        trained: Which tensors need a gradient beside the residual stream; empty without gradients.
    """
    key = (tuple(shape), device, dtype, trained)
    if key not in _compiled:
        if len(_compiled) >= MOST_KINDS:
            return run_block
        # A code object of its own: the compiler keeps its traces by code object and tries them in
        # turn, so kinds that shared one would make each other slower, and reach its limit.
        code = run_block.__code__.replace(co_name=f"run_block_{len(_compiled)}")
        function = FunctionType(code, run_block.__globals__)
        _compiled[key] = torch.compile(function, dynamic=False, backend=BACKEND)
    return _compiled[key]
