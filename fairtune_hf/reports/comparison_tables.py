"""The tables of a comparison: results, paired tests and cost of each setting, then means and ranks over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fairtune_hf.metrics import registry
from fairtune_hf.metrics.ranks import average_ranks, average_scores
from fairtune_hf.run_record import MethodRecord, RunRecord

from . import numbers
from .plain_table import PlainTable
from .tables import METRICS
from .verdict import method_name

COMPARED = {
    name: not registry.is_small_good(name) for name in registry.shown_in(registry.COMPARISON)
}
"""Metrics of the tables -> whether higher is better."""
_DASH = numbers.MISSING


def comparison_tables(settings: Mapping[str, RunRecord], table: pd.DataFrame) -> list[PlainTable]:
    """Lay out results, paired tests and cost of each setting, and means and ranks over all.

    Args:
        settings: The record of each setting, by its name.
        table: What `collect_results` returns for them.
    """
    # A run of an earlier release has not every metric of today: no column is empty from top to bottom.
    known = set(table.loc[table["value"].notna(), "metric"])
    shown = [metric for metric in COMPARED if metric in known]
    tables = []
    for setting, run in settings.items():
        held = table[table["setting"] == setting]
        tables.append(_results(setting, held, shown))
        if held["difference"].notna().any():
            tables.append(_tests(setting, held, str(run.reference)))
        tables.append(_cost(setting, run))
    means = [_means(table, shown)] if len(settings) > 1 else []
    return [*tables, *means, _ranks(table, shown)]


def _by_method(held: pd.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the rows of each method by metric; a method that failed has one row, without a metric."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for record in held.to_dict("records"):
        found.setdefault(record["method"], {})[record["metric"]] = {
            str(k): v for k, v in record.items()
        }
    return found


def _results(setting: str, held: pd.DataFrame, shown: Sequence[str]) -> PlainTable:
    rows, best = [], set()
    for number, (method, by_metric) in enumerate(_by_method(held).items()):
        failure = next(iter(by_metric.values()))["failure"]
        if isinstance(failure, str):
            rows.append((method, f"failed: {failure}", *[""] * len(shown)))
            continue
        cells = []
        for column, metric in enumerate(shown, start=1):
            row = by_metric[metric]
            cells.append(_with_interval(numbers.fraction(row["value"]), row["low"], row["high"]))
            values = held.loc[held["metric"] == metric, "value"].dropna()
            top = values.max() if COMPARED[metric] else values.min()
            if len(values) > 1 and row["value"] == top:
                best.add((number, column))
        mean = by_metric["min_auc"]
        seeds = f"{numbers.fraction(mean['mean_over_seeds'])} ({int(mean['n_seeds'])})"
        rows.append((method, *cells, seeds))
    note = (
        "Test rows, the refit with the chosen seed; in brackets 95 % intervals over patients. The last column "
        "is the mean over the refits. Bold: best value of a column, which does not mean that the difference is "
        "beyond noise."
    )
    heads = ("Method", *(METRICS[m] for m in shown), "Min-group AUC, mean (seeds)")
    return PlainTable(f"{setting}: results", note, heads, tuple(rows), frozenset(best))


def _with_interval(shown: str, low: float, high: float, *, signed: bool = False) -> str:
    bounds = (numbers.signed_interval if signed else numbers.interval)((low, high))
    return f"{shown} [{bounds}]" if bounds else shown


def _tests(setting: str, held: pd.DataFrame, reference: str) -> PlainTable:
    rows = []
    for method, by_metric in _by_method(held).items():
        if method == reference:
            continue
        cells: list[str] = []
        for metric in registry.TESTED:
            row = by_metric.get(metric)
            if row is None or pd.isna(row["difference"]):
                cells += [_DASH, _DASH]
                continue
            low, high = row["difference_low"], row["difference_high"]
            shown = numbers.difference(row["difference"])
            cells += [_with_interval(shown, low, high, signed=True), _p_value(row["p_holm"])]
        rows.append((method, *cells))
    heads = ["Method"]
    for metric in registry.TESTED:
        heads += [f"{METRICS[metric]} minus {reference}", "p (Holm)"]
    note = (
        "Paired differences on the same test patients, mean over the seeds; the 95 % intervals hold the chance of "
        "patients and of seeds. p-values are two-sided and corrected by Holm over the methods of the column."
    )
    title = f"{setting}: paired tests against {method_name(reference)}"
    return PlainTable(title, note, tuple(heads), tuple(rows))


def _p_value(p: float) -> str:
    if pd.isna(p):
        return _DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _cost(setting: str, run: RunRecord) -> PlainTable:
    heads = (
        "Method",
        "Trainable parameters",
        "Trials completed / pruned / failed",
        "Epochs searched",
        "Seconds of search",
        "Seconds of refits",
        "Chosen",
    )
    note = "Seconds are of this machine, with as many methods at once as it was given workers."
    rows = tuple((name, *_cost_cells(method)) for name, method in run.methods.items())
    return PlainTable(f"{setting}: cost", note, heads, rows)


def _cost_cells(method: MethodRecord) -> tuple[str, ...]:
    search, choice = method.search, method.choice
    extra = {"learning_rate": choice.learning_rate, **(choice.hyperparameters or {})}
    values = ", ".join(
        f"{name} {value:.3g}" if numbers.is_number(value) else f"{name} {value}"
        for name, value in (extra if choice else {}).items()
        if value is not None
    )
    counts = (search.completed, search.pruned, search.failed)
    refits = method.refit_seconds or method.cost.get("refit", {}).get("seconds")
    return (
        _whole(method.trainable_parameters),
        " / ".join(_DASH if n is None else str(n) for n in counts),
        _whole(search.trained_epochs),
        _whole(search.seconds),
        _whole(refits),
        values or _DASH,
    )


def _whole(value: object) -> str:
    return f"{value:,.0f}" if numbers.is_number(value) else _DASH


def _complete(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return a metric by setting and method, mean over the seeds, where every number can be compared.

    Settings in which no method has a value are left out, then methods that lack one in another.
    """
    wide = table[table["metric"] == metric].pivot(
        index="setting", columns="method", values="mean_over_seeds"
    )
    order = [name for name in table["method"].unique() if name in wide.columns]
    return wide[order].dropna(how="all").dropna(axis=1)


def _means(table: pd.DataFrame, shown: Sequence[str]) -> PlainTable:
    means = {m: average_scores(_complete(table, m)).to_dict() for m in shown}
    note = "Mean over the settings of the mean over the seeds; a dash where a method lacks a value in one of them."
    return _over_settings("Means", note, table, means, digits=3)


def _ranks(table: pd.DataFrame, shown: Sequence[str]) -> PlainTable:
    ranks = {}
    for metric in shown:
        wide = _complete(table, metric)
        ranks[metric] = (
            average_ranks(wide, higher_is_better=COMPARED[metric]).to_dict() if wide.size else {}
        )
    settings = table["setting"].nunique()
    over = "this setting" if settings == 1 else f"{settings} settings"
    note = (
        f"Mean rank over {over}, by the mean over the seeds; 1 is best, ties share the mean of their places. A "
        "rank says nothing about whether a difference is beyond noise."
    )
    return _over_settings("Ranks", note, table, ranks, digits=2)


def _over_settings(
    title: str,
    note: str,
    table: pd.DataFrame,
    found: Mapping[str, Mapping[Any, float]],
    *,
    digits: int,
) -> PlainTable:
    rows = tuple(
        (name, *(numbers.fraction(values.get(name), digits) for values in found.values()))
        for name in map(str, table["method"].unique())
    )
    return PlainTable(title, note, ("Method", *(METRICS[m] for m in found)), rows)
