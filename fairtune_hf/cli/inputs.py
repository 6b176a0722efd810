"""What several commands do before they start: load the model and the rows, and look at the folder."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers.utils import logging as transformers_logging

from fairtune_hf.cli.arguments import (
    DataArguments,
    DataOptions,
    EvaluateArguments,
    ExternalArguments,
    ModelArguments,
    OutputArguments,
)
from fairtune_hf.cli.messages import is_first_process, say
from fairtune_hf.data import TRANSFORM_PRESETS, ImageTable, load_dataset_table
from fairtune_hf.data.folder_hf import is_hub_id
from fairtune_hf.data.prepared import prepared_name
from fairtune_hf.inference import Predictor
from fairtune_hf.search import SearchArguments
from fairtune_hf.training import (
    Backbone,
    FitArguments,
    RunFolder,
    check_same_inputs,
    load_backbone,
)
from fairtune_hf.training.identity import (
    MAY_CHANGE,
    PLACES,
    check_identity,
    check_settings,
    has_identity,
    identify,
    record_identity,
)
from fairtune_hf.turn import FileTurn

CLAIM = "config.yaml.lock"  # shared by all that work in a run's folder


def load_model(model: ModelArguments) -> Backbone:
    """Load the checkpoint, or the demo backbone and say so."""
    quiet_libraries()
    if model.model is None:
        say(
            "No --model given: using the embedded demo backbone, a small ViT for trying things out."
        )
    return load_backbone(model.model, revision=model.revision, block_pattern=model.block_pattern)


def quiet_libraries() -> None:
    """Leave out deprecations that the Hugging Face libraries raise in each other: they are not the user's to mend."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers_logging.set_verbosity_error()


def load_table(
    data: DataArguments,
    options: Any,
    training: FitArguments,
    backbone: Backbone | Predictor,
    *,
    splits: tuple[str, ...],
    external: bool = False,
    adjust: Callable[[ImageTable], ImageTable] | None = None,
) -> ImageTable:
    """Load the rows of the given splits, with pictures of the side the model and the preset need.

    With `external` every row is a test row. `adjust` changes the table before its warnings are said.
    """
    training.join_processes()
    preset = TRANSFORM_PRESETS[training.transforms]
    settings = dataclasses.asdict(data)
    table = load_dataset_table(
        settings.pop("dataset"),
        settings.pop("data_root"),
        image_size=preset.stored_side(backbone.image_size),
        seed=training.seed,
        splits=splits,
        external=external,
        **settings,
        **given_options(options),
    )
    if adjust is not None:
        table = adjust(table)
    for warning in table.warnings:
        say(f"Warning: {warning}")
    return table


def place_data(data: DataArguments | ExternalArguments, given: Collection[str]) -> None:
    """Make the data's folder absolute, once, and name the data set where a prepared folder says it.

    Raises:
        ValueError: A folder without the name of a data set, which the folder does not say itself.
    """
    if data.data_root is None:
        return
    if not is_hub_id(data.data_root):
        data.data_root = str(Path(data.data_root).expanduser().absolute())
    if "dataset" in given:
        return
    name = prepared_name(Path(data.data_root))
    if name is None:
        raise ValueError(
            f"--dataset: expected the name of the data set in --data-root {data.data_root}, got none. `fairtune prepare "
            "--list` shows the names; folder is any pictures with a metadata.csv. Only a folder that `fairtune prepare` "
            "wrote says its name itself."
        )
    say(f"{data.data_root} was prepared from the data set {name}.")
    data.dataset = name


def given_options(options: Any) -> dict[str, Any]:
    """Return the data set's options that were given, from a `DataOptions`."""
    return {name: value for name, value in dataclasses.asdict(options).items() if value is not None}


def resolve_config(*parts: Any) -> dict[str, Any]:
    """Join the parsed dataclasses into the flat configuration a run records."""
    config: dict[str, Any] = {}
    for part in parts:
        if not isinstance(part, OutputArguments):
            config |= dataclasses.asdict(part)
    return {name: value for name, value in config.items() if value is not None}


def open_run(output: OutputArguments, config: Mapping[str, Any]) -> RunFolder:
    """Return the folder of a run, new or to be continued; nothing is written.

    Raises:
        ValueError: The folder holds a different run, or something that is no run.
    """
    folder = RunFolder(str(output.out))
    if folder.is_empty():
        return folder
    if not folder.is_a_run():
        raise ValueError(
            f"--out: expected a new or empty folder, or one with an earlier run; {folder.path} holds other files. "
            "Choose another folder."
        )
    if not output.overwrite:
        _require_same(folder, config)
    return folder


def claim_run(
    folder: RunFolder,
    output: OutputArguments,
    config: Mapping[str, Any],
    table: ImageTable,
    backbone: Backbone,
) -> AbstractContextManager[object]:
    """Write what a run is of and its configuration into a folder, which is then this run's; the last step of a plan.

    Of several commands that are started together on one new folder, one writes it; those of the same run
    join it, the others are refused. With `--overwrite` the earlier run is deleted first.

    Returns:
        A context to run in, which tells others that the folder is worked in.

    Raises:
        ValueError: The folder was claimed for a different run; or is to be deleted, and another process works in it.
    """
    PartialState().wait_for_everyone()  # another process may still be looking at the folder
    if not is_first_process():
        return nullcontext()
    folder.path.mkdir(parents=True, exist_ok=True)
    turn, is_alone = _enter(folder)
    if output.overwrite and folder.is_a_run():
        if not is_alone:
            turn.release()
            raise ValueError(
                f"--overwrite: expected a run that nobody works on, and another process works in {folder.path}. "
                "Wait for its end, or end it first."
            )
        folder.clear()
        turn.release()  # its file may be gone with the run
        anew = dataclasses.replace(output, overwrite=False)
        return claim_run(folder, anew, config, table, backbone)
    try:
        if folder.is_a_run():
            _require_same(folder, config)
            check_run(folder, None, table, backbone)
            note_identity(folder, config, table, backbone)
        else:  # the configuration last: with it the folder is claimed
            record_identity(folder, identify(table, backbone, config), table)
        folder.write_config(dict(config))
        turn.share()
    except BaseException:
        turn.release()
        raise
    return turn


def _enter(folder: RunFolder) -> tuple[FileTurn, bool]:
    """Hold a folder alone if nobody else works there, else share it once whoever was first has claimed it."""
    turn = FileTurn(folder.path / CLAIM)
    while not turn.acquire_now():
        turn.share()
        if folder.is_a_run():
            return turn, False
        turn.release()  # who was first is gone
    return turn, True


def _require_same(folder: RunFolder, config: Mapping[str, Any]) -> None:
    stored = folder.read_config()
    # Settings that the release of that run did not have are as they were without them.
    before = {name: value for name, value in _defaults().items() if name in config} | stored
    free = MAY_CHANGE | (PLACES if has_identity(folder) else frozenset())
    different = sorted(
        key for key in {*before, *config} - free if before.get(key) != config.get(key)
    )
    if different:
        changes = "; ".join(
            f"{key} was {before.get(key)!r}, now {config.get(key)!r}" for key in different
        )
        raise ValueError(
            f"--out: expected a new folder or one of this same run; {folder.path} holds a different run ({changes}). "
            "Choose another --out, or add --overwrite to delete that run."
        )


def _defaults() -> dict[str, Any]:
    kinds = (DataArguments, DataOptions, ModelArguments, SearchArguments, FitArguments)
    return resolve_config(*(kind() for kind in (*kinds, EvaluateArguments)))


def check_run(
    folder: RunFolder, output: OutputArguments | None, table: ImageTable, backbone: Backbone
) -> None:
    """Refuse to go on with a run on other data, another model or other settings than it is of.

    Args:
        folder: The run, new or to be continued.
        output: Where `--overwrite` was given, the run begins anew and nothing is compared.
        table: The data as they are now.
        backbone: The model as it is now.

    Raises:
        ValueError: Something changed; the message says what.
    """
    if (output is not None and output.overwrite) or not folder.is_a_run():
        return
    check_settings(folder)
    check_identity(folder, table, backbone)
    record = folder.read_if_whole()
    if record is not None and record.dataset and record.model:
        check_same_inputs(record, table, backbone)


def note_identity(
    folder: RunFolder, config: Mapping[str, Any], table: ImageTable, backbone: Backbone
) -> None:
    """Write what an earlier run is of, unless it is known, and say that it was not.

    The first process does this, once the run's folder is its own.
    """
    if not has_identity(folder):
        say(
            f"{folder.path} is a run of an earlier release, which did not keep what it is of: changes of data or model "
            "since then could not be noticed. It is kept from now on."
        )
        record_identity(folder, identify(table, backbone, config), table)
