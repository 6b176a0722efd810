"""What a training costs: floating-point operations a picture under a mask, and the share of the peak.

Counted are matrix products (a multiply-add is two operations), forward and, of the backward pass, what
the trained parameters need; norms, activations and the optimizer are not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn

from fairtune_hf.costs import with_rates
from fairtune_hf.training.clock import PartClock
from fairtune_hf.training.fast_forward import find_vit, gather_tensors


@dataclass(frozen=True)
class Operations:
    """Operations of one picture."""

    training: float
    evaluation: float


def count_operations(model: nn.Module, *, last_token_only: bool) -> Operations | None:
    """Count the operations of one picture from the shapes and from what requires a gradient.

    Args:
        model: A ViT classifier, possibly inside a PEFT model.
        last_token_only: Whether the last block is computed for the classified token alone.

    Returns:
        The counts, or None for a model of another kind.
    """
    vit = find_vit(model)
    if vit is None:
        return None
    config, blocks = vit.config, list(vit.vit.layers)
    width, inner = config.hidden_size, config.intermediate_size
    tokens = (config.image_size // config.patch_size) ** 2 + 1
    embedding = 2.0 * (tokens - 1) * width * config.num_channels * config.patch_size**2
    forward, backward, gradient_comes = embedding, 0.0, False
    if any(p.requires_grad for p in vit.vit.embeddings.parameters()):
        backward, gradient_comes = embedding, True
    for i, block in enumerate(blocks):
        rows = 1 if last_token_only and i == len(blocks) - 1 else tokens
        attention = 4.0 * rows * tokens * width
        read, write = 2.0 * (rows + 2 * tokens) * width**2, 2.0 * rows * width**2
        up = down = 2.0 * rows * width * inner
        forward += read + attention + write + up + down
        # Trained or not, in the order of the computation: what a gradient must pass is what lies after
        # the first trained part.
        norm1, qkv, output, norm2, first, second = _trained_parts(block)
        stages = [(norm1, 0.0), (qkv, read), (False, 2 * attention), (output, write)]
        stages += [(norm2, 0.0), (first, up), (second, down)]
        for trained, products in stages:
            backward += products * (gradient_comes + trained)
            gradient_comes |= trained
    return Operations(training=forward + backward, evaluation=forward)


def expected_operations(model: nn.Module, pictures: int) -> float | None:
    """Estimate the operations of training on so many pictures, whatever the mask: three forward passes."""
    counted = count_operations(model, last_token_only=True)
    return None if counted is None else 3.0 * counted.evaluation * pictures


def _trained_parts(block: nn.Module) -> list[bool]:
    """Whether norm 1, q/k/v, output, norm 2 and the two MLP products of a block are trained."""
    tensors = gather_tensors(block)
    trained = [
        any(t is not None and t.requires_grad for t in tensors[2 * i : 2 * i + 2]) for i in range(8)
    ]
    return [trained[0], any(trained[1:4]), *trained[4:]]


@cache
def measure_peak(device: str) -> float | None:
    """Measure the rate of a large bf16 matrix product in operations a second; None without a GPU."""
    if not device.startswith("cuda"):
        return None
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        torch.mm(a, b)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        torch.mm(a, b)
    torch.cuda.synchronize()
    return 10 * 2 * 8192.0**3 / (time.perf_counter() - start)


@dataclass
class CostMeter:
    """Adds up time, pictures and operations over the trainings of one Trainer.

    Attributes:
        device: The device of this process.
        processes: How many train together; each is counted with this one's share of the pictures, which may be a
            picture more than another's at the end of an epoch.
        settings: How the model is run, for the record: `precision`, `compiled`.
    """

    device: torch.device
    processes: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    clock: PartClock = field(init=False)
    images: int = 0
    operations: float | None = 0.0

    def __post_init__(self) -> None:
        self.reset()

    def reset(self, *, peak: bool = True) -> None:
        """Begin anew, for the next training: its time, its pictures and, if `peak`, its own peak of memory."""
        self.clock = PartClock(self.device)
        self.images, self.operations = 0, 0.0
        if peak and self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def count(self, images: int, operations: float | None, *, training: bool) -> None:
        """Add a batch; `operations` of one picture, None where they cannot be counted."""
        self.images += images if training else 0
        if operations is None or self.operations is None:
            self.operations = None
        else:
            self.operations += images * operations

    def record(self) -> dict[str, Any]:
        """Return a cost entry of run.json: seconds, training pictures, rate, device, peak and parts.

        `peak_memory_gib` is the most that torch held on the GPU at once since the last reset, pictures and
        backbone that lie there included; None without a GPU.
        """
        self.clock.collect()
        on_gpu = self.device.type == "cuda"
        operations = self.operations
        return with_rates(
            {
                "seconds": round(self.clock.total(), 3),
                "images": self.images * self.processes,
                "device": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
                "processes": self.processes,
                **self.settings,
                "peak_memory_gib": (
                    round(torch.cuda.max_memory_allocated(self.device) / 2**30, 2)
                    if on_gpu
                    else None
                ),
                "peak_flops": measure_peak(str(self.device)),
                "operations": None if operations is None else operations * self.processes,
                "by_part": {part: round(value, 3) for part, value in self.clock.seconds.items()},
            }
        )
