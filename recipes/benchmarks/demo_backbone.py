"""Compare three ways of using the demo backbone on the demo set, over seeds.

Full fine-tuning and linear readout of the pre-trained weights, and training of the same
architecture from scratch. Each method has its own learning rate, the one with the best mean
validation AUC over the seeds. Every run is a line of `--csv`; the command goes on where it stopped.

    python recipes/benchmarks/demo_backbone.py                         # all of it
    python recipes/benchmarks/demo_backbone.py --render runs/a.csv runs/b.csv
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import math
import time
from pathlib import Path
from types import SimpleNamespace

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
KEY = ("method", "learning rate", "seed")
LEARNING_RATES = {
    "full fine-tuning": (7e-4, 1.5e-3, 3e-3),
    "linear readout": (1e-2, 3e-2, 1e-1),
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
        self.flipped_train = self.pictures["train"].flip(-1)


class Readout(nn.Module):
    """The classifier alone, on class-token features computed once; the body is frozen anyway."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.classifier = model.classifier

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.classifier(pixel_values))


@torch.no_grad()
def freeze(data: DemoData, backbone: Path) -> DemoData:
    """Return the data with features in place of the pictures."""
    body = build_model("linear readout", backbone, 0).eval().base_model
    frozen = copy.copy(data)
    frozen.pictures = {
        split: torch.cat([body(pixel_values=p).last_hidden_state[:, 0] for p in part.split(128)])
        for split, part in data.pictures.items()
    }
    flipped = data.pictures["train"].flip(-1)
    frozen.flipped_train = torch.cat(
        [body(pixel_values=p).last_hidden_state[:, 0] for p in flipped.split(128)]
    )
    return frozen


def build_model(method: str, backbone: Path, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    if method == "from scratch":
        config = AutoConfig.from_pretrained(backbone, num_labels=2)
        return AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    return AutoModelForImageClassification.from_pretrained(
        backbone, num_labels=2, ignore_mismatched_sizes=True, dtype=torch.float32
    )


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
            batch[flipped] = data.flipped_train[rows[flipped]]
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


def compare(args) -> pd.DataFrame:
    """Run what the file of results does not hold yet."""
    pictures = DemoData(args.data_seed)
    features = freeze(pictures, args.backbone)
    results = pd.read_csv(args.csv) if args.csv.exists() else pd.DataFrame()
    done = set(zip(*(results[k] for k in KEY), strict=True)) if len(results) else set()
    for seed, method in itertools.product(args.seeds, args.methods or LEARNING_RATES):
        for rate in LEARNING_RATES[method]:
            if (method, rate, seed) in done:
                continue
            started = time.monotonic()
            data = features if method == "linear readout" else pictures
            model = build_model(method, args.backbone, seed)
            model = Readout(model) if method == "linear readout" else model
            train(model, data, rate, seed, args)
            row = dict(zip(KEY, (method, rate, seed), strict=True))
            row |= {"validation": evaluate(model, data, "validation")["overall"]}
            row |= evaluate(model, data, "test")
            row |= {"seconds": round(time.monotonic() - started, 1)}
            results = pd.concat([results, pd.DataFrame([row])], ignore_index=True)
            results.to_csv(args.csv, index=False)
            print(row, flush=True)
    return results


def render(results: pd.DataFrame) -> str:
    """Markdown: mean ± SD over the seeds, then the differences paired by seed."""
    metrics = ["overall", "min-group", "I-III", "IV-VI"]
    lines = ["| method | learning rate | seeds | " + " | ".join(f"{m} AUC" for m in metrics) + " |"]
    lines.append("|---" * (len(metrics) + 3) + "|")
    chosen = {}
    for method, part in results.groupby("method"):
        rate = part.groupby("learning rate")["validation"].mean().idxmax()
        part = part[part["learning rate"] == rate].set_index("seed")[metrics]
        chosen[method] = part
        cells = [f"{part[m].mean():.3f} ± {part[m].std():.3f}" for m in metrics]
        lines.append(f"| {method} | {rate:g} | {len(part)} | " + " | ".join(cells) + " |")
    reference = chosen.pop("full fine-tuning", None)
    for method, part in chosen.items() if reference is not None else ():
        gain = (reference - part).dropna()
        cells = [
            f"{gain[m].mean():+.3f} ± {gain[m].std():.3f} ({(gain[m] > 0).sum()}/{len(gain)})"
            for m in metrics
        ]
        lines.append(
            f"| full fine-tuning minus {method} | | {len(gain)} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", type=Path, default=BACKBONE)
    parser.add_argument("--methods", nargs="*", choices=list(LEARNING_RATES))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--render", type=Path, nargs="*", help="only print the table of these files"
    )
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, default=Path("runs/demo_backbone.csv"))
    args = parser.parse_args()
    args.csv.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    if args.render:
        results = pd.concat([pd.read_csv(path) for path in args.render], ignore_index=True)
    else:
        results = compare(args)
    print(render(results))


if __name__ == "__main__":
    main()
