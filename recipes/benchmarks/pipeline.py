"""Feeding a training: prepared pictures on the device, on the host, or files decoded at every access.

    python recipes/benchmarks/pipeline.py --json pipeline.json
    python recipes/benchmarks/pipeline.py --tiny

Writes generated pictures as JPEG files, as a data set comes (`--file-side` pixels), and as the prepared
uint8 array the package keeps. Ways of feeding, all with the `paper` augmentation (random resized crop,
flip):

  device   the package's default: uint8 pictures on the device, augmented there
  host     the package's way where they do not fit: gathered into page-locked memory and sent
  mapped   the same from an array mapped from a file
  decode   what most training scripts do: PIL decodes a file at every access, torchvision augments,
           a DataLoader with `--workers` processes, page-locked memory and prefetch

For each, pictures a second of the feeding alone, and of training steps of a ViT fed that way (forward,
backward, fused AdamW, bf16 on a GPU, blocks run the fast way) over `--steps` steps after a warm-up.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generated_data import MODELS, describe_machine, make_backbone, make_table
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fairtune_hf.data import ImageTable
from fairtune_hf.training import ImageDataset
from fairtune_hf.training.fast_forward import FastForward

Batches = Generator[tuple[Tensor, Tensor], None, None]
WAYS = ("device", "host", "mapped", "decode")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--file-side", type=int, default=512, help="side of the JPEG files")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--model", choices=MODELS, default="base")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--workers", type=int, default=count_cores(), help="of the DataLoader")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--tiny", action="store_true", help="a few rows and a tiny model")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.tiny:
        options.rows, options.file_side, options.image_size, options.batch_size = 96, 64, 32, 32
        options.model, options.steps, options.workers = "tiny", 3, 1
    return options


def count_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


class DecodedFiles(Dataset[tuple[Tensor, int]]):
    """Pictures decoded and augmented at every access."""

    def __init__(self, files: list[Path], labels: np.ndarray, size: int) -> None:
        self.files, self.labels = files, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.files[index]) as picture:
            return self.transform(picture.convert("RGB")), int(self.labels[index])


def write_files(folder: Path, rows: int, side: int) -> list[Path]:
    """Write smooth generated pictures, which compress as photographs do rather than as noise."""

    def write(index: int) -> Path:
        generator = np.random.default_rng(index)
        small = generator.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
        file = folder / f"{index}.jpg"
        picture = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(file, quality=90)
        return file

    with ThreadPoolExecutor(count_cores()) as pool:
        return list(pool.map(write, range(rows)))


def prepared_batches(data: ImageDataset, batch: int) -> Batches:
    """Serve batches of the package's data set for ever, shuffled anew each epoch."""
    generator = torch.Generator().manual_seed(0)
    while True:
        for rows in torch.randperm(len(data), generator=generator).split(batch):
            if len(rows) == batch:
                served = data.__getitems__(rows)  # type: ignore[arg-type]
                yield served["pixel_values"], served["labels"]


def decoded_batches(data: DecodedFiles, options: argparse.Namespace) -> Batches:  # fmt: skip
    """Serve batches of a DataLoader for ever."""
    loader = DataLoader(
        data,
        batch_size=options.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers,
        pin_memory=options.device == "cuda",
        persistent_workers=options.workers > 0,
        prefetch_factor=2 if options.workers else None,
    )
    while True:
        for pixels, labels in loader:
            yield (
                pixels.to(options.device, non_blocking=True),
                labels.to(options.device, non_blocking=True),
            )


def feed(
    way: str, table: ImageTable, files: list[Path], folder: Path, options: argparse.Namespace
) -> Batches:
    """Return the endless batches of one way."""
    if way == "decode":
        return decoded_batches(DecodedFiles(files, table.labels, options.image_size), options)
    if way == "mapped":
        file = folder / "images.npy"
        np.save(file, table.images)
        table = replace(table, images=np.load(file, mmap_mode="r"))
    data = ImageDataset(
        table,
        image_mean=(0.5,) * 3,
        image_std=(0.5,) * 3,
        image_size=options.image_size,
        transforms="paper",
        placement="device" if way == "device" else "host",
    )
    return prepared_batches(data.to(options.device), options.batch_size)


def make_step(options: argparse.Namespace) -> Callable[[Tensor, Tensor], None]:
    """Return a step of full fine-tuning."""
    model: nn.Module = make_backbone(options.model, options.image_size).model.to(options.device)
    model.train().requires_grad_(True)
    gpu = options.device == "cuda"
    if gpu:
        FastForward(model, dtype=torch.bfloat16, residual=torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step(pixels: Tensor, labels: Tensor) -> None:
        with torch.autocast(options.device, dtype=torch.bfloat16, enabled=gpu):
            logits = model(pixel_values=pixels).logits
        functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def rate(
    batches: Batches,
    work: Callable[[Tensor, Tensor], None],
    options: argparse.Namespace,
) -> float:
    """Return pictures a second of feeding and working, after a warm-up."""
    wait = torch.cuda.synchronize if options.device == "cuda" else (lambda: None)
    # As many as the workers hold ready, so that a store filled beforehand does not count.
    for _ in range(3 if options.workers == 0 else min(2 * options.workers, options.steps)):
        work(*next(batches))
    wait()
    start = time.perf_counter()
    for _ in range(options.steps):
        work(*next(batches))
    wait()
    seconds = time.perf_counter() - start
    batches.close()  # and with it the processes of a DataLoader, before the next one starts its own
    return options.steps * options.batch_size / seconds


def main() -> None:
    options = parse()
    record: dict[str, Any] = {**describe_machine(), "ways": []}
    record["options"] = {name: str(value) for name, value in vars(options).items()}
    print(json.dumps({k: v for k, v in record.items() if k not in ("ways", "options")}))
    table = make_table(options.rows, 0, image_size=options.image_size, transforms="paper")
    step = make_step(options)
    print(f"\n{'way':<10}{'feeding alone':>16}{'training':>12}   pictures a second")
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        files: list[Path] = []
        if "decode" in options.ways:
            files = write_files(folder, options.rows, options.file_side)
        for way in options.ways:
            start = functools.partial(feed, way, table, files, folder, options)
            alone = rate(start(), lambda pixels, labels: None, options)
            training = rate(start(), step, options)
            found = {"way": way, "feeding_alone": round(alone, 1), "training": round(training, 1)}
            record["ways"].append(found)
            print(f"{way:<10}{alone:>16,.0f}{training:>12,.0f}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
