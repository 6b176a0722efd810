"""`fairtune evaluate`: the numbers of a run from its predictions, or of anybody's predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fairtune_hf.cli.arguments import (
    AuditArguments,
    DataArguments,
    DataOptions,
    EvaluateArguments,
    ExternalArguments,
    ModelArguments,
    RunArguments,
    restore,
)
from fairtune_hf.cli.inputs import load_model, load_table, say
from fairtune_hf.cli.parser import RecipeParser
from fairtune_hf.metrics import audit_predictions, evaluate_predictions
from fairtune_hf.reports import evaluate_run, format_audit, format_table
from fairtune_hf.training import (
    FitArguments,
    RunFolder,
    check_same_base,
    describe_dataset,
    score_external,
)
from fairtune_hf.training.run_folder import write_text

PARSER = RecipeParser(
    "evaluate",
    "Measure every refit of a run on whole splits, with intervals by patient, and compare the chosen mask "
    "with its controls (numbers go to run.json); with --dataset, score another data set with the run's adapter; with "
    "--predictions, measure any model's predictions.",
    "fairtune evaluate --run runs/nih",
    (RunArguments, EvaluateArguments, AuditArguments, ExternalArguments, DataOptions),
)
_NEEDED = ("label_column", "score_column", "sensitive_column")


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse and check; return the evaluation to run."""
    (run, evaluation, audit, external, options), _ = PARSER.parse(arguments)
    if audit.predictions is not None:
        return _plan_audit(audit, evaluation)
    folder = require_run(run)
    if external.dataset is not None:
        return _plan_external(folder, evaluation, audit, external, options)
    require_predictions(folder)

    def execute() -> None:
        record = evaluate_run(
            folder.path, n_resamples=evaluation.resamples, seed=evaluation.bootstrap_seed
        )
        print(format_table(record))
        print(record["verdict"])
        say(f"Next: fairtune report --run {folder.path}")

    return execute


def _plan_external(
    folder: RunFolder,
    evaluation: EvaluateArguments,
    audit: AuditArguments,
    external: ExternalArguments,
    options: Any,
) -> Callable[[], None]:
    """Load the run's base and the other data set; return its scoring and measurement."""
    config = folder.read_config()
    training = restore(FitArguments, config)
    backbone = load_model(restore(ModelArguments, config))
    check_same_base(folder.read(), backbone)
    data = DataArguments(
        dataset=str(external.dataset),
        data_root=external.data_root,
        sensitive=external.sensitive,
        label_column=audit.label_column,
        sensitive_column=audit.sensitive_column,
        patient_column=audit.patient_column,
        split_column=external.split_column,
    )
    table = load_table(data, options, training, backbone, splits=("train", "validation", "test"))
    where = RunFolder(folder.path / "external" / table.name)

    def execute() -> None:
        predictions = score_external(folder, table, backbone, training)
        where.write_predictions(predictions)
        found = evaluate_predictions(
            predictions,
            sensitive=table.sensitive,
            n_resamples=evaluation.resamples,
            seed=evaluation.bootstrap_seed,
        )
        where.update(dataset=describe_dataset(table), test=found, warnings=list(table.warnings))
        print(
            format_table(
                {"dataset": {"name": table.name, "sensitive": table.sensitive}, "test": found}
            )
        )
        say(f"All rows of {table.name} were scored; numbers in {where.record_file}")

    return execute


def _plan_audit(audit: AuditArguments, evaluation: EvaluateArguments) -> Callable[[], None]:
    """Read and measure the tables; what is wrong with them is bad input."""
    missing = [name for name in _NEEDED if getattr(audit, name) is None]
    if missing:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise ValueError(
            f"{flags}: expected with --predictions, and not given. Name the columns of the label (0 or 1), the score "
            "of label 1 and the group."
        )
    frame = _read_table("--predictions", Path(str(audit.predictions)))
    reference = (
        None if audit.reference is None else _read_table("--reference", Path(audit.reference))
    )
    try:
        found = audit_predictions(
            frame,
            label_column=str(audit.label_column),
            score_column=str(audit.score_column),
            sensitive_column=str(audit.sensitive_column).split(","),
            patient_column=audit.patient_column,
            reference=reference,
            n_resamples=evaluation.resamples,
            seed=evaluation.bootstrap_seed,
        )
    except TypeError as error:  # a column of words where numbers belong
        raise ValueError(str(error)) from error

    def execute() -> None:
        print(format_audit(found))
        if audit.out is not None:
            write_text(Path(audit.out), json.dumps(found, indent=1, allow_nan=False) + "\n")
            say(f"Every number is in {audit.out}")

    return execute


def _read_table(flag: str, path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(
            f"{flag}: expected a CSV or parquet file, and there is no file {path}. Check the path."
        )
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix in (".csv", ".tsv"):
        return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", encoding="utf-8-sig")
    raise ValueError(
        f"{flag}: expected a file that ends in .csv, .tsv or .parquet, got {path.name}. Convert it first."
    )


def require_run(run: RunArguments) -> RunFolder:
    """Return the folder `--run` names.

    Raises:
        ValueError: No `--run`.
        FileNotFoundError: No run there.
    """
    if run.run is None:
        raise ValueError(
            "--run: expected the folder of an earlier step, got none. Example: --run runs/demo"
        )
    folder = RunFolder(run.run)
    folder.read()
    return folder


def require_predictions(folder: RunFolder) -> None:
    """Refuse a run whose refits have not been done.

    Raises:
        FileNotFoundError: The choice or a control has no predictions.
    """
    controls = folder.read()["controls"] or {}
    for where in (folder, *(folder.control(name) for name in controls)):
        if not where.predictions_file.is_file():
            raise FileNotFoundError(
                f"--run: expected the predictions of the refits in {where.predictions_file}, and there are none. "
                f"Run `fairtune finetune --run {folder.path}` first; it goes on where it stopped."
            )
