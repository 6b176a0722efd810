"""Compare three ways of using the demo backbone on the demo set, over seeds.

Full fine-tuning and linear readout of the pre-trained weights, and training of the same
architecture from scratch. Each method has its own learning rate, chosen by the mean validation AUC
of seeds 0 to `--tuning-seeds` - 1; the test split is read for the chosen rate only.

    python recipes/benchmarks/demo_backbone.py                    # all of it, on two idle cores
    python recipes/benchmarks/demo_backbone.py --methods "linear readout" --csv readout.csv
    python recipes/benchmarks/demo_backbone.py --render *.csv     # the table of several pieces
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification

import fairtune_hf
from fairtune_hf.data.demo import draw_demo_set

BACKBONE = Path(fairtune_hf.__file__).parent / "training" / "demo_backbone"
LEARNING_RATES = {
    "full fine-tuning": (3e-4, 7e-4),
    "linear readout": (1e-2, 3e-2),
    "from scratch": (3e-4, 1e-3),
}


class DemoData:
    """The splits as tensors, scaled to [-1, 1], and the group of each test row."""

    def __init__(self, seed: int):
        frame, images = draw_demo_set(seed)
        self.pictures: dict[str, Tensor] = {}
        self.labels: dict[str, Tensor] = {}
        self.groups: dict[str, np.ndarray] = {}
        for split in ("train", "validation", "test"):
            rows = (frame["split"] == split).to_numpy()
            pictures = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).float()
            self.pictures[split] = pictures / 127.5 - 1.0
            self.labels[split] = torch.from_numpy(frame["label"].to_numpy()[rows])
            self.groups[split] = frame["skin_type"].to_numpy()[rows]


def build_model(method: str, backbone: Path, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    if method == "from scratch":
        config = AutoConfig.from_pretrained(backbone, num_labels=2)
        return AutoModelForImageClassification.from_config(config)
    model = AutoModelForImageClassification.from_pretrained(
        backbone, num_labels=2, ignore_mismatched_sizes=True, dtype=torch.float32
    )
    if method == "linear readout":
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name.startswith("classifier")
    return model


def train(model: nn.Module, data: DemoData, learning_rate: float, seed: int, args) -> None:
    """AdamW with a warm-up over a tenth of the steps, then a cosine; flips as augmentation."""
    generator = torch.Generator().manual_seed(seed)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=0.01, fused=True)
    pictures, labels = data.pictures["train"], data.labels["train"]
    steps = args.epochs * math.ceil(len(labels) / args.batch_size)
    warmup = max(1, steps // 10)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    model.train()
    for _ in range(args.epochs):
        order = torch.randperm(len(labels), generator=generator)
        for rows in order.split(args.batch_size):
            batch = pictures[rows]
            flipped = torch.rand(len(rows), generator=generator) < 0.5
            batch[flipped] = batch[flipped].flip(-1)
            loss = F.cross_entropy(model(pixel_values=batch).logits, labels[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()


@torch.no_grad()
def evaluate(model: nn.Module, data: DemoData, split: str) -> dict[str, float]:
    model.eval()
    logits = torch.cat(
        [model(pixel_values=part).logits for part in data.pictures[split].split(128)]
    )
    score = logits.softmax(-1)[:, 1].numpy()
    label, group = data.labels[split].numpy(), data.groups[split]
    result = {
        name: float(roc_auc_score(label[group == name], score[group == name]))
        for name in np.unique(group)
    }
    return {
        "overall": float(roc_auc_score(label, score)),
        "min-group": min(result.values()),
    } | result


def choose_learning_rate(method: str, run: Callable[[str, float, int, str], dict], args) -> float:
    found = {}
    for rate in LEARNING_RATES[method]:
        runs = [run(method, rate, seed, "validation") for seed in range(args.tuning_seeds)]
        found[rate] = float(np.mean([r["overall"] for r in runs]))
    print(method, "validation AUC by learning rate:", {k: round(v, 3) for k, v in found.items()})
    return max(found, key=lambda rate: found[rate])


def compare(args) -> pd.DataFrame:
    data = DemoData(args.data_seed)

    def run(method: str, rate: float, seed: int, split: str) -> dict[str, float]:
        model = build_model(method, args.backbone, seed)
        train(model, data, rate, seed, args)
        return evaluate(model, data, split)

    rows = []
    for method in args.methods or LEARNING_RATES:
        started = time.monotonic()
        rate = args.learning_rate or choose_learning_rate(method, run, args)
        for seed in args.seeds:
            result = run(method, rate, seed, "test")
            rows.append({"method": method, "learning rate": rate, "seed": seed} | result)
            print(rows[-1], flush=True)
            if args.csv:
                pd.DataFrame(rows).to_csv(args.csv, index=False)
        print(f"{method}: {time.monotonic() - started:.0f} s", flush=True)
    return pd.DataFrame(rows)


def render(results: pd.DataFrame) -> str:
    """Markdown: mean and SD over the seeds, then the differences paired by seed."""
    metrics = ["overall", "min-group", "I-III", "IV-VI"]
    lines = ["| method | learning rate | " + " | ".join(f"{m} AUC" for m in metrics) + " |"]
    lines.append("|---" * (len(metrics) + 2) + "|")
    by_method = dict(tuple(results.groupby("method", sort=False)))
    for method, part in by_method.items():
        cells = [f"{part[m].mean():.3f} ± {part[m].std():.3f}" for m in metrics]
        lines.append(
            f"| {method} | {part['learning rate'].iloc[0]:g} | " + " | ".join(cells) + " |"
        )
    reference = by_method.pop("full fine-tuning", None)
    for method, part in by_method.items() if reference is not None else ():
        gain = reference[metrics].to_numpy() - part[metrics].to_numpy()
        cells = [
            f"{m:+.3f} ± {s:.3f} ({w}/{len(gain)})"
            for m, s, w in zip(gain.mean(0), gain.std(0, ddof=1), (gain > 0).sum(0), strict=True)
        ]
        lines.append(f"| full fine-tuning minus {method} | | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", type=Path, default=BACKBONE)
    parser.add_argument("--methods", nargs="*", choices=list(LEARNING_RATES))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--learning-rate", type=float, help="instead of choosing one")
    parser.add_argument(
        "--render", type=Path, nargs="*", help="only print the table of these files"
    )
    parser.add_argument("--tuning-seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, help="write the result of every run here")
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    if args.render:
        results = pd.concat([pd.read_csv(path) for path in args.render], ignore_index=True)
    else:
        results = compare(args)
    print(render(results.sort_values(["method", "seed"])))


if __name__ == "__main__":
    main()
