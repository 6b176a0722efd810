"""Trials per hour with one worker on each GPU against one: `fairtune search --workers`.

    python recipes/benchmarks/search_workers.py --out runs/workers --json runs/workers.json

Makes an untrained ViT-B/16 at 224 px and a folder of pictures, since only time is measured; then searches
twice into new folders, with one worker and with one on each GPU, the same number of trials a worker. Trials
per hour are counted over the time in which trials ran, start-up of the processes left out; the whole wall-clock
time is given too.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification


def draw(root: Path, rows: int, side: int) -> None:
    generator = np.random.default_rng(0)
    root.mkdir(parents=True)
    lines = []
    for row in range(rows):
        label = row % 2
        pixels = generator.normal(100 + 20 * label, 40, (side, side, 3)).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{row}.png")
        split = "train" if row % 10 < 8 else "validation" if row % 10 == 8 else "test"
        # Groups, labels and splits are crossed, so that each group has both labels everywhere.
        lines.append((f"{row}.png", label, "ab"[(row // 20) % 2], row, split))
    columns = ["file_name", "label", "group", "patient", "split"]
    frame = pd.DataFrame(lines, columns=columns)
    frame["label"] = np.random.default_rng(1).integers(0, 2, rows)
    frame.to_csv(root / "metadata.csv", index=False)


def search(arguments: argparse.Namespace, workers: int) -> dict[str, float]:
    out = arguments.out / f"workers-{workers}"
    trials = arguments.trials * workers
    flags = {
        "dataset": "folder",
        "data-root": arguments.out / "pictures",
        "label-column": "label",
        "sensitive-column": "group",
        "patient-column": "patient",
        "split-column": "split",
        "model": arguments.out / "vit",
        "trials": trials,
        "epochs": arguments.epochs,
        "batch-size": arguments.batch_size,
        "pruner": "none",
        "sampler": "random",
        "top-k": 0,
        "workers": workers,
        "out": out,
    }
    words = [sys.executable, "-m", "fairtune_hf.cli.main", "search"]
    words += [f"--{name}={value}" for name, value in flags.items()] + ["--presets=false"]
    start = time.monotonic()
    subprocess.run(words, check=True)
    whole = time.monotonic() - start
    record = json.loads((out / "run.json").read_text())["search"]
    busy = record["wall_seconds"]
    return {
        "workers": workers,
        "trials": record["completed"],
        "busy_seconds": busy,
        "wall_seconds": round(whole, 1),
        "trials_per_hour": 3600 * record["completed"] / busy,
        "trials_per_hour_with_start": 3600 * record["completed"] / whole,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="New folder for pictures and runs.")
    parser.add_argument("--json", type=Path, required=True, help="Where the numbers go.")
    parser.add_argument("--trials", type=int, default=6, help="Trials a worker.")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=0, help="0: one for each GPU.")
    parser.add_argument(
        "--tiny", action="store_true", help="A tiny model, to try the script on a CPU."
    )
    arguments = parser.parse_args()
    side = 32 if arguments.tiny else 224
    draw(arguments.out / "pictures", arguments.rows, side)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    config = ViTConfig(image_size=side, patch_size=16, **(sizes if arguments.tiny else {}))
    ViTForImageClassification(config).save_pretrained(arguments.out / "vit")
    count = arguments.workers or max(1, torch.cuda.device_count())
    rows = [search(arguments, workers) for workers in (1, count)]
    ratio = rows[1]["trials_per_hour"] / rows[0]["trials_per_hour"]
    for row in rows:
        print("  ".join(f"{name} {value:.6g}" for name, value in row.items()))
    print(f"{count} workers make {ratio:.2f} times the trials per hour of one")
    found = {
        "rows": rows,
        "ratio": ratio,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "settings": {k: str(v) for k, v in vars(arguments).items()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
