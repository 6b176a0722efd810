"""A run's folder: where each file of a run lies, and how it is written without leaving halves.

Every step reads what the step before left here and nothing else. A file that is damaged is said to be,
by whoever only reads it, and counts as absent for the step that makes it. Imports neither torch nor
another package of ours, so that reports can read and write runs too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml

from fairtune_hf.checksums import LOCK, NOTES, hash_files, read_noted, write_noted
from fairtune_hf.plain_data import parse_yaml
from fairtune_hf.record_reader import parse_record
from fairtune_hf.run_record import SCHEMA_VERSION, ChoiceRecord, MethodRecord, RunRecord
from fairtune_hf.whole_files import (
    is_left_over,
    remove,
    remove_left_overs,
    replacing,
    replacing_folder,
)
from fairtune_hf.whole_files import write_text as write_text

_IN_EVERY_CONFIG = {"dataset", "transforms", "class_weight"}  # what every run's configuration has
_CHOICE, _ADAPTER = "choice", "adapter"  # attributes of predictions.parquet
_COLUMNS = frozenset({"row_id", "seed", "split", "label", "score"})
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# What the steps put into a run's folder, and nobody else.
OURS = frozenset(
    [
        *("run.json", "config.yaml", "trials.csv", "curves.csv", "predictions.parquet"),
        *("report.html", "README.md", "claim", "best_trial.lock", "study.sqlite3.lock"),
        *("finetune.lock", "config.yaml.lock", "identity.json", "identity.parquet", NOTES, LOCK),
        # Halves of the one process that holds the lock of their kind.
        *(".study.sqlite3.partial", ".best_trial.partial", ".best_trial.old"),
        *(f"comparison.{kind}" for kind in ("csv", "html", "md", "tex")),
        *(f"study.sqlite3{end}" for end in ("", "-wal", "-shm", "-journal")),
        *("adapter", "best_trial", "figures", "seeds", "shared", "tensorboard", "wandb", "workers"),
    ]
)
# What is written before config.yaml, with which the folder is a run's.
_BEFORE = frozenset(["config.yaml.lock", "identity.json", "identity.parquet"])
# Folders of folders like a run's.
_OF_RUNS = ("controls", "control_searches", "external", "methods")
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

    def kept_adapter(self, seed: int) -> Path:
        """Return where the adapter of a further refit lies, if it was asked to be kept."""
        return self.path / "seeds" / str(seed)

    def kept_seeds(self) -> list[int]:
        """Return the further refits whose adapters are there, in the order of their seeds."""
        folders = (self.path / "seeds").glob("*")
        whole = (f for f in folders if all((f / name).is_file() for name in ADAPTER_FILES))
        return sorted(int(f.name) for f in whole if f.name.isdecimal())

    def is_a_run(self) -> bool:
        """Whether a search, refit or comparison was begun here; any project may have a config.yaml.

        Raises:
            ValueError: The config.yaml cannot be read.
        """
        return self.config_file.is_file() and self.read_config().keys() >= _IN_EVERY_CONFIG

    def control(self, name: str) -> RunFolder:
        """Return the folder of a control, laid out like the run's own."""
        return RunFolder(self.path / "controls" / name)

    def refits(self, record: RunRecord) -> dict[str, tuple[RunFolder, MethodRecord]]:
        """Return the folder and the record of each method that was chosen or is a control, by name."""
        return {
            name: (self if name == record.chosen else self.control(name), method)
            for name, method in record.methods.items()
        }

    def read(self) -> RunRecord:
        """Read run.json.

        Raises:
            FileNotFoundError: No run.json here.
            ValueError: A run.json that is not one, or of a newer schema.
        """
        if not self.record_file.is_file():
            raise FileNotFoundError(f"--run: {self._why_no_record()}")
        try:
            record = self._parse_record()
        except ValueError as error:
            raise ValueError(
                f"--run: expected {self.record_file} to be the record of a run, and {error}. {self._how_to_rebuild()}"
            ) from error
        return self._of_known_schema(record)

    def _parse_record(self) -> RunRecord:
        return parse_record(read_noted(self.record_file).decode("utf-8"))

    def _of_known_schema(self, record: RunRecord) -> RunRecord:
        if record.schema_version > SCHEMA_VERSION:
            raise ValueError(
                f"--run: {self.record_file} has schema version {record.schema_version!r}; this release reads up to "
                f"{SCHEMA_VERSION}. Install a newer fairtune_hf."
            )
        return record

    def read_if_whole(self) -> RunRecord | None:
        """Read run.json; None where there is none or a damaged one, which the caller is about to make anew.

        Raises:
            ValueError: A run.json of a newer schema.
        """
        if not self.record_file.is_file():
            return None
        try:
            record = self._parse_record()
        except ValueError:
            return None
        return self._of_known_schema(record)

    def read_chosen(self) -> RunRecord:
        """Read the run.json of a run whose search has made its choice.

        Raises:
            FileNotFoundError: No run.json here.
            ValueError: A run.json that is not one, or without a choice.
        """
        record = self.read()
        if record.chosen is None:
            raise ValueError(f"--run: {self._why_no_run()}")
        if not (record.dataset and record.model and record.choice):
            raise ValueError(f"--run: {self._why_no_choice()}")
        return record

    def _why_no_run(self) -> str:
        return (
            f"expected the folder of one run, and {self.path} holds a comparison. Give one of its methods, "
            f"{self.path / 'methods' / 'NAME'}; `fairtune report --runs {self.path / 'methods'}/*` sets them side by side."
        )

    def _why_no_record(self) -> str:
        if (self.path / "methods").is_dir():
            return self._why_no_run()
        if self.config_file.is_file() and self.is_a_run():
            return self._why_no_choice()
        return (
            f"expected the folder of an earlier step, with a run.json in it; {self.path} has none. "
            "Give the --out folder of `fairtune search` or `fairtune finetune`."
        )

    def _why_no_choice(self) -> str:
        asked = self.read_config().get("trials") if self.config_file.is_file() else None
        done = _count_ended(self.trials_file)
        progress = f" ({done} of {asked} trials have ended)" if asked and done is not None else ""
        return (
            f"expected a search that has made its choice, and the one in {self.path} is not finished{progress}. "
            f"Go on with `{self.maker()}`; what was finished is kept."
        )

    def _how_to_rebuild(self) -> str:
        return f"`{self.maker()}` writes it anew, from what is in the folder; nothing that is there is trained again."

    def maker(self) -> str:
        """Return the command that made this folder, as far as the folder tells; it goes on or mends what is there."""
        if self.path.parent.name == "methods":
            return f"fairtune compare ... --out {self.path.parent.parent}"
        if (self.path / "methods").is_dir():
            return f"fairtune compare ... --out {self.path}"
        if not self.config_file.is_file():
            return f"fairtune search ... --out {self.path}"
        by_hand = {"mask", "learning_rate"} <= self.read_config().keys()
        command = f"fairtune {'finetune' if by_hand else 'search'}"
        return f"{command} --config {self.config_file} --out {self.path}"

    @contextmanager
    def editing(self) -> Iterator[RunRecord]:
        """Give the record to change, a new one where there is none or a damaged one, and write it."""
        record = self.read_if_whole() or RunRecord()
        yield record
        self.write(record)

    def write(self, record: RunRecord) -> RunRecord:
        """Write run.json whole and return what was written."""
        text = json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n"
        write_noted(self.path, {self.record_file.name: text})
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
            config = parse_yaml(self.config_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"--run: expected {self.config_file} to hold the settings of a run, and {error}. "
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
            frame = pd.read_parquet(file, engine="pyarrow", page_checksum_verification=True)
            if missing := sorted(_COLUMNS - set(frame.columns)):
                raise ValueError(f"it has no column {', '.join(missing)}")
        except (ValueError, OSError, pa.ArrowException) as error:
            raise ValueError(
                f"--run: expected {file} to hold the predictions of refits, and it could not be read ({error}). "
                "Run `fairtune finetune --run` on this run again: it trains anew what is damaged."
            ) from error
        return frame

    def read_refits(self, choice: ChoiceRecord) -> pd.DataFrame | None:
        """Read the predictions of a choice's refits; None where there are none, or those of another choice.

        Raises:
            ValueError: The file is there and is no table.
        """
        predictions = self.read_predictions()
        if predictions is None:
            return None
        held = predictions.attrs.get(_CHOICE)
        return predictions if isinstance(held, dict) and _known(held) == _mark(choice) else None

    def read_whole_refits(self, choice: ChoiceRecord) -> pd.DataFrame | None:
        """Read the predictions of a choice's refits; None where they are absent, of another choice, or damaged."""
        try:
            return self.read_refits(choice)
        except ValueError:
            return None

    def write_refits(
        self,
        frame: pd.DataFrame,
        choice: ChoiceRecord,
        adapter: Mapping[str, str] | None = None,
    ) -> None:
        """Write predictions.parquet, marked with the choice and the adapter they are of.

        Args:
            frame: Predictions of all seeds so far.
            choice: What was trained.
            adapter: What `digest_adapter` returned when the adapter was saved.
        """
        frame.attrs[_CHOICE] = _mark(choice)
        if adapter is not None:
            frame.attrs[_ADAPTER] = dict(adapter)
        self.write_predictions(frame)

    def digest_adapter(self) -> dict[str, str]:
        """Return the sha256 of each file of the adapter.

        Raises:
            FileNotFoundError: A file is missing.
        """
        return {name: hash_files([self.adapter / name]) for name in ADAPTER_FILES}

    def noted_adapter(self, predictions: pd.DataFrame) -> dict[str, str] | None:
        """Return the digests of the adapter that predictions are of; None where they were not kept."""
        noted = predictions.attrs.get(_ADAPTER)
        return dict(noted) if isinstance(noted, Mapping) else None

    def take_refits_of(self, twin: RunFolder) -> None:
        """Copy the predictions and the adapter of the same training from another folder."""
        with replacing_folder(self.adapter) as partial:
            shutil.copytree(twin.adapter, partial, dirs_exist_ok=True)
        predictions = twin.read_predictions()
        if predictions is not None:
            self.write_predictions(predictions)

    def is_empty(self) -> bool:
        """Whether nothing is here but what a command left that was killed before it claimed the folder."""
        return not self.path.exists() or all(
            entry.name in _BEFORE or is_left_over(entry, OURS) for entry in self.path.iterdir()
        )

    def clear(self) -> None:
        """Delete all that the steps wrote here; what is somebody else's stays."""
        remove_left_overs(self.path, OURS)
        for inner in self.path.glob("*/*/"):
            if inner.parent.name in _OF_RUNS:
                RunFolder(inner).clear()
        for name in _OF_RUNS:
            _remove_if_empty(self.path / name)
        for entry in list(self.path.iterdir()):
            if entry.name == "confirm":
                RunFolder(entry).clear()
            elif entry.name in OURS:
                remove(entry)
        _remove_if_empty(self.path)

    def write_predictions(self, frame: pd.DataFrame) -> None:
        """Write predictions.parquet in one step."""
        with replacing(self.predictions_file) as partial:
            frame.to_parquet(partial, engine="pyarrow", index=False, write_page_checksum=True)


def _mark(choice: ChoiceRecord) -> dict[str, Any]:
    """What makes a choice another one to train, as it is read back from a file (tuples are lists there)."""
    found = _known({name: getattr(choice, name) for name in _TRAINED})
    return dict(json.loads(json.dumps(found)))


def _known(mark: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in mark.items() if value is not None}


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _count_ended(trials_file: Path) -> int | None:
    """Count the complete and pruned trials of a trials.csv; None where it cannot be read."""
    try:
        states = pd.read_csv(trials_file, usecols=["state"])["state"]
    except (OSError, ValueError):
        return None
    return int(states.isin(["COMPLETE", "PRUNED"]).sum())
