"""What belongs to a model whose adapter does not say it itself, from the record of its run."""

from __future__ import annotations

from typing import Any

from fairtune_hf.data import TRANSFORM_PRESETS
from fairtune_hf.data.prepared import prepared_side
from fairtune_hf.model_description import BaseRecord, InputRecord, ModelDescription, OperatingPoint
from fairtune_hf.plain_data import to_plain
from fairtune_hf.run_folder import RunFolder


def describe_run(folder: RunFolder) -> ModelDescription:
    """Describe the adapter of a run by its run.json and config.yaml.

    Raises:
        ValueError: They do not say what a picture goes through.
    """
    record = folder.read_chosen()
    config = folder.read_config() if folder.config_file.is_file() else {}
    names = dict(enumerate(record.dataset.label_names))
    test = record.own.result("test")
    threshold = test.value("threshold") if test else None
    return ModelDescription(
        fairtune_hf=str(record.versions.get("fairtune_hf", "an earlier release")),
        id2label={str(code): name for code, name in names.items()},
        label2id={name: code for code, name in names.items()},
        base=BaseRecord(
            id=record.model.id,
            revision=record.model.revision,
            sha256=record.model.sha256,
            block_pattern=config.get("block_pattern"),
        ),
        input=_input(folder, record.model.input, config, record.dataset.options),
        dataset=record.dataset.name,
        sensitive=record.dataset.sensitive,
        seed=record.own.refit().seed if record.own.seeds else record.choice.seed,
        operating_point=None if threshold is None else OperatingPoint(threshold=threshold),
        measured_on="test" if test else None,
        groups={name: to_plain(found) for name, found in test.groups.items()},
    )


def _input(
    folder: RunFolder, told: Any, config: dict[str, Any], options: dict[str, Any]
) -> InputRecord:
    if not isinstance(told, dict) or not {"image_size", "image_mean", "image_std"} <= told.keys():
        raise ValueError(
            f"model: expected {folder.record_file} to say what the model was fed (model.input), and it does not, as in runs "
            "of the first releases. Run `fairtune finetune` of this release on the run, which writes it beside the adapter."
        )
    preset = TRANSFORM_PRESETS[config.get("transforms", "none")]
    stored = preset.stored_side(told["image_size"])
    first = prepared_side(config.get("data_root"))
    return InputRecord(
        image_size=told["image_size"],
        image_mean=told["image_mean"],
        image_std=told["image_std"],
        stored_sides=[stored] if first in (None, stored) else [first, stored],
        depth16=str(options.get("depth16", "minmax")),
    )
