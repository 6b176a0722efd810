"""One whole trial of a search against a bare PyTorch loop with the same arithmetic.

    python recipes/benchmarks/trial.py --json trial.json                        # one H200, ViT-B/16
    python recipes/benchmarks/trial.py --model demo --device cpu --epochs 3 --repeats 5
    python recipes/benchmarks/trial.py --processes 1 2 --masks all random       # data parallel
    python recipes/benchmarks/trial.py --tiny                                   # does it run?

Ours is a trial as the search runs it: `run_study` with its sampler, study file, Trainer, learning-rate
schedule, evaluation and group metrics of every epoch, on data that is on the device already; its time is
Optuna's own, from the start of the trial to its value, so building the model counts. The bare loop
builds the same model under the same mask and does the same steps in plain PyTorch, with the same
augmentation, precision, fused or compiled blocks and evaluation. Both are warmed up first (kernels,
compilation), then they alternate, and the medians are compared.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from bare_loop import train_bare
from generated_data import MODELS, demo_table, describe_machine, make_backbone, make_table
from peft import get_peft_model
from torch import nn
from transformers import set_seed

from fairtune_hf.search import SearchArguments, SearchSpace, run_study
from fairtune_hf.search.objectives import ObjectiveMetrics, parse_objectives
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.training import Backbone, FitArguments, RunFolder, Training
from fairtune_hf.training.cost import count_operations, measure_peak
from fairtune_hf.tuner import FairMaskConfig

LEARNING_RATE = 1.0e-4
PRESETS = {"none": "none", "layernorm": "layernorm", "attention": "attention", "all": "full_blocks"}
COLUMNS = ("mask", "trained_parameters", "ours", "bare", "ratio", "share_of_peak", "ours_gib")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", choices=[*MODELS, "demo"], default="base")
    parser.add_argument("--rows", type=int, default=12809)
    parser.add_argument("--validation-rows", type=int, default=1601)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, help="512; 32 for the demo")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2, help="trials of each kind and mask")
    parser.add_argument("--transforms", help="paper; flip for the demo")
    parser.add_argument("--masks", nargs="+", default=["none", "layernorm", "attention", "random", "all"])  # fmt: skip
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], help="bf16 on a GPU, else fp32")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--processes", nargs="+", type=int, help="compare process counts instead")
    parser.add_argument("--budget-seconds", type=float, default=500.0, help="start nothing after")
    parser.add_argument("--tiny", action="store_true", help="a few rows and a tiny model")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.tiny:
        options.model, options.image_size, options.batch_size = "tiny", 32, 16
        options.rows, options.validation_rows, options.epochs = 40, 24, 2
    demo = options.model == "demo"
    options.batch_size = options.batch_size or (32 if demo else 512)
    options.transforms = options.transforms or ("flip" if demo else "paper")
    options.dtype = options.dtype or ("bf16" if options.device == "cuda" else "fp32")
    if options.compile is None:
        options.compile = options.device == "cuda"
    return options


def mask_bits(mask: str, blocks: int) -> str:
    """Bits of a named mask; `random` trains half of the modules, the same in every run."""
    if mask != "random":
        return PRESETS.get(mask, mask)
    bits = np.zeros(3 * blocks, dtype=int)
    bits[np.random.default_rng(3).permutation(3 * blocks)[: 3 * blocks // 2]] = 1
    return "".join(map(str, bits))


def masked_model(backbone: Backbone, mask: str) -> nn.Module:
    set_seed(0)
    return get_peft_model(backbone.copy_with_new_head(), FairMaskConfig(mask=mask))


def run_ours(training: Training, mask: str) -> dict[str, float]:
    """Run a search of one trial and return the trial's seconds and rate."""
    space = SearchSpace(
        blocks=training.backbone.blocks,
        mask=mask,
        learning_rate=(LEARNING_RATE, LEARNING_RATE * 1.001),
    )
    search = SearchArguments(trials=1, pruner="none", top_k=0)
    with tempfile.TemporaryDirectory() as folder:
        plan = StudyPlan(RunFolder(folder), space, search, training.arguments, startup=())
        study = run_study(plan, training, keep_best=False, show_progress=False)
    if study is None:  # a process that only helps the first one
        return {}
    trial = study.trials()[0]
    assert trial.duration is not None
    seconds = trial.duration.total_seconds()
    rate = training.arguments.epochs * len(training.datasets["train"]) / seconds
    return {"seconds": seconds, "images_per_second": rate, "min_auc": float(trial.values[0])}


def measured(
    device: str, run: Callable[..., dict[str, float]], *arguments: Any, **settings: Any
) -> dict[str, float]:
    """Run one trial with the memory counters reset; add the peak of its memory."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    found = run(*arguments, **settings)
    if device == "cuda" and found:
        found["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return found


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every mask in this process (or in each of several that train together)."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    first = int(os.environ.get("RANK", "0")) == 0
    backbone = make_backbone(options.model, options.image_size)
    if options.model == "demo":
        table = demo_table(backbone.image_size)
    else:
        sizes = {"image_size": options.image_size, "transforms": options.transforms}
        table = make_table(options.rows, options.validation_rows, **sizes)
        # One whole batch and the rest that the last one is, and the same evaluation: every size that comes.
        batch = options.batch_size * processes
        small_rows = min(options.rows, batch + options.rows % batch)
        small = make_table(small_rows, options.validation_rows, **sizes)
    training = FitArguments(
        epochs=options.epochs,
        batch_size=options.batch_size,
        transforms=options.transforms,
        precision=options.dtype,
        compile="on" if options.compile else "off",
        training_arguments='{"use_cpu": true}' if options.device == "cpu" else None,
    )
    warm_up = FitArguments(**{**vars(training), "epochs": 1})
    how = Training(table=table, backbone=backbone, arguments=training)
    datasets = how.datasets
    small_table = table if options.model == "demo" else small
    to_warm_up = Training(table=small_table, backbone=backbone, arguments=warm_up)
    assert to_warm_up.datasets  # built before the clock runs
    peak = measure_peak(options.device)
    record: dict[str, Any] = {**describe_machine(), "processes": processes, "peak_flops": peak}
    record |= {"options": {k: str(v) for k, v in vars(options).items()}, "masks": []}
    metrics = ObjectiveMetrics(parse_objectives("min_auc"), table.subset("validation"))
    began = time.perf_counter()
    for name in options.masks:
        if processes == 1 and time.perf_counter() - began > options.budget_seconds:
            print(f"{name}: not run, the time budget is spent", flush=True)
            continue
        mask = mask_bits(name, backbone.blocks)
        start = time.perf_counter()
        run_ours(to_warm_up, mask)
        warm_seconds = time.perf_counter() - start
        ours, bare = [], []
        for _ in range(options.repeats):
            ours.append(measured(options.device, run_ours, how, mask))
            if processes > 1:
                continue
            bare.append(
                measured(
                    options.device,
                    train_bare,
                    functools.partial(masked_model, backbone, mask),
                    datasets,
                    metrics,
                    training,
                    learning_rate=LEARNING_RATE,
                    compile_blocks=options.compile,
                )
            )
        if not first:
            continue
        model = masked_model(backbone, mask)
        fast = options.device == "cuda" and options.dtype == "bf16"
        counted = count_operations(model, last_token_only=fast)
        row = summarise(name, ours, bare, processes)
        row["trained_parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        row["warm_up_seconds"] = round(warm_seconds, 2)
        if peak and counted:
            row["share_of_peak"] = round(row["ours"] * counted.training / peak / processes, 4)
        record["masks"].append(row)
        print(" ".join(f"{column}={row.get(column)}" for column in COLUMNS), flush=True)
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n")
    return record


def summarise(
    name: str, ours: list[dict[str, float]], bare: list[dict[str, float]], processes: int
) -> dict[str, Any]:
    row: dict[str, Any] = {"mask": name, "processes": processes}
    for kind, runs in (("ours", ours), ("bare", bare)):
        if not runs:
            continue
        rates = [round(run["images_per_second"], 1) for run in runs]
        row |= {kind: round(statistics.median(rates), 1), f"{kind}_runs": rates}
        row[f"{kind}_min_auc"] = runs[-1]["min_auc"]
        if "peak_memory_gib" in runs[0]:
            row[f"{kind}_gib"] = max(run["peak_memory_gib"] for run in runs)
    if bare:
        row["ratio"] = round(row["ours"] / row["bare"], 4)
    return row


def compare_processes(options: argparse.Namespace) -> dict[str, Any]:
    """Run this benchmark once with each number of processes and compare the rates."""
    words = list(sys.argv[1:])
    start = words.index("--processes")
    words = words[:start] + words[start + 1 + len(options.processes) :]
    if "--json" in words:
        place = words.index("--json")
        words = words[:place] + words[place + 2 :]
    record: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in options.processes:
            file = Path(folder) / f"{count}.json"
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command = [*launch, f"--nproc_per_node={count}", __file__, *words, "--json", str(file)]
            subprocess.run(command, check=True)
            record[str(count)] = json.loads(file.read_text())
    base = options.processes[0]
    print("\nmask        " + "".join(f"{n:>6} processes" for n in options.processes) + "   ratio")
    for i, row in enumerate(record[str(base)]["masks"]):
        rates = [record[str(count)]["masks"][i]["ours"] for count in options.processes]
        cells = "".join(f"{rate:>16,.1f}" for rate in rates)
        print(f"{row['mask']:<12}{cells}   {rates[-1] / rates[0]:.3f}", flush=True)
    return record


def print_table(record: dict[str, Any]) -> None:
    print(json.dumps({k: v for k, v in record.items() if k not in ("masks", "options")}))
    # Several processes have no bare loop beside them, and a CPU has neither a known peak nor a peak of memory.
    table = pd.DataFrame(record["masks"]).reindex(columns=[*COLUMNS, "bare_gib"])
    print("\n" + table.to_string(index=False, na_rep="-"))


def main() -> None:
    options = parse()
    if options.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    record = compare_processes(options) if options.processes else benchmark(options)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if not options.processes and int(os.environ.get("RANK", "0")) == 0:
        print_table(record)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
