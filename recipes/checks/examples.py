"""Make the golden files of `hub_cards/examples` anew: a run of the demo, and the demo set's card.

    python recipes/checks/examples.py

About two minutes on two cores. The adapter, the study and the controls' folders are left out.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from fairtune_hf.cli.main import main as fairtune
from fairtune_hf.hub import render_card, render_dataset_card
from fairtune_hf.reports import render_report

EXAMPLES = Path(__file__).parents[2] / "hub_cards" / "examples"
RUN_FILES = ("run.json", "config.yaml", "trials.csv", "curves.csv", "predictions.parquet")


def make_run(to: Path, scratch: Path) -> None:
    """Run the demo and keep what a report is made of, and what is made of it."""
    if fairtune(["demo", "--out", str(scratch / "demo")]) != 0:
        sys.exit("The demo failed; the examples are as they were.")
    shutil.rmtree(to)
    to.mkdir()
    for name in RUN_FILES:
        shutil.copy(scratch / "demo" / name, to / name)
    render_report(to)
    render_card(to)


def make_dataset(to: Path, scratch: Path) -> None:
    """Prepare the demo set's table and write its card."""
    prepared = scratch / "prepared"
    if fairtune(["prepare", "--dataset", "demo", "--metadata-only", "--out", str(prepared)]) != 0:
        sys.exit("The demo set could not be prepared; its example is as it was.")
    to.mkdir(exist_ok=True)
    shutil.copy(prepared / "table.csv", to / "table.csv")
    render_dataset_card(to)


def main() -> None:
    """Make the examples."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset-only", action="store_true", help="leave the run as it is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        make_dataset(EXAMPLES / "demo-dataset", Path(scratch))
        if not options.dataset_only:
            make_run(EXAMPLES / "demo", Path(scratch))


if __name__ == "__main__":
    main()
