"""What is written beside an adapter's weights: what pictures go through, labels, and a short card.

PEFT's own card is a page of blanks that names a folder of this machine; it is not kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fairtune_hf.data import DATASETS, TRANSFORM_PRESETS, ImageTable, dataset_spec
from fairtune_hf.data.appearance import describe_pictures
from fairtune_hf.data.declaration import DatasetSpec
from fairtune_hf.model_description import (
    FILE,
    PROCESSOR,
    BaseRecord,
    InputRecord,
    ModelDescription,
    processor_config,
)
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.tuner import FairMaskConfig, own_pattern
from fairtune_hf.whole_files import write_text

_PEFTS_CARD = "README.md"


def describe_adapter(
    table: ImageTable, backbone: Backbone, transforms: str, seed: int
) -> ModelDescription:
    """Describe what belongs to an adapter before anything is measured.

    Args:
        table: What it was trained on; the training rows say what pictures are like.
        backbone: Its base model.
        transforms: The preset of augmentation, which decides how large pictures are stored.
        seed: Of its training.
    """
    names = dict(enumerate(table.label_names))
    stored = (TRANSFORM_PRESETS[transforms].stored_side(backbone.image_size),)
    return ModelDescription(
        id2label={str(code): name for code, name in names.items()},
        label2id={name: code for code, name in names.items()},
        base=BaseRecord(
            id=backbone.id,
            revision=backbone.revision,
            sha256=backbone.sha256,
            block_pattern=own_pattern(backbone.model),
        ),
        input=InputRecord(
            image_size=backbone.image_size,
            image_mean=list(backbone.image_mean),
            image_std=list(backbone.image_std),
            stored_sides=list(table.stored_sides or stored),
            depth16=str(table.options.get("depth16", "minmax")),
            made_from=_made_from(table),
        ),
        dataset=table.name,
        sensitive=table.sensitive,
        seed=seed,
        pictures=describe_pictures(table.subset("train")),
    )


def _made_from(table: ImageTable) -> str | None:
    """Say how a known data set's arrays or volumes became pictures; None where there were files of pictures."""
    if table.name not in DATASETS:
        return None
    told = dataset_spec(table.name).preprocessing
    return None if told == DatasetSpec.preprocessing else told


def save_adapter(model: Any, folder: Path, described: ModelDescription) -> None:
    """Write an adapter's weights and configuration, and all that belongs to it, into a folder.

    Args:
        model: A model of PEFT.
        folder: Where; nobody reads it yet.
        described: What belongs to it.
    """
    for config in model.peft_config.values():
        _find_base_from_anywhere(config)
        if isinstance(config, FairMaskConfig):
            config.id2label = dict(described.id2label)
    model.save_pretrained(str(folder))
    write_description(folder, described)


def write_description(folder: Path, described: ModelDescription) -> None:
    """Write what belongs to an adapter, its processor and its card beside the weights."""
    write_text(folder / PROCESSOR, json.dumps(processor_config(described.input), indent=1) + "\n")
    write_text(folder / _PEFTS_CARD, _card(described))
    described.write(folder)


def remove_blank_card(folder: Path) -> None:
    """Take away the card that PEFT writes beside weights."""
    (folder / _PEFTS_CARD).unlink(missing_ok=True)


def _find_base_from_anywhere(config: Any) -> None:
    """Name a base model that is a folder by its whole path, so that the adapter loads from any folder."""
    base = config.base_model_name_or_path
    if base and Path(base).is_dir():
        config.base_model_name_or_path = str(Path(base).absolute())


def _card(described: ModelDescription) -> str:
    names = " or ".join(f"`{name}` ({code})" for code, name in described.id2label.items())
    return (
        "# An adapter trained by fairtune_hf\n\n"
        f"It tells {names} apart in pictures like those of the data set {described.dataset}; its groups were those of "
        f"{described.sensitive}.\n\n"
        "```console\n$ fairtune predict --run RUN PICTURES\n```\n\n"
        '```python\nfrom fairtune_hf import load_predictor\n\nprint(load_predictor("RUN")(["picture.png"]))\n```\n\n'
        f"`RUN` is the folder around this one, or this one. `{FILE}` says what a picture goes through, from which score on "
        f"it is called `{described.id2label.get('1', 1)}`, and what was measured in each group; `{PROCESSOR}` is as near to it "
        "as an image processor of transformers comes. `fairtune report` writes the model card.\n\n"
        "For research; not a medical device.\n"
    )
