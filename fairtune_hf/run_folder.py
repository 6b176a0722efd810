"""A run's folder: where each file of a run lies, and how it is written without leaving halves.

Every step reads what the step before left here and nothing else. Imports neither torch nor another
part of the package, so that reports can read and write runs too.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

SCHEMA_VERSION = 1
_PARTS = [
    "dataset",
    "model",
    "choice",
    "method",
    "search",
    "cost",
    "validation",
    "test",
    "seeds",
    "controls",
    "comparisons",
    "verdict",
    "versions",
    "hardware",
    "warnings",
]
# What an evaluation found; no longer true once the choice or a control is another.
EVALUATED = ("validation", "test", "seeds", "comparisons", "verdict")

_OURS = {"dataset", "transforms", "class_weight"}  # what every run's configuration has
_CHOICE = "choice"  # attribute of predictions.parquet
_TRAINED = ("mask", "layout", "learning_rate", "epochs", "train_also", "hyperparameters")


class RunFolder:
    """Paths and atomic reads and writes of one run's folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.record_file = self.path / "run.json"
        self.config_file = self.path / "config.yaml"
        self.trials_file = self.path / "trials.csv"
        self.curves_file = self.path / "curves.csv"
        self.study_file = self.path / "study.sqlite3"
        self.adapter = self.path / "adapter"
        self.predictions_file = self.path / "predictions.parquet"

    def is_a_run(self) -> bool:
        """Whether a search, refit or comparison was begun here; any project may have a config.yaml.

        Raises:
            ValueError: The config.yaml cannot be read.
        """
        return self.config_file.is_file() and self.read_config().keys() >= _OURS

    def control(self, name: str) -> RunFolder:
        """Return the folder of a control, laid out like the run's own."""
        return RunFolder(self.path / "controls" / name)

    def refits(self, record: Mapping[str, Any]) -> dict[str, tuple[RunFolder, dict[str, Any]]]:
        """Return the folder and the entry of run.json of the choice and of each control, by name."""
        controls = record["controls"] or {}
        return {
            "fairtune": (self, record["choice"]),
            **{name: (self.control(name), entry) for name, entry in controls.items()},
        }

    def read(self) -> dict[str, Any]:
        """Read run.json.

        Raises:
            FileNotFoundError: No run.json here.
            ValueError: A run.json that is not one, or of a newer schema.
        """
        if not self.record_file.is_file():
            raise FileNotFoundError(
                f"--run: expected the folder of an earlier step, with a run.json in it; {self.path} has none. "
                "Give the --out folder of `fairtune search` or `fairtune finetune`."
            )
        try:
            record = json.loads(self.record_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"--run: expected {self.record_file} to be JSON, and it is not ({error}). "
                "Restore the file or run the search again into an empty folder."
            ) from error
        if not isinstance(record, dict):
            raise ValueError(
                f"--run: expected {self.record_file} to hold one JSON object, and it holds a "
                f"{type(record).__name__}. Restore the file or run the search again into an empty folder."
            )
        version = record.get("schema_version", SCHEMA_VERSION)
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise ValueError(
                f"--run: {self.record_file} has schema version {version!r}; this release reads up to "
                f"{SCHEMA_VERSION}. Install a newer fairtune_hf."
            )
        return record

    def update(self, **parts: Any) -> dict[str, Any]:
        """Replace parts of run.json and return the whole record; parts not known yet are null."""
        unknown = set(parts) - set(_PARTS)
        if unknown:
            raise TypeError(
                f"run.json has no part called {', '.join(sorted(unknown))}; it has {', '.join(_PARTS)}."
            )
        record = self.read() if self.record_file.is_file() else {}
        return self.write({**dict.fromkeys(_PARTS), **record, **parts})

    def write(self, record: dict[str, Any]) -> dict[str, Any]:
        """Write run.json whole and return what was written."""
        record = {"schema_version": SCHEMA_VERSION, **record}
        write_text(self.record_file, json.dumps(record, indent=1, allow_nan=False) + "\n")
        return record

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the resolved configuration, from which `--config` repeats the run."""
        write_text(self.config_file, yaml.safe_dump(config, sort_keys=False))

    def read_config(self) -> dict[str, Any]:
        """Read the resolved configuration of the step that made this folder."""
        if not self.config_file.is_file():
            raise FileNotFoundError(
                f"--run: expected {self.config_file}, written by the search; it is not there. "
                "Give the --out folder of `fairtune search` or `fairtune finetune`."
            )
        try:
            config = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(
                f"--run: expected {self.config_file} to be YAML, and it is not ({error}). "
                "Restore the file or run the search again into an empty folder."
            ) from error
        if not isinstance(config, dict):
            raise ValueError(
                f"--run: expected {self.config_file} to hold names and values, and it holds a "
                f"{type(config).__name__}. Restore the file or run the search again into an empty folder."
            )
        return config

    def read_predictions(self) -> pd.DataFrame | None:
        """Read predictions.parquet, or None where no refit has finished.

        Raises:
            ValueError: The file is there and is no table.
        """
        file = self.predictions_file
        if not file.is_file():
            return None
        try:
            return pd.read_parquet(file)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"--run: expected {file} to be a parquet table, and it could not be read ({error}). "
                "Delete it and run `fairtune finetune` on this run again."
            ) from error

    def read_refits(self, choice: Mapping[str, Any]) -> pd.DataFrame | None:
        """Read the predictions of a choice's refits; None where there are none, or those of another choice.

        Args:
            choice: The entry of run.json, of the choice or of a control.
        """
        predictions = self.read_predictions()
        if predictions is None or predictions.attrs.get(_CHOICE) != _mark(choice):
            return None
        return predictions

    def write_refits(self, frame: pd.DataFrame, choice: Mapping[str, Any]) -> None:
        """Write predictions.parquet, marked with the choice they are of."""
        frame.attrs[_CHOICE] = _mark(choice)
        self.write_predictions(frame)

    def take_refits_of(self, twin: RunFolder) -> None:
        """Copy the predictions and the adapter of the same training from another folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        shutil.copytree(twin.adapter, self.adapter, dirs_exist_ok=True)
        predictions = twin.read_predictions()
        if predictions is not None:
            self.write_predictions(predictions)

    def write_predictions(self, frame: pd.DataFrame) -> None:
        """Write predictions.parquet in one step."""
        with _replacing(self.predictions_file) as partial:
            frame.to_parquet(partial, index=False)


def _mark(choice: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a choice another one to train, as it is read back from a file (tuples are lists there)."""
    found = {name: choice[name] for name in _TRAINED if name in choice}
    return dict(json.loads(json.dumps(found)))


def write_text(path: Path, text: str) -> Path:
    """Write a text file so that a reader sees the old one or the new one, never a half."""
    with _replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a name of this process's own to write under; the file takes its place once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
