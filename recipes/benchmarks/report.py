"""Time and size of `report.html` for a search of 100 trials with 20,000 predictions.

    OMP_NUM_THREADS=1 python recipes/benchmarks/report.py --json report.json

Prints one line of JSON. The aim: at most 20 s on one core and 5 MB. The run is drawn, not trained.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from pathlib import Path

import pandas as pd

from fairtune_hf.reports import render_report

_spec = importlib.util.spec_from_file_location(
    "fake_run", Path(__file__).parents[2] / "tests" / "reports" / "fake_run.py"
)
fake_run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_run)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--rows", type=int, default=20_000, help="predictions in all")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "run"
        # The drawn run has three seeds and two splits, hence six rows a picture.
        pictures = options.rows // 6
        groups = {"light": (pictures // 2, 1.9), "medium": (pictures // 3, 1.6)}
        groups["dark"] = (pictures - sum(n for n, _ in groups.values()), 1.0)
        fake_run.write_fake_run(path, groups=groups, trials=options.trials)
        rows = len(pd.read_parquet(path / "predictions.parquet"))
        wall, cpu = time.perf_counter(), time.process_time()
        page = render_report(path)
        result = {
            "trials": options.trials,
            "predictions": rows,
            "wall_seconds": round(time.perf_counter() - wall, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "megabytes": round(page.stat().st_size / 1e6, 3),
        }
    line = json.dumps(result)
    print(line)
    if options.json is not None:
        options.json.write_text(line + "\n")


if __name__ == "__main__":
    main()
