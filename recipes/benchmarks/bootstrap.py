"""Time and memory of the bootstrap by patient: 2,000 resamples of 20,000 rows in 4 groups.

    OMP_NUM_THREADS=1 python recipes/benchmarks/bootstrap.py

Prints one line of JSON. The aim (issue 5): at most 5 s on one core, and under 1 GB. Memory is
given as the whole process and as what the computation added to the imports.
"""

import argparse
import json
import resource
import sys
import time

import numpy as np
import pandas as pd

from fairtune_hf.metrics import evaluate_predictions


def memory_mb() -> float:
    """Return the largest memory of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


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
    print(json.dumps(result))


if __name__ == "__main__":
    main()
