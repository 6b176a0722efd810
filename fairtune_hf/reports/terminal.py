"""The result of a run as plain text for a terminal: methods by overall, minimum and gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairtune_hf.metrics import registry
from fairtune_hf.run_record import RunRecord

from . import numbers
from .loaded_run import final_split
from .tables import METRICS, capital, method_results
from .verdict import method_name, worst_group

COLUMNS = registry.shown_in(registry.TEST)


def format_table(run: RunRecord) -> str:
    """Lay out the results of a run as text, at most 100 characters wide.

    The numbers are those of the refit with `choice.seed`, with their 95 % intervals; test rows when
    they were read, else validation rows.

    Returns:
        Lines without a final newline.
    """
    split = final_split(run)
    if split is None:
        return "No results yet: the run has not been refitted and evaluated."
    results = method_results(run, split)
    header = ["method", *(METRICS[name] for name in COLUMNS)]
    lines = [
        [capital(method_name(name)), *(_cell(result.values, metric) for metric in COLUMNS)]
        for name, result in results.items()
    ]
    heading = _heading(run, split)
    return "\n".join([heading, "", *_aligned([header, *lines])])


def format_audit(audit: Mapping[str, Any]) -> str:
    """Lay out the result of `audit_predictions` as text: overall, each group, comparisons, warnings."""
    attributes = audit.get("attributes") or {}
    return "\n\n".join(_one_audit(report) for report in attributes.values() or [audit])


def _one_audit(audit: Mapping[str, Any]) -> str:
    found = audit["evaluation"]
    header = ["", "rows", "positives", "AUC"]
    groups = [
        [
            name,
            numbers.count(row["n"]),
            numbers.positives(row["n"], row["positives"]),
            _cell(row, "auc"),
        ]
        for name, row in found["groups"].items()
    ]
    lines = [f"{audit['rows']} rows, groups by {_printable(str(audit['sensitive']))}", ""]
    if audit.get("label_names"):
        negative, positive = audit["label_names"]
        lines.insert(1, _printable(f"label 1 is {positive}, label 0 is {negative}"))
    lines += [f"{METRICS[name]}: {_cell(found, name)}" for name in COLUMNS]
    lines += ["", *_aligned([header, *groups]), ""]
    for item in audit["comparisons"] or []:
        bounds = numbers.signed_interval(item["ci"]) or "no interval, see the warnings"
        known = numbers.is_number(item["difference"])
        shown = f"{numbers.difference(item['difference'])} [{bounds}]" if known else "undefined"
        lines.append(f"{registry.METRICS[item['metric']].label} minus the reference's: {shown}")
    flag = audit["collapse"]
    if flag:
        seen = (
            "the model has collapsed"
            if flag["collapsed"]
            else "the model cannot be told from chance"
        )
        lines.append(f"Warning: {seen} ({flag['reason']}).")
    lines += [_printable(f"Warning: {text}") for text in audit["warnings"]]
    return "\n".join(lines).rstrip()


def _heading(run: RunRecord, split: str) -> str:
    dataset = run.dataset
    worst = worst_group(run.own.result(split))
    # Of an external test every row is scored, whatever its split.
    words = [
        dataset.external or f"{dataset.name or 'run'}, {split} set",
        f"groups by {dataset.sensitive or 'group'}",
    ]
    if worst is not None:
        words.append(f"worst group {worst}")
    return _printable(", ".join(words))


def _cell(result: Mapping[str, Any], name: str) -> str:
    value = numbers.fraction(result.get(name))
    bounds = numbers.interval(result.get(f"{name}_ci"))
    return f"{value} [{bounds}]" if bounds else value


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    clean = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in clean) for i in range(len(clean[0]))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in clean
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _printable(words: str) -> str:
    """Drop control characters, so that a group's name cannot steer the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in words)
