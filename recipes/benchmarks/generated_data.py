"""Pictures and a ViT made on the spot, for benchmarks that need sizes and nothing else.

Random uint8 pictures, labels and groups in every combination, and a ViT from its config with random
weights: what they cost to train on is what real ones of the same size cost.
"""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import ViTConfig, ViTForImageClassification

from fairtune_hf.data import TRANSFORM_PRESETS, ImageTable, load_dataset_table
from fairtune_hf.training import Backbone, load_backbone

MODELS: dict[str, dict[str, int]] = {
    "base": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "patch_size": 16,
    },
    "small": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "patch_size": 16,
    },
    "tiny": {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "patch_size": 8,
    },
}
_PACKAGES = ("fairtune_hf", "torch", "transformers", "peft", "accelerate", "optuna", "timm")


def make_backbone(model: str, image_size: int) -> Backbone:
    """Return a ViT of one of `MODELS` with random weights, or the embedded one for `demo`."""
    if model == "demo":
        return load_backbone()
    torch.manual_seed(0)
    config = ViTConfig(**MODELS[model], image_size=image_size, num_labels=2)
    return Backbone(
        model=ViTForImageClassification(config).eval(),
        id=f"generated/vit-{model}",
        revision=None,
        sha256="0" * 64,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        image_size=image_size,
    )


def make_table(rows: int, validation_rows: int, *, image_size: int, transforms: str) -> ImageTable:
    """Return training and validation rows at the side that an augmentation stores pictures at."""
    generator = np.random.default_rng(0)
    total = rows + validation_rows
    side = TRANSFORM_PRESETS[transforms].stored_side(image_size)
    frame = pd.DataFrame(
        {
            "row_id": np.arange(total).astype(str),
            "patient_id": np.arange(total).astype(str),
            "label": np.arange(total) % 2,
            "group": np.where(np.arange(total) // 2 % 2 == 0, "a", "b"),
            "split": np.where(np.arange(total) < rows, "train", "validation"),
        }
    )
    return ImageTable(
        name="generated",
        frame=frame,
        images=generator.integers(0, 256, (total, side, side, 3), dtype=np.uint8),
        sensitive="group",
        groups=("a", "b"),
        label_names=("0", "1"),
        split_hash="0" * 64,
    )


def demo_table(image_size: int) -> ImageTable:
    """Return the embedded demo set, as the demo's search reads it."""
    return load_dataset_table(
        "demo", sensitive="skin_type", image_size=image_size, splits=("train", "validation")
    )


def describe_machine() -> dict[str, Any]:
    """Return hardware and versions, for the head of every result."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    versions = {name: _version(name) for name in _PACKAGES}
    return {
        "gpus": gpus,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "versions": {**versions, "python": platform.python_version()},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
