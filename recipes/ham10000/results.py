"""Turn the state of `run_compare.sh` into recipes/ham10000/RESULTS.md and the run.json files it is made from.

    python recipes/ham10000/results.py STATE.tar.gz --command "..." --hardware "..." [--out recipes/ham10000]

The run.json files hold counts and scores of groups, no rows and no patients; RESULTS.md is rebuilt from them
alone by `fairtune report --runs recipes/ham10000/results/* --out DIR`.
"""

from __future__ import annotations

import argparse
import json
import tarfile
import tempfile
from pathlib import Path

from fairtune_hf.baselines import METHODS
from fairtune_hf.reports import compare, measure, render_comparison
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import RunRecord

ATTRIBUTES = ("age", "sex")


def read(folder: Path) -> RunRecord | None:
    """Read a method's record, None where it was not begun."""
    return RunFolder(folder).read() if (folder / "run.json").is_file() else None


def measured(folder: Path) -> bool:
    """Whether a method's run has its test results."""
    record = read(folder)
    return record is not None and bool(record.own.result("test"))


def failed(folder: Path) -> bool:
    """Whether a method's run ended with a reason."""
    record = read(folder)
    return record is not None and bool(record.own.failure)


def slim(record: RunRecord) -> RunRecord:
    """Leave out what no table shows: calibration and operating points, of the groups and of all rows."""
    for seed in record.own.seeds:
        for result in (seed.validation, seed.test):
            result.values = {name: held for name, held in result.values.items() if name in SHOWN}
            result.warnings = []
            for row in result.groups.values():
                row.more = {}
    record.model.id = Path(record.model.id or "").name
    return record


SHOWN = {
    "overall_auc", "overall_auc_ci", "min_auc", "min_auc_ci", "max_auc", "max_auc_ci", "auc_gap", "auc_gap_ci",
    "equalized_odds_difference", "equalized_odds_difference_ci", "demographic_parity_difference",
    "demographic_parity_difference_ci",
}  # fmt: skip


def collect(state: Path, results: Path) -> tuple[list[Path], list[str]]:
    """Compare the methods with full fine-tuning and write the slim run.json files."""
    kept, absent = [], []
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(state) as archive:
            archive.extractall(scratch, filter="data")
        for attribute in ATTRIBUTES:
            methods = Path(scratch) / attribute / "methods"
            reference = methods / "full"
            for name in METHODS:
                folder = methods / name
                if measured(folder):
                    measure(folder)  # from its predictions, by the metrics as they are now
                if measured(folder) and measured(reference):
                    compare(folder, reference)
                elif not (measured(folder) or failed(folder)):
                    absent.append(f"{name} ({attribute})")
                    continue
                to = results / f"{name}-{attribute}"
                to.mkdir(parents=True, exist_ok=True)
                record = slim(RunFolder(folder).read())
                (to / "run.json").write_text(
                    json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n"
                )
                kept.append(to)
    return kept, absent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("state", type=Path)
    parser.add_argument("--command", required=True, help="what was run, for the page")
    parser.add_argument(
        "--hardware", required=True, help="all that took part; a run.json names its worker's alone"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    runs, absent = collect(given.state, given.out / "results")
    with tempfile.TemporaryDirectory() as scratch:
        render_comparison(runs, scratch)
        tables = (Path(scratch) / "comparison.md").read_text(encoding="utf-8")
    (given.out / "RESULTS.md").write_text(page(runs, absent, given, tables))
    print(f"{len(runs)} runs; absent: {', '.join(absent) or 'none'}")


def named(rows: list[str]) -> str:
    return f" ({', '.join(rows)})" if rows else ""


def page(runs: list[Path], absent: list[str], given: argparse.Namespace, tables: str) -> str:
    """Lay out RESULTS.md."""
    records = [RunFolder(run).read() for run in runs]
    done = [record for record in records if record.own.result("test")]
    first = done[0]
    versions = ", ".join(
        f"{name} {value}" for name, value in first.versions.items() if value != "not installed"
    )
    seconds = sum((r.own.search.seconds or 0) + (r.own.refit_seconds or 0) for r in done)
    differences = {
        f"{record.chosen} ({record.dataset.sensitive})": item.ci
        for record in done
        for item in record.comparisons
        if item.metric == "min_auc" and item.ci and item.ci[0] is not None
    }
    above = sorted(row for row, ci in differences.items() if (ci[0] or 0) > 0)
    below = sorted(row for row, ci in differences.items() if (ci[1] or 0) < 0)
    counts = first.dataset.rows
    lines = [
        "# HAM10000 at 64 px: all methods at one budget",
        "",
        "One picture a lesion (5,984 pictures, age unknown left out), malignant = akiec, mel or bcc (`label_rule: clinical`), "
        "a ViT-S/8 trained on Tiny-ImageNet (39 % top-1), 8 trials of 5 epochs and 3 refits a method. A small model at a small "
        "budget: the table compares methods under one protocol and says nothing about the paper's numbers.",
        "",
        f"Rows (age): train {counts['train']}, validation {counts['validation']}, test {counts['test']}."
        if first.dataset.sensitive == "age"
        else f"Rows: {counts}.",
        "",
        f"Of {len(differences)} paired differences of min-group AUC against full fine-tuning, 95 % intervals, before any correction "
        f"for their number: above 0 {len(above)}{named(above)}; below 0 {len(below)}{named(below)}; the others hold 0.",
        "",
        f"Command: `{given.command}`",
        "",
        f"Hardware: {given.hardware}; {seconds / 60:,.0f} minutes of processes in all, several at once.",
        f"Versions: {versions}.",
        f"Backbone weights: sha256 {first.model.sha256[:16]}.",
        "",
        "Rebuild the tables: `fairtune report --runs recipes/ham10000/results/* --out runs/ham-compare`.",
        "",
    ]
    if absent:
        lines += [f"Not run within the time: {', '.join(absent)}.", ""]
    return "\n".join([*lines, tables])


if __name__ == "__main__":
    main()
