"""A training loop with nothing in it but the arithmetic: what a trial is measured against.

The same model, run the same way (fused, compiled or recorded), data on the device, augmentation, loss,
clipping, fused AdamW, schedule and evaluation of every epoch as a trial of the search has, in plain PyTorch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import get_scheduler

from fairtune_hf.training import FitArguments, ImageDataset
from fairtune_hf.training.arguments import evaluation_batch_size
from fairtune_hf.training.cost import count_operations
from fairtune_hf.training.fast_forward import FastForward
from fairtune_hf.training.graphs import GraphedModel


def train_bare(
    build_model: Callable[[], nn.Module],
    datasets: dict[str, ImageDataset],
    compute_metrics: Callable[[Any], dict[str, float]],
    arguments: FitArguments,
    *,
    learning_rate: float,
    compile_blocks: bool,
) -> dict[str, float]:
    """Build a model, train it `arguments.epochs` epochs, and score the validation rows after each.

    Returns:
        `seconds` of the whole, `images_per_second` of training pictures over it, and the last
        epoch's `min_auc`.
    """
    train, validation = datasets["train"], datasets["validation"]
    device = train.labels.device
    _wait(device)
    start = time.perf_counter()
    model = build_model().to(device)
    bf16 = arguments.resolved_precision() == "bf16"
    rows = arguments.batch_size
    evaluation_rows = evaluation_batch_size(rows, len(validation))
    if device.type == "cuda" and bf16:
        compiled = frozenset((rows, evaluation_rows) if compile_blocks else ())
        FastForward(model, dtype=torch.bfloat16, residual=torch.bfloat16, compiled_rows=compiled)
    run: Any = model
    operations = count_operations(model, last_token_only=device.type == "cuda" and bf16)
    if device.type == "cuda" and operations is not None and not compile_blocks:
        run = GraphedModel(model, operations.evaluation)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained,
        lr=learning_rate,
        weight_decay=arguments.weight_decay,
        fused=True,
    )
    steps = arguments.epochs * -(-len(train) // rows)
    schedule = get_scheduler(
        arguments.schedule,
        optimizer,
        num_warmup_steps=round(arguments.warmup_fraction * steps),
        num_training_steps=steps,
    )
    generator = torch.Generator().manual_seed(arguments.seed)
    metrics: dict[str, float] = {}
    for epoch in range(arguments.epochs):
        train.set_epoch(epoch)
        model.train()
        total = torch.zeros((), device=device)
        for chosen in torch.randperm(len(train), generator=generator).split(rows):
            batch = train.__getitems__(chosen)  # type: ignore[arg-type]
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                logits = run(pixel_values=batch["pixel_values"]).logits
            loss = functional.cross_entropy(logits.float(), batch["labels"])
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.detach()
        total.item()
        metrics = _evaluate(model, run, validation, compute_metrics, evaluation_rows, bf16)
    _wait(device)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "images_per_second": arguments.epochs * len(train) / seconds,
        "min_auc": metrics["min_auc"],
    }


def _evaluate(
    model: nn.Module,
    run: Any,
    rows: ImageDataset,
    compute_metrics: Callable[[Any], dict[str, float]],
    batch: int,
    bf16: bool,
) -> dict[str, float]:
    model.eval()
    found = []
    device = rows.labels.device
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        for chosen in torch.arange(len(rows)).split(batch):
            pixels = rows.__getitems__(chosen)["pixel_values"]  # type: ignore[arg-type]
            found.append(run(pixel_values=pixels).logits.float())
    logits = torch.cat(found).cpu().numpy()
    labels = (rows.labels.cpu().numpy(), rows.group.cpu().numpy())
    return dict(compute_metrics(_Scored(logits, labels)))


class _Scored:
    """What the metrics read of a Trainer's prediction."""

    def __init__(self, logits: np.ndarray, labels: tuple[np.ndarray, np.ndarray]) -> None:
        self.predictions, self.label_ids = logits, labels


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
