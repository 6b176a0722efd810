"""Anybody's predictions, measured like our own; imports neither model nor Trainer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from fairtune_hf.cli.arguments import AuditArguments, EvaluateArguments
from fairtune_hf.cli.messages import say
from fairtune_hf.metrics import audit_predictions
from fairtune_hf.naming import flag_of
from fairtune_hf.reports import format_audit
from fairtune_hf.run_folder import write_text

_NEEDED = ("label_column", "score_column", "sensitive_column")
_COLUMN_RULES = ("positive_label", "age_threshold", "age_boundary", "unknown")


def plan_audit(
    audit: AuditArguments, evaluation: EvaluateArguments, options: Any
) -> Callable[[], None]:
    """Read and measure the tables; what is wrong with them is bad input.

    Args:
        audit: The tables and their columns.
        evaluation: How the numbers are computed.
        options: The flags of data sets, of which those that say how columns are read hold here too.
    """
    missing = [name for name in _NEEDED if getattr(audit, name) is None]
    if missing:
        flags = ", ".join(flag_of(name) for name in missing)
        raise ValueError(
            f"{flags}: expected with --predictions, and not given. Name the columns of the label, the score "
            "of label 1 and the group."
        )
    _check_out(audit.out)
    frame = _read_table("--predictions", Path(str(audit.predictions)))
    reference = (
        None if audit.reference is None else _read_table("--reference", Path(audit.reference))
    )
    try:
        found = audit_predictions(
            frame,
            label_column=str(audit.label_column),
            score_column=str(audit.score_column),
            sensitive_column=str(audit.sensitive_column),
            patient_column=audit.patient_column,
            reference=reference,
            threshold=audit.threshold,
            n_resamples=evaluation.resamples,
            seed=evaluation.bootstrap_seed,
            **_given(options),
        )
    except TypeError as error:  # a column of words where numbers belong
        raise ValueError(str(error)) from error

    def execute() -> None:
        print(format_audit(found))
        if audit.out is not None:
            write_text(Path(audit.out), json.dumps(found, indent=1, allow_nan=False) + "\n")
            say(f"Every number is in {audit.out}")

    return execute


def _given(options: Any) -> dict[str, Any]:
    """Return the rules for columns that were given.

    Raises:
        ValueError: Another option of data sets was given, which an audit cannot follow.
    """
    given = {name: value for name, value in vars(options).items() if value is not None}
    foreign = [flag_of(name) for name in given if name not in _COLUMN_RULES]
    if foreign:
        known = ", ".join(flag_of(name) for name in _COLUMN_RULES)
        raise ValueError(
            f"{', '.join(foreign)}: expected with a data set, got with --predictions. Leave it out; "
            f"of the options of data sets an audit knows {known}."
        )
    return given


def _check_out(out: str | None) -> None:
    if out is None or Path(out).suffix.lower() == ".json":
        return
    raise ValueError(
        f"--out: expected a file that ends in .json, the one format an audit is written in, got {out!r}. "
        "Pages in HTML are written for runs, by `fairtune report`."
    )


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
