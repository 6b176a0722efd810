"""What the search machinery costs a trial, and whether memory grows over many.

    python recipes/benchmarks/search_overhead.py --json runs/overhead.json

Runs a search of many short trials on the embedded demo set with a tiny ViT (or on the GPU with --epochs to taste). The
time inside `training_step`, `optimizer.step` and the evaluation's forward passes is measured in the trainer; all
the rest of a trial, from one claim to the next, is machinery: the study, the sampler, model and optimizer
set-up, reports, tables, the best adapter. Resident memory is read after each trial.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import torch
import transformers
from transformers import ViTConfig, ViTForImageClassification

from fairtune_hf.data import load_dataset_table
from fairtune_hf.search import Candidate, SearchArguments, SearchSpace, run_study
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.training import FairTrainer, FitArguments, RunFolder, Training, load_backbone


class Clock:
    """Seconds of arithmetic, and a mark at the start of each trial."""

    def __init__(self) -> None:
        self.arithmetic = 0.0
        self.marks: list[tuple[float, float, float]] = []
        self._process = psutil.Process()

    def mark(self, candidate: Candidate | None = None) -> None:
        memory = self._process.memory_info().rss / 2**20
        self.marks.append((time.perf_counter(), self.arithmetic, memory))


class TimedTrainer(FairTrainer):
    clock: Clock

    def _timed(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        found = function(*args, **kwargs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.clock.arithmetic += time.perf_counter() - start
        return found

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        return self._timed(super().training_step, *args, **kwargs)

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        return self._timed(super().prediction_step, *args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        optimizer = super().create_optimizer(*args, **kwargs)
        step = optimizer.step
        optimizer.step = lambda *a, **k: self._timed(step, *a, **k)
        return optimizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=101)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--model", help="Checkpoint; by default a tiny untrained ViT of 12 blocks.")
    arguments = parser.parse_args()
    clock = Clock()
    TimedTrainer.clock = clock
    with tempfile.TemporaryDirectory() as folder:
        if arguments.model is None:
            config = ViTConfig(
                hidden_size=16,
                num_attention_heads=2,
                intermediate_size=32,
                image_size=32,
                patch_size=16,
            )
            arguments.model = f"{folder}/vit"
            ViTForImageClassification(config).save_pretrained(arguments.model)
        backbone = load_backbone(arguments.model)
        table = load_dataset_table(
            "demo",
            sensitive="skin_type",
            image_size=backbone.image_size,
            splits=("train", "validation"),
        )
        fit = FitArguments(epochs=arguments.epochs, batch_size=arguments.batch_size)
        plan = StudyPlan(
            RunFolder(f"{folder}/run"),
            SearchSpace(blocks=backbone.blocks),
            SearchArguments(trials=arguments.trials, pruner="none"),
            fit,
        )
        training = Training(
            table=table, backbone=backbone, arguments=fit, make_trainer=TimedTrainer
        )
        study = run_study(plan, training, on_candidate=clock.mark, show_progress=False)
        clock.mark()
        assert study is not None
        assert study.finished() == arguments.trials
    marks = np.array(clock.marks)
    seconds, arithmetic = np.diff(marks[:, 0]), np.diff(marks[:, 1])
    overhead = (seconds - arithmetic)[1:]  # the first trial also warms up
    memory = marks[:, 2]
    tenth = max(1, len(memory) // 10)
    found = {
        "trials": len(seconds),
        "epochs": arguments.epochs,
        "seconds_per_trial": float(np.median(seconds)),
        "overhead_seconds": {
            "median": float(np.median(overhead)),
            "mean": float(overhead.mean()),
            "p95": float(np.quantile(overhead, 0.95)),
            "last_ten": float(overhead[-10:].mean()),
        },
        "share_of_a_20_s_trial": float(overhead.mean() / 20),
        "memory_mib": {
            "after_first_tenth": float(memory[tenth]),
            "at_the_end": float(memory[-1]),
            "per_trial": float(np.polyfit(np.arange(tenth, len(memory)), memory[tenth:], 1)[0]),
        },
        "machine": {
            "device": torch.cuda.get_device_name()
            if torch.cuda.is_available()
            else platform.machine(),
            "threads": torch.get_num_threads(),
        },
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "optuna": optuna.__version__,
        },
    }
    print(json.dumps(found, indent=1))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
