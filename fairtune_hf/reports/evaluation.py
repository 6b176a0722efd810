"""The evaluate step: from the predictions of a run and its controls to the numbers of run.json.

Reads tables, trains nothing, imports no torch, so any number can be computed again from the files.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fairtune_hf.json_values import json_able
from fairtune_hf.metrics import (
    Comparison,
    collapse_flag,
    compare_metrics,
    evaluate_predictions,
    holm_p_values,
)
from fairtune_hf.metrics.registry import TESTED
from fairtune_hf.plain_data import read_as
from fairtune_hf.reports.described import complete_description
from fairtune_hf.reports.verdict import run_verdict
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import (
    SPLITS,
    ChoiceRecord,
    ComparisonRecord,
    MethodRecord,
    Result,
    RunRecord,
    SeedRecord,
)

_ERRORS = {"validation": "raise", "test": "coerce"}


def evaluate_run(run_dir: Path | str, *, n_resamples: int = 2000, seed: int = 0) -> RunRecord:
    """Measure every refit of a run and its controls, and compare the choice with each of them.

    Args:
        run_dir: A folder in which `fairtune finetune` has left predictions.
        n_resamples: Bootstrap resamples behind each interval.
        seed: Seed of the resampling.

    Returns:
        The record written, see `measure` and `compare`. An evaluation takes the place of an earlier
        one, its warnings too.

    Raises:
        FileNotFoundError: No run.json or no predictions in the folder.
        ValueError: A validation group without both classes.
    """
    measure(run_dir, n_resamples=n_resamples, seed=seed)
    return compare(run_dir, n_resamples=n_resamples, seed=seed)


def measure(run_dir: Path | str, *, n_resamples: int = 2000, seed: int = 0) -> RunRecord:
    """Measure every refit of a run's methods and write run.json, without comparisons and verdict.

    Raises:
        FileNotFoundError: No run.json or no predictions in the folder.
        ValueError: A validation group without both classes.
    """
    folder = RunFolder(run_dir)
    record = folder.read_chosen()
    options = _options(record, n_resamples, seed)
    record.forget_evaluation()
    for where, method in folder.refits(record).values():
        predictions = _require_predictions(where, method.choice)
        method.seeds = _measure(predictions, record.choice.seed, options)
        complete_description(where, method, predictions, record.dataset.sensitive)
    record.warnings = _collect_warnings(record)
    return folder.write(record)


def compare(
    run_dir: Path | str,
    reference_dir: Path | str | None = None,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> RunRecord:
    """Compare a measured run's choice with others on the same test rows and write its run.json.

    Args:
        run_dir: Folder of the run.
        reference_dir: Folder of the run whose choice it is compared with; its own folder gives no
            comparison. Without it, each of the run's controls is.
        n_resamples: Bootstrap resamples behind each interval.
        seed: Seed of the resampling.

    Returns:
        The record written. Beside controls it has a verdict, and p-values by Holm over the controls of
        each metric.

    Raises:
        FileNotFoundError: A folder has no run.json or no predictions.
        ValueError: The two were scored on different rows.
    """
    folder = RunFolder(run_dir)
    record = folder.read_chosen()
    if reference_dir is None:
        record.reference, others = record.chosen, folder.refits(record)
    else:
        other = RunFolder(reference_dir).read_chosen()
        record.reference = other.chosen
        others = {str(other.chosen): (RunFolder(reference_dir), other.own)}
    predictions = _require_predictions(folder, record.choice)
    record.comparisons = [
        item
        for name, (where, method) in others.items()
        if name != record.chosen
        for item in _compare(
            {str(record.chosen): predictions, name: _require_predictions(where, method.choice)},
            _options(record, n_resamples, seed),
        )
    ]
    record.verdict = None
    if reference_dir is None:
        correct_by_holm(record.comparisons)
        record.verdict = run_verdict(record)
    record.warnings = _collect_warnings(record)
    return folder.write(record)


def _options(record: RunRecord, n_resamples: int, seed: int) -> dict[str, Any]:
    return {"sensitive": record.dataset.sensitive, "n_resamples": n_resamples, "seed": seed}


def _require_predictions(folder: RunFolder, choice: ChoiceRecord) -> pd.DataFrame:
    predictions = folder.read_refits(choice)
    if predictions is None:
        raise FileNotFoundError(
            f"--run: expected the predictions of the refits in {folder.predictions_file}, and there are none of this choice. "
            "Run `fairtune finetune --run` on the folder first; the same command goes on where it stopped."
        )
    return predictions


def _measure(
    predictions: pd.DataFrame, first_seed: int | None, options: dict[str, Any]
) -> list[SeedRecord]:
    """Return validation and test of every seed, the first seed first."""
    seeds = []
    for seed in predictions["seed"].unique():
        results = {}
        for split, errors in _ERRORS.items():
            rows = predictions[(predictions["seed"] == seed) & (predictions["split"] == split)]
            block = evaluate_predictions(rows, errors=errors, **options)
            scores = rows.loc[rows[options["sensitive"]].notna(), "score"]
            flag = collapse_flag(block["overall_auc"], block["overall_auc_ci"], scores)
            block["collapse"] = None if flag is None else dataclasses.asdict(flag)
            results[split] = read_as(Result, block, split)
        seeds.append(SeedRecord(seed=int(seed), **results))
    return sorted(seeds, key=lambda entry: entry.seed != first_seed)


def _compare(
    predictions: Mapping[str, pd.DataFrame], options: dict[str, Any]
) -> list[ComparisonRecord]:
    """Return the paired comparisons of one method with another on the test rows."""
    method, reference = predictions
    tables = (frame[frame["split"] == "test"] for frame in predictions.values())
    found: dict[str, Comparison] = compare_metrics(*tables, metrics=TESTED, **options)
    place = {"method": method, "reference": reference, "split": "test"}
    return [
        read_as(ComparisonRecord, json_able({**place, **dataclasses.asdict(item)}))
        for item in found.values()
    ]


def correct_by_holm(comparisons: Sequence[ComparisonRecord]) -> None:
    """Set `p_value_holm`: corrected for the comparisons of a metric."""
    for metric in TESTED:
        held = {str(n): item for n, item in enumerate(comparisons) if item.metric == metric}
        p_values = {n: math.nan if i.p_value is None else i.p_value for n, i in held.items()}
        for number, corrected in holm_p_values(p_values).items():
            held[number].p_value_holm = json_able(corrected)


def _collect_warnings(record: RunRecord) -> list[str]:
    """Return the warnings of the earlier steps and of this evaluation, without those of an earlier evaluation.

    What a comparison says beyond what is told of its rows moves here, where `fairtune push` hides small counts.
    """
    methods: dict[str, MethodRecord] = {"the chosen mask": record.own, **record.controls}
    found = [
        (f"{name}, {split}: ", text)
        for name, method in methods.items()
        for split in SPLITS
        for text in method.result(split).warnings
    ]
    told = {text for _, text in found}
    for item in record.comparisons:
        where = f"the chosen mask minus {item.reference}, {item.split}: "
        found += [(where, text) for text in item.more.pop("warnings", []) if text not in told]
    # Of a comparison with any method: that of an earlier one may have been with another.
    names, splits = "|".join(map(re.escape, methods)), "|".join(SPLITS)
    own = re.compile(f"(?:{names}|the chosen mask minus .+?), (?:{splits}): ")
    kept = [text for text in record.warnings if not own.match(text)]
    return list(dict.fromkeys([*kept, *(where + text for where, text in found)]))
