"""What several commands do before they start: load the model and the rows, and look at the folder."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from collections.abc import Mapping
from typing import Any

from transformers.utils import logging as transformers_logging

from fairtune_hf.cli.arguments import DataArguments, ModelArguments, OutputArguments
from fairtune_hf.cli.messages import is_first_process, say
from fairtune_hf.data import TRANSFORM_PRESETS, ImageTable, load_dataset_table
from fairtune_hf.training import Backbone, FitArguments, RunFolder, load_backbone

# A run may be continued from another place, with a larger budget, by more workers, on another machine, or with
# its data moved.
MAY_CHANGE = frozenset(
    {
        "out",
        "overwrite",
        "trials",
        "hours",
        "trained_epochs",
        "workers",
        "storage",
        "study_name",
        "data_root",
        "compile",
        "images_on",
    }
)


def load_model(model: ModelArguments) -> Backbone:
    """Load the checkpoint, or the demo backbone and say so."""
    # Deprecations that the Hugging Face libraries raise in each other are not the user's to mend.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers_logging.set_verbosity_error()
    if model.model is None:
        say(
            "No --model given: using the embedded demo backbone, a small ViT for trying things out."
        )
    return load_backbone(model.model, revision=model.revision)


def load_table(
    data: DataArguments,
    options: Any,
    training: FitArguments,
    backbone: Backbone,
    *,
    splits: tuple[str, ...],
) -> ImageTable:
    """Load the rows of the given splits, with pictures of the side the model and the preset need."""
    training.join_processes()
    preset = TRANSFORM_PRESETS[training.transforms]
    settings = dataclasses.asdict(data)
    table = load_dataset_table(
        settings.pop("dataset"),
        settings.pop("data_root"),
        image_size=round(backbone.image_size * preset.stored_over_model),
        seed=training.seed,
        splits=splits,
        **settings,
        **given_options(options),
    )
    for warning in table.warnings:
        say(f"Warning: {warning}")
    return table


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
    if not folder.path.exists() or not any(folder.path.iterdir()):
        return folder
    if not folder.is_a_run():
        raise ValueError(
            f"--out: expected a new or empty folder, or one with an earlier run; {folder.path} holds other files. "
            "Choose another folder."
        )
    if output.overwrite:
        return folder
    before = folder.read_config()
    different = sorted(
        key for key in {*before, *config} - MAY_CHANGE if before.get(key) != config.get(key)
    )
    if different:
        changes = "; ".join(
            f"{key} was {before.get(key)!r}, now {config.get(key)!r}" for key in different
        )
        raise ValueError(
            f"--out: expected a new folder or one of this same run; {folder.path} holds a different run ({changes}). "
            "Choose another --out, or add --overwrite to delete that run."
        )
    return folder


def clear_if_asked(folder: RunFolder, output: OutputArguments) -> None:
    """Delete the earlier run where `--overwrite` was given; only a folder that holds a run is deleted."""
    if output.overwrite and is_first_process() and folder.is_a_run():
        shutil.rmtree(folder.path)
