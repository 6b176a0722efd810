"""A run that an earlier step left in a folder: found, measured, or used on other data."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairtune_hf.cli.arguments import (
    AuditArguments,
    DataArguments,
    EvaluateArguments,
    ExternalArguments,
    ModelArguments,
    RunArguments,
    restore,
)
from fairtune_hf.cli.inputs import load_model, load_table, place_data
from fairtune_hf.cli.label_names import agree_labels
from fairtune_hf.cli.messages import is_first_process, say, say_next
from fairtune_hf.data import ImageTable
from fairtune_hf.metrics import evaluate_predictions
from fairtune_hf.model_description import read_description
from fairtune_hf.naming import flag_of
from fairtune_hf.plain_data import read_as
from fairtune_hf.reports import evaluate_run, format_table
from fairtune_hf.run_record import FAIRTUNE, Result, RunRecord, SeedRecord
from fairtune_hf.training import (
    Backbone,
    FitArguments,
    RunFolder,
    check_same_base,
    describe_dataset,
    score_external,
)
from fairtune_hf.training.external import require_adapter
from fairtune_hf.training.identity import check_model, check_settings
from fairtune_hf.training.overlap import Overlap, find_overlap

_OF_OTHER_DATA = (
    "data_root",
    "sensitive",
    "split_column",
    "label_column",
    "sensitive_column",
    "patient_column",
    "positive_label",
)


def place_external(external: ExternalArguments, given: Collection[str]) -> None:
    """Find the other data set, if there is one; refuse flags of one without its name.

    Raises:
        ValueError: Flags that say what of another data set is read, and none is named.
    """
    place_data(external, given)
    idle = [flag_of(name) for name in _OF_OTHER_DATA if name in given]
    if external.dataset is None and idle:
        raise ValueError(
            f"{', '.join(idle)}: expected --dataset beside it, the name of another data set to score, or --predictions; "
            "got neither. Without them the run's own predictions are measured."
        )


def plan_evaluation(folder: RunFolder, evaluation: EvaluateArguments) -> Callable[[], None]:
    """Check that the refits are there; return their measurement."""
    require_predictions(folder)

    def execute() -> None:
        record = evaluate_run(
            folder.path, n_resamples=evaluation.resamples, seed=evaluation.bootstrap_seed
        )
        print(format_table(record))
        print(record.verdict)
        _print_doubts(record.own.result("test").warnings)
        say_next("report", folder.path)
        say_next("predict", folder.path, "PICTURE.png")

    return execute


def plan_external(
    folder: RunFolder,
    evaluation: EvaluateArguments,
    audit: AuditArguments,
    external: ExternalArguments,
    options: Any,
) -> Callable[[], None]:
    """Load the run's base and the other data set; return its scoring and measurement."""
    require_adapter(folder)
    config = folder.read_config()
    training = restore(FitArguments, config)
    backbone = load_model(restore(ModelArguments, config))
    check_model(folder, backbone)
    check_same_base(folder.read(), backbone)
    table = _load_external(folder, audit, external, options, training, backbone)
    # Of the names that many data sets share (folder) the folder's own name tells them apart.
    root = [] if external.data_root is None else [Path(external.data_root).resolve().name]
    where = RunFolder(folder.path / "external" / "-".join([table.name, *root]))
    _refuse_another(where, table.split_hash)
    overlap = _check_overlap(folder, table, external)

    def execute() -> None:
        predictions = score_external(folder, table, backbone, training)
        if not is_first_process():
            return
        where.write_predictions(predictions)
        found = evaluate_predictions(
            predictions,
            sensitive=table.sensitive,
            n_resamples=evaluation.resamples,
            seed=evaluation.bootstrap_seed,
        )
        _keep_external(where, table, found, overlap)

    return execute


def _load_external(
    folder: RunFolder,
    audit: AuditArguments,
    external: ExternalArguments,
    options: Any,
    training: FitArguments,
    backbone: Backbone,
) -> ImageTable:
    """Load every row of the other data set, with label 1 as in the run."""
    data = DataArguments(
        dataset=str(external.dataset),
        data_root=external.data_root,
        sensitive=external.sensitive,
        label_column=audit.label_column,
        sensitive_column=audit.sensitive_column,
        patient_column=audit.patient_column,
        split_column=external.split_column,
    )
    names = folder.read().dataset.label_names
    return load_table(
        data,
        # Which label is 1 follows from the run, also in a set that knows its own labels.
        replace(options, positive_label=None),
        training,
        backbone,
        splits=("test",),
        external=True,
        adjust=lambda table: agree_labels(table, names, options.positive_label),
    )


def _keep_external(
    where: RunFolder, table: ImageTable, found: dict[str, Any], overlap: Overlap
) -> None:
    """Write and print the numbers of the other data set."""
    described = replace(describe_dataset(table), external=external_title(table.name, overlap))
    record = RunRecord(dataset=described, warnings=[*table.warnings, *overlap.notes])
    record.put(FAIRTUNE, seeds=[SeedRecord(test=read_as(Result, found))])
    print(format_table(where.write(record)))
    _print_doubts(found["warnings"])
    say(f"All rows of {table.name} were scored; numbers in {where.record_file}")


def _print_doubts(doubts: Sequence[str]) -> None:
    """Print what is to be known of test numbers: why an interval is not given, or that they rank upside down."""
    for doubt in doubts:
        print(f"Warning: {doubt}")


def external_title(name: str, overlap: Overlap) -> str:
    """Return the heading of an external test's numbers, which says what it shares with the run."""
    title = f"external: {name}"
    if not overlap.words:
        return title
    return f"{title}, NOT INDEPENDENT: {overlap.words} were in training or validation"


def _check_overlap(folder: RunFolder, table: ImageTable, external: ExternalArguments) -> Overlap:
    """Refuse a data set that the run has seen, unless it was asked for; say what was not compared."""
    overlap = find_overlap(folder, table)
    if overlap.words and not external.allow_overlap:
        raise ValueError(
            f"--dataset: expected data that the run has not seen, and {overlap.words} are among its training or validation "
            "rows, so its numbers would be too good. Leave these out, or score them all the same with --allow-overlap, "
            "which the title then says."
        )
    for note in overlap.notes:
        say(f"Warning: {note}")
    return overlap


def _refuse_another(where: RunFolder, split_hash: str) -> None:
    record = where.read_if_whole()
    if record is not None and record.dataset.split_hash != split_hash:
        raise ValueError(
            f"--data-root: {where.path} holds the numbers of another data set of the same name. "
            "Move that folder away, or rename the data's."
        )


def require_run(run: RunArguments, *, comparison: bool = False) -> RunFolder:
    """Return the folder `--run` names, of a run or, where asked for, of a whole comparison.

    Raises:
        ValueError: A search that has not come to its end.
        FileNotFoundError: No run there.
        ValueError: Its config.yaml was edited since it began.
    """
    folder = RunFolder(str(run.run))
    record = folder.read()
    if not record.dataset or (record.chosen is None and not comparison):
        folder.read_chosen()  # says what is missing
    check_settings(folder)
    return folder


def require_writable(folder: RunFolder, out: str | None) -> Path:
    """Return where what is made of a run goes: the folder asked for, or the run's own.

    Raises:
        PermissionError: The run's folder may only be read, and no other was given.
    """
    if out is not None:
        return Path(out)
    if not os.access(folder.path, os.W_OK):
        raise PermissionError(
            f"--out: expected a folder to write to, since {folder.path} may only be read. Add --out DIR."
        )
    return folder.path


def require_predictions(folder: RunFolder) -> None:
    """Refuse a run whose refits have not been done.

    Raises:
        FileNotFoundError: The choice or a control has no predictions.
        ValueError: The search has made no choice, or predictions cannot be read.
    """
    for where, method in folder.refits(folder.read_chosen()).values():
        if where.read_refits(method.choice) is None:
            raise FileNotFoundError(
                f"--run: expected the predictions of the refits in {where.predictions_file}, and there are none of what "
                f"the search chose. Run `fairtune finetune --run {folder.path}` first; it goes on where it stopped."
            )
        read_description(where.adapter)  # what is measured is written there too
