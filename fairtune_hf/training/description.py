"""What a training says of itself in run.json: data, versions and hardware."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from fairtune_hf.data import ImageTable
from fairtune_hf.run_record import DatasetRecord, GroupCounts
from fairtune_hf.version import __version__

_PACKAGES = [
    "torch",
    "torchvision",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "evaluate",
    "optuna",
    "timm",
    "scikit-learn",
]


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    versions = {"python": platform.python_version(), "fairtune_hf": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def describe_hardware() -> dict[str, Any]:
    """Device names and counts; no host name, no path."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def describe_dataset(table: ImageTable) -> DatasetRecord:
    """Describe the data of the splits the table holds."""
    parts = {split: table.subset(split) for split in table.splits}
    return DatasetRecord(
        name=table.name,
        sensitive=table.sensitive,
        rows={split: len(part) for split, part in parts.items()},
        n_patients={s: int(part.frame["patient_id"].nunique()) for s, part in parts.items()},
        counts={split: _count_groups(part) for split, part in parts.items()},
        split_hash=table.split_hash,
        groups=list(table.groups),
        label_names=list(table.label_names),
        options=table.options,
        dropped=table.dropped,
    )


def _count_groups(part: ImageTable) -> dict[str, GroupCounts]:
    """Rows, positives and patients of each group of one split."""
    frame = part.frame.assign(group=part.group_names)
    return {
        name: GroupCounts(
            n=len(rows),
            positives=int(rows["label"].sum()),
            n_patients=int(rows["patient_id"].nunique()),
        )
        for name, rows in ((name, frame[frame["group"] == name]) for name in part.groups)
    }
