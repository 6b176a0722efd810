"""Train a masked ViT under DeepSpeed ZeRO-2 and ZeRO-3 on two GPUs and compare the adapters with plain DDP's.

    python recipes/checks/zero_stages.py --out runs/zero-stages

DeepSpeed is no dependency of the package: install it first. Each stage runs in processes of its own; a stage that
gives no result within --seconds, or other weights than DDP, makes the exit code 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import (
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    default_data_collator,
    set_seed,
)

from fairtune_hf import FairMaskConfig

STAGES = (0, 2, 3)  # 0: plain DDP, the reference


class Pictures(Dataset[dict[str, Any]]):
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randn(64, 3, 32, 32, generator=generator)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"pixel_values": self.pixels[row], "labels": row % 2}


def train(stage: int, out: Path) -> None:
    settings: dict[str, Any] = {}
    if stage:
        settings["deepspeed"] = {
            "zero_optimization": {
                "stage": stage,
                "stage3_gather_16bit_weights_on_model_save": True,
                # Small enough that the tiny model's parameters are really partitioned.
                "stage3_param_persistence_threshold": 0,
            },
            "zero_allow_untested_optimizer": True,
            "gradient_clipping": 0.0,
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "train_batch_size": "auto",
        }
    arguments = TrainingArguments(
        output_dir=str(out / "unused"), per_device_train_batch_size=8, max_steps=6, learning_rate=1e-3,
        max_grad_norm=0.0, lr_scheduler_type="constant", save_strategy="no", report_to="none", seed=0, **settings,
    )  # fmt: skip
    set_seed(0)
    config = ViTConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128, image_size=32, patch_size=16,
        num_labels=2,
    )  # fmt: skip
    model = get_peft_model(
        ViTForImageClassification(config), FairMaskConfig(mask="110010001", inference_mode=False)
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=Pictures(), data_collator=default_data_collator
    )
    trainer.train()
    trainer.save_model(str(out / f"stage-{stage}"))
    if trainer.is_world_process_zero():
        print(f"stage {stage}: trained", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stage", type=int, choices=STAGES)
    parser.add_argument("--seconds", type=int, default=120)
    given = parser.parse_args()
    if given.stage is not None:
        train(given.stage, given.out)
        return 0
    failed = False
    for stage in STAGES:
        words = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node=2",
            "--master_port=29511",
        ]
        words += [__file__, f"--out={given.out}", f"--stage={stage}"]
        try:
            subprocess.run(
                words, check=True, timeout=given.seconds, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"stage {stage}: {type(error).__name__}", flush=True)
            failed = True
    weights = {
        stage: load_file(folder / "adapter_model.safetensors")
        for stage in STAGES
        if (folder := given.out / f"stage-{stage}").is_dir()
    }
    for stage in weights.keys() - {0}:
        reference, found = weights[0], weights[stage]
        same = {name: tensor.shape for name, tensor in found.items()} == {
            name: tensor.shape for name, tensor in reference.items()
        }
        largest = (
            max(float((found[n] - reference[n]).abs().max()) for n in reference)
            if same
            else float("inf")
        )
        print(
            f"stage {stage}: {len(found)} tensors, the same names and shapes: {same}; largest difference {largest:.2e}"
        )
        failed |= largest > 1e-4
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
