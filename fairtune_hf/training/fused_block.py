"""A pre-norm transformer block as one function of its tensors: what `fast_forward` runs in place of modules.

Written as a pure function so that it compiles to the same kernels whichever module, adapter copy or
mask the tensors come from: only shapes and which tensors need a gradient tell two traces apart.
Weights arrive in the precision they are stored in and are cast here, so trained ones stay fp32
master copies; q, k and v are one matrix product; attention is a fused kernel, also when compiled.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Attention = Literal["sdpa", "flash", "cudnn"]


class BlockTensors(NamedTuple):
    """Parameters of a block: weights are `(out, in)`, biases `(out,)` or None."""

    norm1_weight: Tensor
    norm1_bias: Tensor
    query_weight: Tensor
    query_bias: Tensor | None
    key_weight: Tensor
    key_bias: Tensor | None
    value_weight: Tensor
    value_bias: Tensor | None
    output_weight: Tensor
    output_bias: Tensor | None
    norm2_weight: Tensor
    norm2_bias: Tensor
    up_weight: Tensor
    up_bias: Tensor | None
    down_weight: Tensor
    down_bias: Tensor | None


def attend(query: Tensor, key: Tensor, value: Tensor, kernel: Attention) -> Tensor:
    """Softmax attention over `(n, heads, tokens, width)`, by the named kernel.

    The aten operators are called by name for `flash` and `cudnn`: a compiler that sees
    `scaled_dot_product_attention` may choose to take it apart into matrix products and a softmax.
    """
    if kernel == "flash":
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]  # type: ignore[no-any-return]
    if kernel == "cudnn":
        return torch.ops.aten._scaled_dot_product_cudnn_attention(  # type: ignore[no-any-return]
            query, key, value, None, query.requires_grad
        )[0]
    return functional.scaled_dot_product_attention(query, key, value)


def run_block(
    hidden: Tensor,
    tensors: BlockTensors,
    heads: int,
    epsilon: float,
    dtype: torch.dtype,
    kernel: Attention,
    first_token_only: bool,
) -> Tensor:
    """Run one block.

    Args:
        hidden: `(n, tokens, width)`, the residual stream; its dtype is kept.
        tensors: The block's parameters.
        heads: Attention heads.
        epsilon: Of both layer norms.
        dtype: In which the matrix products and the attention are computed.
        kernel: Attention kernel.
        first_token_only: Compute the result for the first token alone, `(n, 1, width)`: all that a
            classifier reads of the last block.
    """
    t = tensors
    n, tokens, width = hidden.shape
    normed = _layer_norm(hidden, t.norm1_weight, t.norm1_bias, epsilon, dtype)
    if first_token_only:
        query = _linear(normed[:, :1], t.query_weight, t.query_bias)
        keys = _linear_joined(
            normed, (t.key_weight, t.value_weight), (t.key_bias, t.value_bias), dtype
        )
        key, value = keys.view(n, tokens, 2, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        query = query.view(n, 1, heads, -1).transpose(1, 2)
        hidden = hidden[:, :1]
        mixed = functional.scaled_dot_product_attention(query, key, value)
    else:
        joined = _linear_joined(
            normed,
            (t.query_weight, t.key_weight, t.value_weight),
            (t.query_bias, t.key_bias, t.value_bias),
            dtype,
        )
        query, key, value = joined.view(n, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(query, key, value, kernel)
    mixed = mixed.transpose(1, 2).reshape(n, -1, width)
    hidden = hidden + _linear(mixed, t.output_weight, t.output_bias)
    normed = _layer_norm(hidden, t.norm2_weight, t.norm2_bias, epsilon, dtype)
    inner = functional.gelu(_linear(normed, t.up_weight, t.up_bias))
    return hidden + _linear(inner, t.down_weight, t.down_bias)


def _layer_norm(
    hidden: Tensor, weight: Tensor, bias: Tensor, epsilon: float, dtype: torch.dtype
) -> Tensor:
    """Layer norm in the residual's dtype (statistics are fp32 inside the kernel), handed on in `dtype`."""
    normed = functional.layer_norm(
        hidden, (hidden.shape[-1],), weight.to(hidden.dtype), bias.to(hidden.dtype), epsilon
    )
    return normed.to(dtype)


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return functional.linear(
        inputs, weight.to(inputs.dtype), None if bias is None else bias.to(inputs.dtype)
    )


def _linear_joined(
    inputs: Tensor,
    weights: tuple[Tensor, ...],
    biases: tuple[Tensor | None, ...],
    dtype: torch.dtype,
) -> Tensor:
    """Apply several layers of the same input as one matrix product."""
    weight = torch.cat([w.to(dtype) for w in weights])
    present = [b.to(dtype) for b in biases if b is not None]
    return functional.linear(inputs, weight, torch.cat(present) if present else None)
