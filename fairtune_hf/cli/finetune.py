"""`fairtune finetune`: train the chosen mask and its controls, several seeds each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fairtune_hf.cli.arguments import (
    DataArguments,
    DataOptions,
    MaskArguments,
    ModelArguments,
    OutputArguments,
    RefitArguments,
    restore,
)
from fairtune_hf.cli.commands import PARSERS
from fairtune_hf.cli.inputs import (
    check_run,
    claim_run,
    load_model,
    load_table,
    note_identity,
    open_run,
    place_data,
    resolve_config,
)
from fairtune_hf.cli.messages import is_first_process, say, say_next
from fairtune_hf.model_description import needs_description
from fairtune_hf.run_record import FAIRTUNE, RunRecord
from fairtune_hf.search import describe_choice
from fairtune_hf.training import (
    Backbone,
    Candidate,
    FitArguments,
    RunFolder,
    check_same_inputs,
    describe_dataset,
    finetune,
)
from fairtune_hf.training.adapter import adapter_fault
from fairtune_hf.training.identity import check_settings
from fairtune_hf.training.refit import read_done
from fairtune_hf.tuner import Mask

PARSER = PARSERS["finetune"]
_SPLITS = ("train", "validation", "test")


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse, load and check; return the refits to run."""
    (run, refits, mask, data, options, model, training, output), given = PARSER.parse(arguments)
    if run.run is None:
        place_data(data, given)
        return _plan_by_hand(refits, mask, data, options, model, training, output)
    folder = RunFolder(run.run)
    folder.read_chosen()  # says what is missing before anything is loaded
    config = folder.read_config()
    check_settings(folder)
    if "data_root" in given:
        place_data(data, {"dataset"})  # which the run's own record names
        config["data_root"] = data.data_root
    return _plan_refits(folder, config, refits)


def _plan_refits(
    folder: RunFolder, config: dict[str, Any], refits: RefitArguments
) -> Callable[[], None]:
    record = folder.read_chosen()
    training = restore(FitArguments, config)
    seeds = range(training.seed, training.seed + refits.seeds)
    keep = refits.keep_seeds
    for method in record.methods.values():
        Candidate.from_record(method.choice).config()  # refuses a mask that is none
    backbone = load_model(restore(ModelArguments, config))
    data = restore(DataArguments, config)
    options: Any = restore(DataOptions, config)
    table = load_table(data, options, training, backbone, splits=_SPLITS)
    check_run(folder, None, table, backbone)
    check_same_inputs(record, table, backbone)  # all that runs of earlier releases know
    if _is_refitted(folder, record, seeds, keep) and set(_SPLITS) <= record.dataset.rows.keys():
        return lambda: say(f"{folder.path}: all refits are done; nothing to do.")
    _say_what_is_special(folder, record, config)

    def run() -> None:
        if is_first_process():
            note_identity(folder, folder.read_config(), table, backbone)
        finetune(folder, table, backbone, training, seeds=seeds, keep_seeds=keep)
        if record.own.result("test") and not folder.read().own.result("test"):
            say(
                "What was trained anew scores otherwise than before: its earlier evaluation was dropped."
            )
        say(f"Adapter in {folder.adapter}.")
        say_next("evaluate", folder.path)

    return run


def _plan_by_hand(
    refits: RefitArguments,
    mask: MaskArguments,
    data: DataArguments,
    options: Any,
    model: ModelArguments,
    training: FitArguments,
    output: OutputArguments,
) -> Callable[[], None]:
    output.out = output.out or f"runs/{data.dataset}-by-hand"
    config = resolve_config(data, options, model, mask, training)
    folder = open_run(output, config)
    backbone = load_model(model)
    bits = _parse_mask(mask, backbone)
    table = load_table(data, options, training, backbone, splits=_SPLITS)
    check_run(folder, output, table, backbone)
    choice = describe_choice(
        mask=bits,
        layout=mask.layout,
        learning_rate=float(str(mask.learning_rate)),
        blocks=backbone.blocks,
        training=training,
        selected_by="given by hand",
    )

    claim = claim_run(folder, output, config, table, backbone)

    def run() -> None:
        seeds = range(training.seed, training.seed + refits.seeds)
        with claim:
            if is_first_process():
                with folder.editing() as record:
                    record.dataset, record.model = describe_dataset(table), backbone.describe()
                    record.put(FAIRTUNE, choice=choice)
            finetune(folder, table, backbone, training, seeds=seeds, keep_seeds=refits.keep_seeds)
        say(f"Adapter in {folder.adapter}.")
        say_next("evaluate", folder.path)

    return run


def _parse_mask(mask: MaskArguments, backbone: Backbone) -> str:
    try:
        return str(Mask.parse(mask.mask, layout=mask.layout, blocks=backbone.blocks))
    except ValueError as error:
        raise ValueError(f"--mask: {error}") from error


def _say_what_is_special(folder: RunFolder, record: RunRecord, config: dict[str, Any]) -> None:
    """Say that the search goes on elsewhere, and which files of earlier refits are damaged."""
    asked, chosen_of = config.get("trials"), record.own.search.trials
    if isinstance(asked, int) and chosen_of is not None and asked > chosen_of:
        say(
            f"The search was continued to {asked} trials and has not ended; what is trained is its choice of {chosen_of}. "
            f"To end it first: {folder.maker()}"
        )
    for where, method in folder.refits(record).values():
        try:
            predictions = where.read_refits(method.choice)
        except ValueError as error:
            say(f"{where.predictions_file} is damaged and made anew: {error}")
            continue
        fault = None if predictions is None else adapter_fault(where, predictions)
        if fault is not None:
            say(f"The adapter in {where.adapter} is trained again: {fault}.")


def _is_refitted(folder: RunFolder, record: RunRecord, seeds: range, keep_seeds: bool) -> bool:
    """Whether the choice and every control, as they are now, have a described adapter and predictions of all seeds."""
    for where, method in folder.refits(record).values():
        keep = keep_seeds and where is folder
        predictions = read_done(where, method.choice, seeds, keep_seeds=keep)
        if predictions is None or not set(seeds) <= set(predictions["seed"]):
            return False
        if needs_description(where.adapter):
            return False
    return True
