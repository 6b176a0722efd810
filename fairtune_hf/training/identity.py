"""What a run is of: data, pictures, weights and settings, kept at its start, compared at every step.

`identity.json` in a run's folder holds a digest of each part (so that equal ones are seen at once)
and what can be told in words: label names, the model's normalisation and configuration, settings.
`identity.parquet` holds a line for each row under keyed hashes of its ids, so that a difference is
counted. Neither leaves the folder. Row order is part of a run: the batches follow from it. Folders
may move, and the budget, device and number of processes may change.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import PartialState

from fairtune_hf.data import ImageTable
from fairtune_hf.data.fingerprint import (
    Fingerprint,
    name_changes,
    new_key,
    number_range,
    real_ids,
)
from fairtune_hf.run_folder import RunFolder, write_text
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.whole_files import replacing

FILE, ROWS = "identity.json", "identity.parquet"
SCHEMA_VERSION = 1
# A run may be continued from another place, with a larger budget, by more workers, on another machine, or with
# its data moved.
MAY_CHANGE = frozenset(
    {
        "out", "overwrite", "trials", "hours", "trained_epochs", "workers", "storage", "study_name",
        "data_root", "compile", "images_on", "threads",
    }
)  # fmt: skip
# Names of what is compared by its content.
PLACES = frozenset({"model", "revision", "splits_file"})
# What a library writes of itself, the labels (ours), and how outputs are returned.
_NOT_OF_THE_MODEL = frozenset(
    {
        "transformers_version", "torch_dtype", "dtype", "architectures", "id2label", "label2id", "num_labels",
        "num_classes", "label_names", "problem_type", "return_dict", "output_attentions", "output_hidden_states",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a run is of; see the module."""

    data: dict[str, str] = field(metadata={"help": "digest of each part of the table"})
    described: dict[str, Any] = field(metadata={"help": "of the table, what can be told in words"})
    model: dict[str, Any] = field(metadata={"help": "weights, normalisation and configuration"})
    settings: dict[str, Any] = field(metadata={"help": "the configuration without what may change"})

    @property
    def digest(self) -> str:
        """One digest of it all."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def identify(table: ImageTable, backbone: Backbone, settings: Mapping[str, Any]) -> Identity:
    """Say what a run on a table with a model and settings is of.

    Raises:
        ValueError: The table was not made by `load_dataset_table`.
    """
    return Identity(
        data=dict(_fingerprint(table).parts),
        described=_describe_table(table) | _describe_patients(table),
        model=describe_model(backbone),
        settings=fixed_settings(settings),
    )


def inputs_of(identity: Identity) -> dict[str, Any]:
    """Return what an identity says of data and model; nothing in it is of one row."""
    whole = dataclasses.asdict(identity)
    return {name: whole[name] for name in ("data", "described", "model")}


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what differs between the data and models of two identities, see `inputs_of`, without counts."""
    names = ("dataset", "sensitive", "groups", "label names", "picture side")
    changes = _differences(
        "", *({n: side["described"].get(n) for n in names} for side in (before, now))
    )
    parts = {*before["data"], *now["data"]}
    other = sorted(part for part in parts if before["data"].get(part) != now["data"].get(part))
    changes += [f"other {part}" for part in other]
    return changes + _differences("model", before["model"], now["model"])


def fixed_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that bear on what a run finds, as they are read back from a file."""
    fixed = {k: v for k, v in config.items() if k not in MAY_CHANGE | PLACES and v is not None}
    return dict(_plain(fixed))


def describe_model(backbone: Backbone) -> dict[str, Any]:
    """Return the weights' hash and all that decides what pictures become in the model."""
    fields = (f.name for f in dataclasses.fields(backbone))
    own = {n: getattr(backbone, n) for n in fields if n not in ("model", "id", "revision")}
    told = {"weights": own.pop("sha256"), **own}
    told |= {f"config.{n}": v for n, v in _flat(backbone.model.config.to_dict()).items()}
    return dict(_plain(told))


def record_identity(folder: RunFolder, identity: Identity, table: ImageTable) -> None:
    """Write what a run is of into its folder, on the first process."""
    if not PartialState().is_main_process:
        return
    key = new_key()
    folder.path.mkdir(parents=True, exist_ok=True)
    with replacing(folder.path / ROWS) as partial:
        _fingerprint(table).keyed_rows(key).to_parquet(partial, index=False)
    content = {"schema_version": SCHEMA_VERSION, "digest": identity.digest, "key": key}
    content |= dataclasses.asdict(identity)
    write_text(folder.path / FILE, json.dumps(content, indent=1) + "\n")


def has_identity(folder: RunFolder) -> bool:
    """Whether it is known what a run is of; it is not of runs of earlier releases."""
    return (folder.path / FILE).is_file()


def check_identity(folder: RunFolder, table: ImageTable, backbone: Backbone) -> None:
    """Refuse other data or weights than a run is of; nothing is said of runs that do not know it.

    Args:
        folder: The run.
        table: The data as they are now; one made by hand is not compared.
        backbone: The model as it is now.

    Raises:
        ValueError: Something changed; the message says what.
    """
    held = read_identity(folder)
    if held is None:
        return
    changes = _changed_data(folder, held, table)
    changes += _differences("model", held["model"], describe_model(backbone))
    _refuse(folder, changes)


def check_settings(folder: RunFolder) -> None:
    """Refuse a config.yaml that was edited since the run began.

    Raises:
        ValueError: A setting that bears on what the run finds is another.
    """
    held = read_identity(folder)
    if held is None or not folder.config_file.is_file():
        return
    now = fixed_settings(folder.read_config())
    changes = _differences("", held["settings"], now, only_common=False)
    _refuse(folder, [f"in {folder.config_file.name}: {'; '.join(changes)}"] if changes else [])


def check_model(folder: RunFolder, backbone: Backbone) -> None:
    """Refuse another base model than the run's.

    Raises:
        ValueError: Other weights, normalisation or configuration.
    """
    held = read_identity(folder)
    if held is not None:
        _refuse(folder, _differences("model", held["model"], describe_model(backbone)))


def keep_identity(folder: RunFolder, table: ImageTable, backbone: Backbone, *settings: Any) -> None:
    """Check what a run is of, or write it where it is not known; for callers from Python.

    Args:
        folder: The run.
        table: Its data; one made by hand is neither compared nor written.
        backbone: Its model.
        *settings: Dataclasses with its settings; of a known run those of the training are compared.

    Raises:
        ValueError: Something changed; the message says what.
    """
    held = read_identity(folder)
    if held is None:
        if table.fingerprint is not None:
            config = {k: v for part in settings for k, v in dataclasses.asdict(part).items()}
            if folder.is_a_run():
                config = folder.read_config()
            record_identity(folder, identify(table, backbone, config), table)
        return
    check_identity(folder, table, backbone)
    for part in settings:
        if isinstance(part, FitArguments):
            names = dataclasses.asdict(part)
            now = fixed_settings(names)
            before = {k: v for k, v in held["settings"].items() if k in names}
            _refuse(folder, _differences("", before, now, only_common=False))


def read_identity(folder: RunFolder) -> dict[str, Any] | None:
    """Read identity.json; None where the run has none.

    Raises:
        ValueError: The file is damaged.
    """
    file = folder.path / FILE
    if not file.is_file():
        return None
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        names = ("data", "described", "model", "settings")
        known = Identity(**{name: held[name] for name in names})
        whole = held["digest"] == known.digest
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(file, str(error)) from error
    if not whole:
        raise _damaged(file, "it was edited")
    return dict(held)


def read_rows(folder: RunFolder) -> pd.DataFrame | None:
    """Read the keyed rows of a run; None where they are not there or cannot be read."""
    try:
        return pd.read_parquet(folder.path / ROWS)
    except (OSError, ValueError):
        return None  # the digests of the parts are compared all the same, without counts


def _damaged(file: Path, reason: str) -> ValueError:
    return ValueError(
        f"--run: expected {file} to say what the run is of, and it is damaged ({reason}). Restore it; if that cannot be "
        "done, delete it: what changed since the run began is then not noticed."
    )


def _refuse(folder: RunFolder, changes: list[str]) -> None:
    if changes:
        raise ValueError(
            f"{folder.path} is a run of something else than what is here now: {'; '.join(changes)}. Restore what changed, "
            "or begin a new run in another folder."
        )


def _fingerprint(table: ImageTable) -> Fingerprint:
    if table.fingerprint is None:
        raise ValueError(
            "table: expected one made by load_dataset_table, which knows what it is of; got one made by hand. "
            "Load it by its name."
        )
    return table.fingerprint


def _describe_table(table: ImageTable) -> dict[str, Any]:
    told = {
        "dataset": table.name,
        "sensitive": table.sensitive,
        "groups": table.groups,
        "label names": table.label_names,
        "picture side": table.images.shape[1],
    }
    return dict(_plain(told))


def _describe_patients(table: ImageTable) -> dict[str, Any]:
    """Say what another data set's patients must be ids of to be the same people; see `overlap`."""
    ids = real_ids(_fingerprint(table).frame["patient_id"])
    return {"patients of": patient_source(table), "patient number range": number_range(ids)}


def patient_source(table: ImageTable) -> str | None:
    """Say what the patient ids of a table are ids of; None where it has none."""
    if table.name != "folder":
        return f"data set {table.name}"
    column = table.options.get("patient_column")
    return f"column {column!r}" if column else None


def _changed_data(folder: RunFolder, held: dict[str, Any], table: ImageTable) -> list[str]:
    if table.fingerprint is None:
        return []
    changes = _differences("", held["described"], _describe_table(table))
    parts = table.fingerprint.parts
    if held["data"] == parts:
        return changes
    return changes + name_changes(held["data"], table.fingerprint, read_rows(folder), held["key"])


def _differences(
    what: str, before: Mapping[str, Any], now: Mapping[str, Any], *, only_common: bool = True
) -> list[str]:
    """Say which values are others; of names that one side alone has only where asked for."""
    names = before.keys() & now.keys() if only_common else before.keys() | now.keys()
    changed = [n for n in [*before, *now] if n in names and before.get(n) != now.get(n)]
    told = []
    for name in dict.fromkeys(changed):
        full = f"{what} {name}".strip()
        if name == "weights":
            told.append(f"other weights (sha256 {str(now[name])[:12]}, was {before[name][:12]})")
        else:
            told.append(f"{full} {_shown(now.get(name))}, was {_shown(before.get(name))}")
    return told


def _shown(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give each value of a nested configuration its dotted name."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if name in _NOT_OF_THE_MODEL or str(name).startswith("_"):
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _plain(value: Any) -> Any:
    """Return a value as it is read back from JSON."""
    return json.loads(json.dumps(value, default=str))
