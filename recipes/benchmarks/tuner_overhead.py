"""What training with a mask costs beside marking the same parameters with `requires_grad`.

    python recipes/benchmarks/tuner_overhead.py --json FILE
    python recipes/benchmarks/tuner_overhead.py --device cuda --batch 512 --dtype bf16 --json FILE

One process, the two ways in alternation on the same random images; ViT-B/16 on a GPU, ViT-Ti/16 on a
CPU (`--model`). Ratios are FairMask over plain: of step times (median over pairs of steps) and of peak
memory (less the copies' own size, which FairMask holds in addition). Expected: <= 1.03 and <= 1.05.
"""

import argparse
import copy
import json
import platform
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import peft
import torch
import transformers
from transformers import ViTConfig, ViTForImageClassification

from fairtune_hf.tuner import FairMaskConfig, FairMaskLayer, Mask, describe

SIZES = {
    "base": {},
    "tiny": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
}
MASKS = {
    "none": "none",
    "layernorm": "layernorm",
    "attention": "attention",
    "random": "011010100111000101110010101001101100",
    "all": "full_blocks",
}


def plain(base, mask):
    """The bare model with the parameters that the mask selects marked."""
    model = copy.deepcopy(base).requires_grad_(False)
    parameters = dict(model.named_parameters())
    anatomy = describe(model)
    units = Mask.parse(mask, blocks=len(anatomy.blocks)).units()
    for leaf in anatomy.leaves:
        if leaf.region == "head" or (leaf.block, leaf.unit) in units:
            parameters[leaf.name].requires_grad_(True)
    return model


def fairmask(base, mask):
    return peft.get_peft_model(copy.deepcopy(base), FairMaskConfig(mask=mask))


class Job:
    """One way of training: a model, its optimiser and a step."""

    def __init__(self, model, options, batch):
        self.model = model.to(options.device).train()
        self.own = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.own, lr=1e-4, fused=True)
        self.options, self.batch = options, batch

    def step(self):
        bf16 = self.options.dtype == "bf16"
        with torch.autocast(self.options.device, torch.bfloat16) if bf16 else nullcontext():
            loss = self.model(pixel_values=self.batch[0], labels=self.batch[1]).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def seconds(self):
        """Time of a step: the wall's on a GPU; the processor's else, which other processes don't move."""
        if self.options.device != "cuda":
            start = time.process_time()
            self.step()
            return time.process_time() - start
        torch.cuda.synchronize()
        start = time.perf_counter()
        self.step()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    def held_bytes(self):
        """Parameters and the optimiser's state."""
        state = [v for s in self.optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
        return sum(t.numel() * t.element_size() for t in (*self.model.parameters(), *state))

    def peak_bytes(self):
        """Peak memory of a step, with what the model and the optimiser hold."""
        self.step()
        if self.options.device == "cuda":
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self.step()
            return torch.cuda.max_memory_allocated() - before + self.held_bytes()
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            self.step()
        events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
        live = peak = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            live += event.nbytes()
            peak = max(peak, live)
        return peak + self.held_bytes()


def copies_bytes(model):
    """The size of what FairMask holds in addition."""
    return sum(
        parameter.numel() * parameter.element_size()
        for layer in model.modules()
        if isinstance(layer, FairMaskLayer)
        for name in layer.fairmask_copies
        for _, parameter in layer._own_parameters(name)
    )


def measure(base, mask, options, batch):
    """The figures of one mask."""
    memory = {}
    for name, build in (("plain", plain), ("fairmask", fairmask)):
        memory[name] = Job(build(base, mask), options, batch).peak_bytes()
    jobs = Job(plain(base, mask), options, batch), Job(fairmask(base, mask), options, batch)
    copies = copies_bytes(jobs[1].model)
    losses = [[float(job.step()) for _ in range(options.warm_up)] for job in jobs]
    times = [
        # the order changes from pair to pair, so that neither way always comes first
        [jobs[i].seconds() for i in order][:: 1 if order == (0, 1) else -1]
        for pair in range(options.pairs)
        for order in [((0, 1), (1, 0))[pair % 2]]
    ]
    ratios = sorted(b / a for a, b in times)
    mib = 2**20
    return {
        "trainable": sum(p.numel() for p in jobs[1].own),
        "step_ratio": statistics.median(ratios),
        "step_ratio_quartiles": [ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]],
        "plain_ms": 1e3 * statistics.median(a for a, _ in times),
        "fairmask_ms": 1e3 * statistics.median(b for _, b in times),
        "memory_ratio": (memory["fairmask"] - copies) / memory["plain"],
        "plain_mib": memory["plain"] / mib,
        "fairmask_mib": memory["fairmask"] / mib,
        "copies_mib": copies / mib,
        "same_losses": losses[0] == losses[1],
        "largest_loss_difference": max(abs(a - b) for a, b in zip(*losses, strict=True)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", choices=list(SIZES), help="default: base on a GPU, else tiny")
    parser.add_argument("--batch", type=int, help="default: 512 on a GPU, else 4")
    parser.add_argument(
        "--dtype", choices=["fp32", "bf16"], help="default: bf16 on a GPU, else fp32"
    )
    parser.add_argument("--pairs", type=int, default=30, help="pairs of steps that are timed")
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--masks", nargs="+", choices=list(MASKS), default=list(MASKS))
    options = parser.parse_args()
    gpu = options.device == "cuda"
    options.model = options.model or ("base" if gpu else "tiny")
    options.batch = options.batch or (512 if gpu else 4)
    options.dtype = options.dtype or ("bf16" if gpu else "fp32")

    torch.manual_seed(0)
    base = ViTForImageClassification(ViTConfig(num_labels=2, **SIZES[options.model]))
    images = torch.randn(options.batch, 3, 224, 224, device=options.device)
    batch = images, torch.randint(0, 2, (options.batch,), device=options.device)
    hardware = (
        torch.cuda.get_device_name()
        if gpu
        else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    result = {
        **{k: getattr(options, k) for k in ("device", "model", "batch", "dtype", "pairs")},
        "hardware": hardware,
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, peft)},
        "masks": {},
    }
    for name in options.masks:
        result["masks"][name] = found = measure(base, MASKS[name], options, batch)
        print(name, json.dumps(found), flush=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
