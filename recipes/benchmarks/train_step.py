"""Images a second of a bare training step: masks x precision x way of running the model.

    python recipes/benchmarks/train_step.py --json train_step.json
    python recipes/benchmarks/train_step.py --cases fused_compiled:random --profile

Nothing but the step: random pictures already on the device, forward, loss, backward, fused AdamW. Each
case is built, warmed up and timed by itself; one that fails is reported and the rest go on. The share
of the peak counts the multiply-adds that the mask needs (two thirds of a block's backward products
where nothing in it is trained) over the rate of a large bf16 product measured first.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fairtune_hf.training.fused_block import BlockTensors, attend, run_block

MASKS = ("none", "layernorm", "attention", "random", "random2", "all", "full")
SIZES = {
    "vit_b": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "image_size": 224,
        "patch_size": 16,
    },
    "tiny": {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 32,
        "patch_size": 8,
    },
}
# What runs by default, most telling first, so that a run cut short has said the most.
DEFAULT_CASES = (
    "hf_autocast:full hf_autocast:random hf_autocast:none fused_flash:full fused_cudnn:full "
    "fused_fp32res:full fused_compiled:full fused_compiled:random fused_compiled:layernorm "
    "fused_compiled:attention fused_compiled:all fused_compiled:none fused_compiled:random2 "
    "fused_whole:full fused_pieces:full fused_pieces:random fused_compiled_fp32res:full "
    "fused_compiled_fp32res:random hf_compiled_blocks:full hf_bf16:full hf_bf16_registered:full "
    "fused_whole:random fused_whole:none fused_compiled_cudnn:full "
    "hf_autocast:layernorm hf_autocast:attention hf_autocast:all "
    "fused_tune:full hf_fp32:full fused_fp32_compiled:full"
)


def block_bits(mask: str, blocks: int) -> np.ndarray:
    """Which of norms, attention and MLP train in each block: `(blocks, 3)` of 0 and 1."""
    bits = np.zeros((blocks, 3), dtype=int)
    if mask in ("all", "full"):
        bits[:] = 1
    elif mask in ("layernorm", "attention"):
        bits[:, 0 if mask == "layernorm" else 1] = 1
    elif mask.startswith("random"):
        bits = np.random.default_rng(3 if mask == "random" else 4).integers(0, 2, (blocks, 3))
    return bits


def freeze(model: ViTForImageClassification, mask: str) -> None:
    """Leave gradients on for what the mask trains and for the head."""
    bits = block_bits(mask, model.config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        trained = name.startswith("classifier") or mask == "full"
        if ".layers." in name and not trained:
            block = bits[int(name.split(".layers.")[1].split(".")[0])]
            part = 0 if "layernorm" in name else 1 if ".attention." in name else 2
            trained = bool(block[part])
        parameter.requires_grad_(trained)


def tensors_of(layer: nn.Module) -> BlockTensors:
    """Gather the parameters of one block."""
    a, m = layer.attention, layer.mlp
    modules = [layer.layernorm_before, a.q_proj, a.k_proj, a.v_proj, a.o_proj]
    modules += [layer.layernorm_after, m.fc1, m.fc2]
    return BlockTensors(*[p for module in modules for p in (module.weight, module.bias)])


def count_products(model: ViTForImageClassification, mask: str, last_token: bool) -> float:
    """FLOPs of one picture's training step: forward of all, backward of what the mask needs."""
    c = model.config
    width, inner, tokens = (
        c.hidden_size,
        c.intermediate_size,
        (c.image_size // c.patch_size) ** 2 + 1,
    )
    bits = block_bits(mask, c.num_hidden_layers)
    total = 2.0 * (tokens - 1) * width * 3 * c.patch_size**2 * (2 if mask == "full" else 1)
    gradient_comes = mask == "full"
    for i in range(c.num_hidden_layers):
        rows = 1 if last_token and i == c.num_hidden_layers - 1 else tokens
        projections = 2.0 * width * width * (2 * rows + 2 * tokens)
        attention = 2.0 * 2 * rows * tokens * width
        mlp = 2.0 * 2 * rows * width * inner
        total += projections + attention + mlp
        if mask != "full" and not bits[i].any() and not gradient_comes:
            continue
        before = gradient_comes or bits[i, 0]
        # the gradient passes a product's input where anything before it needs one
        total += mlp + 2 * attention + projections / 2 + (projections / 2 if before else 0)
        total += projections * bits[i, 1] + mlp * bits[i, 2]
        gradient_comes = True
    return total


class Fused(nn.Module):
    """The classifier run block by block through `run_block`."""

    def __init__(
        self,
        model: ViTForImageClassification,
        run: Callable[..., Tensor],
        *,
        residual: torch.dtype,
        dtype: torch.dtype,
        kernel: str,
    ) -> None:
        super().__init__()
        self.model, self.run = model, run
        self.residual, self.dtype, self.kernel = residual, dtype, kernel

    def forward(self, pixels: Tensor) -> Tensor:
        vit, c = self.model.vit, self.model.config
        p = c.patch_size
        n, channels, side, _ = pixels.shape
        cells = pixels.to(self.dtype).view(n, channels, side // p, p, side // p, p)
        patches = cells.permute(0, 2, 4, 1, 3, 5).reshape(n, (side // p) ** 2, -1)
        conv = vit.embeddings.patch_embeddings.projection
        found = functional.linear(
            patches, conv.weight.flatten(1).to(self.dtype), conv.bias.to(self.dtype)
        )
        first = vit.embeddings.cls_token.to(found.dtype).expand(n, -1, -1)
        hidden = torch.cat([first, found], 1) + vit.embeddings.position_embeddings.to(found.dtype)
        hidden = hidden.to(self.residual)
        last = len(vit.layers) - 1
        for i, layer in enumerate(vit.layers):
            hidden = self.run(
                hidden,
                tensors_of(layer),
                c.num_attention_heads,
                c.layer_norm_eps,
                self.dtype,
                self.kernel,
                i == last,
            )
        final = functional.layer_norm(
            hidden[:, 0].float(),
            (c.hidden_size,),
            vit.layernorm.weight,
            vit.layernorm.bias,
            c.layer_norm_eps,
        )
        return self.model.classifier(final)


class Pieces:
    """`run_block` with only the elementwise parts compiled; products and attention stay library calls."""

    def __init__(self) -> None:
        self.norm = torch.compile(self._norm, dynamic=False)
        self.add_norm = torch.compile(self._add_norm, dynamic=False)

    @staticmethod
    def _norm(
        hidden: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        return functional.layer_norm(hidden.float(), (hidden.shape[-1],), weight, bias, eps).to(
            dtype
        )

    @staticmethod
    def _add_norm(
        hidden: Tensor, more: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        total = hidden + more
        normed = functional.layer_norm(total.float(), (hidden.shape[-1],), weight, bias, eps)
        return total, normed.to(dtype)

    def __call__(
        self,
        hidden: Tensor,
        t: BlockTensors,
        heads: int,
        eps: float,
        dtype: torch.dtype,
        kernel: str,
        first_only: bool,
    ) -> Tensor:
        if first_only:
            return run_block(hidden, t, heads, eps, dtype, kernel, first_only)
        n, tokens, width = hidden.shape
        normed = self.norm(hidden, t.norm1_weight, t.norm1_bias, eps, dtype)
        weight = torch.cat([t.query_weight, t.key_weight, t.value_weight]).to(dtype)
        bias = torch.cat([t.query_bias, t.key_bias, t.value_bias]).to(dtype)
        joined = functional.linear(normed, weight, bias)
        q, k, v = joined.view(n, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(q, k, v, kernel).transpose(1, 2).reshape(n, tokens, width)
        out = functional.linear(mixed, t.output_weight.to(dtype), t.output_bias.to(dtype))
        hidden, normed = self.add_norm(hidden, out, t.norm2_weight, t.norm2_bias, eps, dtype)
        inner = functional.gelu(
            functional.linear(normed, t.up_weight.to(dtype), t.up_bias.to(dtype))
        )
        return hidden + functional.linear(inner, t.down_weight.to(dtype), t.down_bias.to(dtype))


def registered_attention(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, **_: Any
) -> Any:
    """An attention function for Hugging Face models that always runs the fused kernel in bf16."""
    kernel = "flash" if q.is_cuda else "sdpa"
    dtype = torch.bfloat16
    return attend(q.to(dtype), k.to(dtype), v.to(dtype), kernel).transpose(1, 2), None


def build(
    way: str, mask: str, size: str, device: str
) -> tuple[nn.Module, Callable[[Tensor], Tensor], Any]:
    """Build the model of a case: the module, pixels to logits, and the autocast context."""
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**SIZES[size], num_labels=2)).to(device).train()
    freeze(model, mask)
    if way.startswith("hf"):
        return build_hugging_face(way, model, device)
    return build_fused(way, model, device)


def build_hugging_face(
    way: str, model: ViTForImageClassification, device: str
) -> tuple[nn.Module, Callable[[Tensor], Tensor], Any]:
    """Build a case that runs Hugging Face's own forward."""
    context: Callable[[], Any] = nullcontext
    if "autocast" in way or "compiled" in way:
        context = lambda: torch.autocast(device, dtype=torch.bfloat16)  # noqa: E731
    if "bf16" in way:
        model = model.to(torch.bfloat16)
    if "registered" in way or "compiled" in way:
        ALL_ATTENTION_FUNCTIONS.register("benchmark_fused", registered_attention)
        model.config._attn_implementation = "benchmark_fused"
    if way == "hf_compiled_blocks":
        for layer in model.vit.layers:
            layer.forward = torch.compile(layer.forward, dynamic=False)
    return model, lambda x: model(x.to(model.dtype)).logits, context


def build_fused(
    way: str, model: ViTForImageClassification, device: str
) -> tuple[nn.Module, Callable[[Tensor], Tensor], Any]:
    """Build a case that runs our fused block."""
    kernel = (
        "sdpa" if device != "cuda" or "fp32_" in way else "cudnn" if "cudnn" in way else "flash"
    )
    dtype = torch.float32 if way.startswith("fused_fp32_") else torch.bfloat16
    residual = torch.float32 if "fp32" in way else torch.bfloat16
    run: Callable[..., Tensor] = run_block
    if way == "fused_pieces":
        run = Pieces()
    elif "compiled" in way:
        run = torch.compile(run_block, dynamic=False)
    elif way == "fused_tune":
        run = torch.compile(run_block, dynamic=False, mode="max-autotune-no-cudagraphs")
    fused: nn.Module = Fused(model, run, residual=residual, dtype=dtype, kernel=kernel)
    forward: Callable[[Tensor], Tensor] = fused
    if way == "fused_whole":
        forward = torch.compile(fused, dynamic=False)
    return fused, forward, nullcontext


def make_step(
    way: str, mask: str, options: argparse.Namespace
) -> tuple[Callable[[], None], nn.Module]:
    """Return the training step of a case and its model."""
    module, forward, context = build(way, mask, options.size, options.device)
    side = SIZES[options.size]["image_size"]
    pixels = torch.randn(options.batch_size, 3, side, side, device=options.device)
    labels = torch.randint(0, 2, (options.batch_size,), device=options.device)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def step() -> None:
        with context():
            logits = forward(pixels)
        functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, module


def measure(step: Callable[[], None], options: argparse.Namespace) -> dict[str, float]:
    """Time the first step (compilation), warm up, then time `options.steps` steps."""
    sync = torch.cuda.synchronize if options.device == "cuda" else lambda: None
    start = time.perf_counter()
    step()
    sync()
    first = time.perf_counter() - start
    for _ in range(2):
        step()
    sync()
    start = time.perf_counter()
    for _ in range(options.steps):
        step()
    sync()
    seconds = (time.perf_counter() - start) / options.steps
    return {"first_step_seconds": round(first, 2), "step_seconds": seconds}


def run_case(case: str, options: argparse.Namespace, peak: float | None) -> dict[str, Any]:
    """Run one case; what went wrong is its result if it fails."""
    way, mask = case.split(":")
    if way != "keep":
        torch._dynamo.reset()
    gc.collect()
    if options.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        step, module = make_step(way, mask, options)
        result: dict[str, Any] = {"case": case, **measure(step, options)}
        rate = options.batch_size / result["step_seconds"]
        model = module if way.startswith("hf") else module.model
        flops = count_products(model, mask, last_token=not way.startswith("hf"))
        result["images_per_second"] = round(rate, 1)
        result["flops_per_image"] = flops
        if peak:
            result["share_of_peak"] = round(rate * flops / peak, 4)
        if options.device == "cuda":
            result["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if options.profile:
            result["kernels"] = profile(step, options)
    except Exception as error:  # a benchmark of many cases goes on; the failure is in its output
        traceback.print_exc(limit=8)
        result = {"case": case, "error": f"{type(error).__name__}: {error}"[:600]}
    return result


def profile(step: Callable[[], None], options: argparse.Namespace) -> list[tuple[str, float, int]]:
    """Print and return the kernels of three steps by time: name, milliseconds a step, calls a step."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if options.device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as seen:
        for _ in range(3):
            step()
        if options.device == "cuda":
            torch.cuda.synchronize()
    on_device = options.device == "cuda"
    rows = []
    for event in seen.key_averages():
        if on_device and str(event.device_type).endswith("CPU"):
            continue
        spent = event.self_device_time_total if on_device else event.self_cpu_time_total
        rows.append((event.key[:110], round(spent / 3000, 3), event.count // 3))
    rows.sort(key=lambda row: -row[1])
    for name, milliseconds, calls in rows[:25]:
        print(f"    {milliseconds:9.3f} ms {calls:5d} x {name}", flush=True)
    return rows[:25]


def measure_peak(device: str) -> float | None:
    """FLOP/s of an 8192-cubed bf16 product of random numbers on the device; None on a CPU."""
    if device != "cuda":
        return None
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - start)


def main() -> None:
    """Run the cases and print one line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=DEFAULT_CASES.split(), help="WAY:MASK ...")
    parser.add_argument("--size", choices=SIZES, default="vit_b")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--profile", action="store_true", help="print the kernels by time")
    parser.add_argument("--budget-seconds", type=float, default=240.0, help="start no case after")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    began = time.perf_counter()
    peak = measure_peak(options.device)
    hardware = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    record: dict[str, Any] = {"device": hardware, "torch": torch.__version__, "peak_flops": peak}
    record |= {"batch_size": options.batch_size, "size": options.size, "cases": []}
    print(json.dumps(record), flush=True)
    for case in options.cases:
        if time.perf_counter() - began > options.budget_seconds:
            print(f"{case}: not run, the time budget is spent", flush=True)
            continue
        result = run_case(case, options, peak)
        record["cases"].append(result)
        print(json.dumps({k: v for k, v in result.items() if k != "kernels"}), flush=True)
        if options.json:
            options.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
