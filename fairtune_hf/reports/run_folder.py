"""Reads a run's folder: `run.json`, `trials.csv`, `curves.csv` and `predictions.parquet`.

A step that has not been taken leaves an empty part, never an error; what is present but broken
is an error that names the file. Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .numbers import SMALLEST_SHOWN, is_number

SCHEMA_VERSION = 1
TRIAL_COLUMNS = ("number", "state", "value", "learning_rate", "mask", "preset", "epochs", "seconds")
CURVE_COLUMNS = ("number", "epoch", "value", "overall_auc", "loss")


@dataclass(frozen=True)
class RunFolder:
    """What one run's folder holds.

    Attributes:
        path: The folder.
        run: `run.json`; a part that is missing there is missing here.
        trials: One row a trial, empty before a search.
        curves: One row a trial and epoch.
        predictions: Scores of the refits, empty before the refit.
    """

    path: Path
    run: dict[str, Any]
    trials: pd.DataFrame
    curves: pd.DataFrame
    predictions: pd.DataFrame

    def part(self, name: str) -> dict[str, Any]:
        """Return an object of `run.json`, empty when the step that writes it was not taken."""
        found = self.run.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def sensitive(self) -> str:
        """The attribute whose groups are compared."""
        return str(self.part("dataset").get("sensitive") or "group")

    @property
    def final_split(self) -> str | None:
        """The split the results are told on: test, else validation, else None."""
        return next((split for split in ("test", "validation") if self.part(split)), None)

    def group_order(self, split: str) -> list[str]:
        """Name the groups of a split in the order of the data set, unforeseen ones last."""
        found = [str(name) for name in self.part(split).get("groups") or {}]
        order = [str(name) for name in self.part("dataset").get("groups") or []]
        return sorted(found, key=lambda name: order.index(name) if name in order else len(order))

    def people(self, split: str) -> dict[str, int]:
        """Count the patients of each group of a split, from the anonymous codes."""
        frame = self.predictions
        if frame.empty or not {self.sensitive, "patient", "split"} <= set(frame.columns):
            return {}
        held = frame[frame["split"] == split]
        counted = held.groupby(self.sensitive)["patient"].nunique()
        return {str(name): int(number) for name, number in counted.items()}

    def small_groups(self, split: str) -> set[str]:
        """Name the groups with fewer than ten people (pictures, when people are not known)."""
        people = self.people(split)
        rows = self.part(split).get("groups") or {}
        sizes = {str(name): row.get("n") for name, row in rows.items()}
        sizes.update(people)
        return {name for name, n in sizes.items() if is_number(n) and n < SMALLEST_SHOWN}


def read_run(run_dir: Path | str) -> RunFolder:
    """Read a run's folder.

    Raises:
        FileNotFoundError: The folder or its `run.json` does not exist.
        ValueError: A file is there and cannot be read, or its schema is newer than this program.
    """
    path = Path(run_dir)
    file = path / "run.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"run_dir should be a folder that holds run.json; {path} has none. Give the folder "
            "that `fairtune search` wrote with --out."
        )
    return RunFolder(
        path=path,
        run=_read_json(file),
        trials=_read_csv(path / "trials.csv", TRIAL_COLUMNS),
        curves=_read_csv(path / "curves.csv", CURVE_COLUMNS),
        predictions=_read_predictions(path / "predictions.parquet"),
    )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{file} should be JSON and could not be read ({error}). Run the step that wrote it "
            "once more."
        ) from error
    if not isinstance(run, dict):
        raise ValueError(f"{file} should hold one JSON object; it holds a {type(run).__name__}.")
    version = run.get("schema_version", SCHEMA_VERSION)
    if not is_number(version) or version > SCHEMA_VERSION:
        raise ValueError(
            f"{file} has schema_version {version!r}; this program reads up to {SCHEMA_VERSION}. "
            "Install the fairtune_hf that wrote it, or a newer one."
        )
    return run


def _read_csv(file: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    if not file.is_file():
        return pd.DataFrame(columns=list(columns))
    text_columns = dict.fromkeys({"mask", "state", "preset"} & set(columns), "string")
    try:
        frame = pd.read_csv(file, dtype=text_columns)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(
            f"{file} should be a table with the columns {', '.join(columns)} and could not be "
            f"read ({error}). Run the search on its own folder again; it writes the table anew."
        ) from error
    return frame.reindex(columns=[*columns, *(c for c in frame.columns if c not in columns)])


def _read_predictions(file: Path) -> pd.DataFrame:
    if not file.is_file():
        return pd.DataFrame()
    try:
        return pd.read_parquet(file)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{file} should be a parquet table and could not be read ({error}). Run "
            "`fairtune finetune` on this run again."
        ) from error


def write_text(path: Path, content: str) -> Path:
    """Write a file whole or not at all: beside it first, then renamed into its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(content, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
