"""Reads all that a run's folder holds for its reports: `run.json`, `trials.csv`, `curves.csv`, predictions.

A step that has not been taken leaves an empty part, never an error; what is present but broken
is an error that names the file. Nothing here imports torch.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fairtune_hf.checksums import read_noted
from fairtune_hf.data.small_cells import SMALL, hidden_cells
from fairtune_hf.metrics.registry import is_small_good
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import SPLITS, Result, RunRecord

from .numbers import is_number

TRIAL_COLUMNS = ("number", "state", "value", "learning_rate", "mask", "preset", "epochs", "seconds")
CURVE_COLUMNS = ("number", "epoch", "value", "overall_auc", "loss")


@dataclass(frozen=True)
class LoadedRun:
    """What one run's folder holds.

    Attributes:
        path: The folder.
        record: `run.json`; a part that is missing there is empty here.
        trials: One row a trial, empty before a search.
        curves: One row a trial and epoch.
        predictions: Scores of the refits, empty before the refit.
        config: The resolved configuration of the search, empty where it was not kept.
    """

    path: Path
    record: RunRecord
    trials: pd.DataFrame
    curves: pd.DataFrame
    predictions: pd.DataFrame
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def sensitive(self) -> str:
        """The attribute whose groups are compared."""
        return self.record.dataset.sensitive or "group"

    @property
    def setting(self) -> str:
        """Data set and attribute in words."""
        return f"{self.record.dataset.name or 'run'}, {self.sensitive}"

    @property
    def objectives(self) -> dict[str, int]:
        """The objectives of the search, the one that ranks its trials first: 1 where large is good, else -1.

        Where the record does not tell the directions, they are those of the metrics.
        """
        search = self.record.own.search
        if search.directions:
            return {n: -1 if way == "minimize" else 1 for n, way in search.directions.items()}
        found = {}
        for word in (search.objective or "min_auc").split(","):
            way, _, name = word.strip().rpartition(":")
            found[name] = -1 if way == "minimize" or is_small_good(name) else 1
        return found

    @property
    def objective(self) -> tuple[str, int]:
        """Name and sign of the objective that ranks the trials."""
        return next(iter(self.objectives.items()))

    @property
    def final_split(self) -> str | None:
        """The split the results are told on: test, else validation, else None."""
        return final_split(self.record)

    def result(self, split: str) -> Result:
        """Return the results of the chosen method on a split, empty ones where it was not measured."""
        return self.record.own.result(split) if split in SPLITS else Result()

    def group_order(self, split: str) -> list[str]:
        """Name the groups of a split in the order of the data set, unforeseen ones last."""
        found = list(self.result(split).groups)
        order = [str(name) for name in self.record.dataset.groups]
        return sorted(found, key=lambda name: order.index(name) if name in order else len(order))

    def people(self, split: str) -> dict[str, int]:
        """Count the patients of each group of a split, from the anonymous codes."""
        frame = self.predictions
        if frame.empty or not {self.sensitive, "patient", "split"} <= set(frame.columns):
            return {}
        held = frame[frame["split"] == split]
        counted = held.groupby(self.sensitive)["patient"].nunique()
        return {str(name): int(number) for name, number in counted.items()}

    def hidden_groups(self, split: str) -> dict[str, str]:
        """Return what stands in place of the counts of a split's groups that are not shown.

        By people, by pictures where people are not known; see `hidden_cells`.
        """
        told = self.record.dataset.counts.get(split) or {}
        sizes = {name: row.n for name, row in told.items()}
        sizes |= {name: row.n for name, row in self.result(split).groups.items()}
        sizes |= {n: row.n_patients for n, row in told.items() if row.n_patients is not None}
        sizes |= self.people(split)
        return hidden_cells({name: n for name, n in sizes.items() if is_number(n)})

    def small_groups(self, split: str) -> set[str]:
        """Name the groups with fewer than ten people (pictures, when people are not known)."""
        return {name for name, words in self.hidden_groups(split).items() if words == SMALL}


def final_split(record: RunRecord) -> str | None:
    """Return the split a run's results are told on: test, else validation, else None."""
    return next((split for split in reversed(SPLITS) if record.own.result(split)), None)


def read_run(run_dir: Path | str) -> LoadedRun:
    """Read a run's folder.

    Raises:
        FileNotFoundError: The folder or its `run.json` does not exist.
        ValueError: A file is there and cannot be read, or its schema is newer than this program.
    """
    folder = RunFolder(run_dir)
    predictions = folder.read_predictions()
    return LoadedRun(
        path=folder.path,
        record=folder.read(),
        trials=_read_csv(folder, folder.trials_file, TRIAL_COLUMNS),
        curves=_read_csv(folder, folder.curves_file, CURVE_COLUMNS),
        predictions=pd.DataFrame() if predictions is None else predictions,
        config=folder.read_config() if folder.config_file.is_file() else {},
    )


def _read_csv(folder: RunFolder, file: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    if not file.is_file():
        return pd.DataFrame(columns=list(columns))
    text_columns = dict.fromkeys({"mask", "state", "preset"} & set(columns), "string")
    try:
        frame = pd.read_csv(io.BytesIO(read_noted(file)), dtype=text_columns)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(
            f"{file} should be a table with the columns {', '.join(columns)} and could not be "
            f"read ({error}). `{folder.maker()}` writes the table anew."
        ) from error
    return frame.reindex(columns=[*columns, *(c for c in frame.columns if c not in columns)])
