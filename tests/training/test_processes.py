"""Whole-split metrics through the Trainer: the same for any batch size and number of processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import torch
from transformers import set_seed
from fairtune_hf.data import load_dataset_table
from fairtune_hf.metrics import ComputeMetrics
from fairtune_hf.training import FairTrainer, FitArguments, build_datasets, load_backbone

pictures, vit, out = map(Path, sys.argv[1:4])
table = load_dataset_table("folder", pictures, image_size=32, label_column="diagnosis", sensitive_column="sex",
                           patient_column="person", split_column="part", cache=False, progress=False)
backbone = load_backbone(vit)

class Given(torch.nn.Module):
    "Logits that are a function of one pixel alone, so that no batch changes a bit of them."
    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
    def forward(self, pixel_values):
        x = pixel_values[:, 0, 0, 0] + self.unused
        return SimpleNamespace(logits=torch.stack([-x, x], 1))

found = {}
for name in ("given", "model"):
    for batch in (1, 7, 64, 200):
        set_seed(0)
        model = Given() if name == "given" else backbone.copy_with_new_head()
        arguments = FitArguments(training_arguments=json.dumps(
            {"use_cpu": True, "per_device_eval_batch_size": batch, "ddp_backend": "gloo"}
        )).to_training_arguments(out, learning_rate=1e-3, seed=0)
        rows = build_datasets(table, backbone, FitArguments())["test"]
        trainer = FairTrainer(model=model, args=arguments, eval_dataset=rows,
                              compute_metrics=ComputeMetrics(group_names=table.groups))
        metrics = trainer.evaluate()
        found[f"{name} {batch}"] = {k: v for k, v in metrics.items() if "auc" in k or "difference" in k}
        found["processes"] = trainer.args.world_size
if trainer.is_world_process_zero():
    (out / "found.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_metrics_do_not_depend_on_batches_or_processes(
    run_alone_and_in_two: Callable[..., dict[int, Any]], pictures: Path, tiny_vit: Path
) -> None:
    found = run_alone_and_in_two(SCRIPT, pictures, tiny_vit)
    first = found[1]
    for metrics in found.values():
        for name, values in metrics.items():
            if name.startswith("given"):
                assert values == first["given 1"], name  # to the bit
            else:
                assert values == pytest.approx(first["model 1"], abs=1e-6, nan_ok=True), name
