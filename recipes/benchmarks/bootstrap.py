"""Time and memory of the bootstrap by patient: 2,000 resamples of 20,000 rows in 4 groups.

    OMP_NUM_THREADS=1 python recipes/benchmarks/bootstrap.py

Prints one line of JSON. The aim: at most 5 s on one core, and under 1 GB. Time and memory are given of the
function in this process, which importing the package fills with PEFT and PyTorch, and of the command `fairtune
evaluate` on the same table, which does without them (its time includes starting Python).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from fairtune_hf.metrics import evaluate_predictions

UNIT = 1 if sys.platform == "darwin" else 1024
# A process of its own, since a child's memory counts from that of the process that started it.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def memory_mb() -> float:
    """Return the largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT / 1e6


def run_command(frame: pd.DataFrame, resamples: int) -> dict[str, float]:
    """Return time and memory of the command on the same table."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "predictions.csv"
        frame.to_csv(table, index=False)
        words = [Path(sys.executable).with_name("fairtune"), "evaluate", f"--predictions={table}"]
        words += ["--label-column=label", "--score-column=score", "--sensitive-column=group"]
        words += ["--patient-column=patient", f"--resamples={resamples}"]
        start = time.perf_counter()
        measured = subprocess.run(
            [sys.executable, "-c", MEASURE, *words], check=True, capture_output=True, text=True
        )
    return {
        "command_seconds": round(time.perf_counter() - start, 2),
        "command_memory_mb": round(int(measured.stdout) * UNIT / 1e6),
    }


def draw_table(rows: int, groups: int, seed: int = 0) -> pd.DataFrame:
    """Draw predictions of patients with 1 to 4 rows."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(rows), rng.integers(1, 5, rows))[:rows]
    label = (rng.random(rows) < 0.2)[patients].astype(int)
    group = rng.integers(0, groups, rows)[patients]
    return pd.DataFrame(
        {
            "label": label,
            "score": rng.random(rows) + 0.3 * label,
            "group": np.char.add("g", group.astype(str)),
            "patient": patients,
        }
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--interval", choices=["percentile", "bca"], default="percentile")
    options = parser.parse_args()
    frame = draw_table(options.rows, options.groups)
    before = memory_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    block = evaluate_predictions(
        frame, sensitive="group", n_resamples=options.resamples, interval=options.interval
    )
    result = vars(options) | {
        "patients": int(frame["patient"].nunique()),
        "wall_seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "memory_mb": round(memory_mb()),
        "memory_added_mb": round(memory_mb() - before),
        "min_auc": block["min_auc"],
        "min_auc_ci": block["min_auc_ci"],
    }
    print(json.dumps(result | run_command(frame, options.resamples)))


if __name__ == "__main__":
    main()
