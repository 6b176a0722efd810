"""Real parts, small: a tiny ViT made from a config and a folder of drawn pictures; no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

from fairtune_hf.data import ImageTable, load_dataset_table

PATIENTS, PICTURES_EACH = 60, 3


def draw_folder(root: Path, *, seed: int = 0, patients: int = PATIENTS) -> Path:
    """Write three noisy pictures a patient whose brightness carries the label, and metadata.csv; patients past 48 are test."""
    generator = np.random.default_rng(seed)
    rows = []
    root.mkdir(parents=True, exist_ok=True)
    for patient in range(patients):
        sex = "F" if patient % 2 else "M"
        label = int(generator.random() < 0.5)
        split = "train" if patient < 36 else "validation" if patient < 48 else "test"
        if patient in (36, 37, 48, 49):  # every group has both classes in every split
            label = 1
        if patient in (38, 39, 50, 51):
            label = 0
        for picture in range(PICTURES_EACH):
            name = f"p{patient:03d}_{picture}.png"
            pixels = generator.normal(100 + 40 * label, 40, (32, 32, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name)
            rows.append((name, "sick" if label else "benign", sex, patient, split))
    columns = ["file_name", "diagnosis", "sex", "person", "part"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "metadata.csv", index=False)
    return root


@pytest.fixture(scope="session")
def pictures_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("pictures") / "set")


@pytest.fixture(autouse=True, scope="session")
def own_picture_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared pictures go to a folder of the tests' own."""
    cache = tmp_path_factory.mktemp("cache")
    os.environ["FAIRTUNE_CACHE"] = str(cache)
    return cache


@pytest.fixture(scope="session")
def search_table(pictures_template: Path) -> ImageTable:
    """The training and validation rows of the drawn folder."""
    return load_dataset_table(
        "folder", pictures_template, image_size=32, label_column="diagnosis", sensitive_column="sex",
        patient_column="person", split_column="part", splits=("train", "validation"),
        cache=False, progress=False,
    )  # fmt: skip


@pytest.fixture
def pictures(pictures_template: Path, tmp_path: Path) -> Path:
    """A copy of the drawn folder that a test may damage."""
    return Path(shutil.copytree(pictures_template, tmp_path / "pictures"))


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder: two blocks, hidden 16, 32 px, random weights."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=16,
        num_labels=5,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-vit"
    ViTForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture
def run_in_processes(tmp_path: Path) -> Callable[..., None]:
    """Runs a script with words in several processes that train together, each on one thread."""

    def run(script: str, *words: str | Path, processes: int, **env: str) -> None:
        file = tmp_path / "script.py"
        file.write_text(script)
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        subprocess.run(
            [*launch, f"--nproc-per-node={processes}", str(file), *map(str, words)],
            check=True,
            timeout=400,
            env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        )

    return run


def name_columns(root: Path) -> list[str]:
    """Flags that name the columns of `draw_folder`."""
    return [
        "--dataset=folder",
        f"--data-root={root}",
        "--label-column=diagnosis",
        "--sensitive-column=sex",
        "--patient-column=person",
        "--split-column=part",
    ]


@pytest.fixture(scope="session")
def folder_flags(pictures_template: Path) -> list[str]:
    return name_columns(pictures_template)


@pytest.fixture(scope="session")
def finished_run(
    pictures_template: Path, tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run taken through all four steps of the command line."""
    from fairtune_hf.cli.main import main

    out = tmp_path_factory.mktemp("runs") / "run"
    flags = [*name_columns(pictures_template), f"--model={tiny_vit}", f"--out={out}"]
    fit = ["--trials=8", "--epochs=2", "--batch-size=16", "--learning-rate-max=0.01"]
    assert main(["search", *flags, *fit]) == 0
    assert main(["finetune", f"--run={out}", "--seeds=2"]) == 0
    assert main(["evaluate", f"--run={out}", "--resamples=200"]) == 0
    assert main(["report", f"--run={out}"]) == 0
    return out
