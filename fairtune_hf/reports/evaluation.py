"""The evaluate step: from the predictions of a run and its controls to the numbers of run.json.

Reads tables, trains nothing, imports no torch, so any number can be computed again from the files.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
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
from fairtune_hf.reports.verdict import run_verdict
from fairtune_hf.run_folder import RunFolder

_SPLITS = {"validation": "raise", "test": "coerce"}


def evaluate_run(run_dir: Path | str, *, n_resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Measure every refit of a run and its controls, compare them, and write run.json.

    Args:
        run_dir: A folder in which `fairtune finetune` has left predictions.
        n_resamples: Bootstrap resamples behind each interval.
        seed: Seed of the resampling.

    Returns:
        The record written: `validation`, `test` and `seeds` of the choice and of each control,
        `comparisons` on the test rows, with p-values by Holm over the controls of each metric, `verdict`
        and `warnings`. An evaluation takes the place of an earlier one, its warnings too.

    Raises:
        FileNotFoundError: No run.json or no predictions in the folder.
        ValueError: A validation group without both classes.
    """
    folder = RunFolder(run_dir)
    record = folder.read_chosen()
    sensitive = record["dataset"]["sensitive"]
    predictions = _require_predictions(folder, record["choice"])
    options = {"sensitive": sensitive, "n_resamples": n_resamples, "seed": seed}
    first_seed = int(record["choice"]["seed"])
    record.update(_measure(predictions, first_seed, options))
    record["comparisons"] = []
    for name, entry in (record["controls"] or {}).items():
        reference = _require_predictions(folder.control(name), entry)
        entry.update(_measure(reference, first_seed, options))
        record["comparisons"] += _compare(predictions, reference, name, options)
    _correct_for_controls(record["comparisons"])
    record["warnings"] = _collect_warnings(record)
    record["verdict"] = None  # made anew from the comparisons
    record["verdict"] = run_verdict(record)
    return folder.write(record)


def evaluate_method(
    run_dir: Path | str, *, n_resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Measure every refit of one method of a comparison and write run.json.

    Raises:
        FileNotFoundError: No run.json or no predictions in the folder.
        ValueError: A validation group without both classes.
    """
    folder = RunFolder(run_dir)
    record = folder.read_chosen()
    options = {
        "sensitive": record["dataset"]["sensitive"],
        "n_resamples": n_resamples,
        "seed": seed,
    }
    predictions = _require_predictions(folder, record["choice"])
    record.update(_measure(predictions, int(record["choice"]["seed"]), options))
    record["comparisons"], record["verdict"] = None, None
    record["warnings"] = _collect_warnings(record)
    return folder.write(record)


def compare_method(
    run_dir: Path | str, reference_dir: Path | str, *, n_resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Compare one evaluated method with another on the same test rows and write its run.json.

    Args:
        run_dir: Folder of the method.
        reference_dir: Folder of the method it is compared with; its own folder gives no comparison.
        n_resamples: Bootstrap resamples behind each interval.
        seed: Seed of the resampling.

    Raises:
        FileNotFoundError: A folder has no run.json or no predictions.
        ValueError: The two were scored on different rows.
    """
    folder, reference_folder = RunFolder(run_dir), RunFolder(reference_dir)
    record, reference = folder.read_chosen(), reference_folder.read_chosen()
    own, other = record["method"]["name"], reference["method"]["name"]
    record["comparisons"] = []
    if own != other:
        options = {
            "sensitive": record["dataset"]["sensitive"],
            "n_resamples": n_resamples,
            "seed": seed,
        }
        pair = (
            _require_predictions(folder, record["choice"]),
            _require_predictions(reference_folder, reference["choice"]),
        )
        record["comparisons"] = _compare(*pair, other, options, method=own)
    record["warnings"] = _collect_warnings(record)
    return folder.write(record)


def _require_predictions(folder: RunFolder, choice: Mapping[str, Any]) -> pd.DataFrame:
    predictions = folder.read_refits(choice)
    if predictions is None:
        raise FileNotFoundError(
            f"--run: expected the predictions of the refits in {folder.predictions_file}, and there are none of this choice. "
            "Run `fairtune finetune --run` on the folder first; the same command goes on where it stopped."
        )
    return predictions


def _measure(predictions: pd.DataFrame, first_seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """Return validation and test of the first seed, and both for every seed."""
    seeds = []
    for seed in predictions["seed"].unique():
        blocks: dict[str, Any] = {"seed": int(seed)}
        for split, errors in _SPLITS.items():
            rows = predictions[(predictions["seed"] == seed) & (predictions["split"] == split)]
            block = evaluate_predictions(rows, errors=errors, **options)
            scores = rows.loc[rows[options["sensitive"]].notna(), "score"]
            flag = collapse_flag(block["overall_auc"], block["overall_auc_ci"], scores)
            blocks[split] = block | {"collapse": None if flag is None else dataclasses.asdict(flag)}
        seeds.append(blocks)
    first = next(block for block in seeds if block["seed"] == first_seed)
    return {"validation": first["validation"], "test": first["test"], "seeds": seeds}


def _compare(
    predictions: pd.DataFrame,
    reference: pd.DataFrame,
    name: str,
    options: dict[str, Any],
    *,
    method: str = "fairtune",
) -> list[dict[str, Any]]:
    """Return the paired comparisons with one control on the test rows."""
    found: dict[str, Comparison] = compare_metrics(
        predictions[predictions["split"] == "test"],
        reference[reference["split"] == "test"],
        metrics=TESTED,
        **options,
    )
    place = {"method": method, "reference": name, "split": "test"}
    return [
        {key: json_able(value) for key, value in {**place, **dataclasses.asdict(item)}.items()}
        for item in found.values()
    ]


def _correct_for_controls(comparisons: list[dict[str, Any]]) -> None:
    """Add `p_value_holm`: corrected for the controls that a metric is compared with, as in `fairtune compare`."""
    for metric in TESTED:
        held = {item["reference"]: item for item in comparisons if item["metric"] == metric}
        p_values = {name: item["p_value"] for name, item in held.items()}
        known = {name: math.nan if p is None else p for name, p in p_values.items()}
        for name, corrected in holm_p_values(known).items():
            held[name]["p_value_holm"] = json_able(corrected)


def _collect_warnings(record: dict[str, Any]) -> list[str]:
    """Return the warnings of the earlier steps and of this evaluation, without those of an earlier evaluation.

    What a comparison says beyond what is told of its rows moves here, where `fairtune push` hides small counts.
    """
    methods = {"the chosen mask": record, **(record["controls"] or {})}
    found = [
        (f"{method}, {split}: ", text)
        for method, entry in methods.items()
        for split in _SPLITS
        for text in entry[split].get("warnings", [])
    ]
    told = {text for _, text in found}
    for item in record["comparisons"] or []:
        where = f"the chosen mask minus {item['reference']}, {item['split']}: "
        found += [(where, text) for text in item.pop("warnings") if text not in told]
    # Of a comparison with any method: that of an earlier one may have been with another.
    names, splits = "|".join(map(re.escape, methods)), "|".join(_SPLITS)
    own = re.compile(f"(?:{names}|the chosen mask minus .+?), (?:{splits}): ")
    kept = [text for text in record["warnings"] or [] if not own.match(text)]
    return list(dict.fromkeys([*kept, *(where + text for where, text in found)]))
