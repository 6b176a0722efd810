"""The tables of a run as plain rows: methods, groups, counts, search, how to reproduce.

Rows hold finished strings, so that the page, the card and the terminal show the same numbers.
Counts of groups of fewer than ten people are hidden here (see `LoadedRun.hidden_groups`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from fairtune_hf.data.table import SPLITS
from fairtune_hf.metrics import registry
from fairtune_hf.run_record import (
    ChoiceRecord,
    GroupCounts,
    GroupResult,
    MethodRecord,
    Result,
    RunRecord,
)

from . import numbers
from .loaded_run import LoadedRun
from .verdict import method_name

METRICS = {name: registry.METRICS[name].label for name in registry.shown_in(registry.TABLE)}


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        value: The number, or a dash.
        interval: Its 95 % interval, empty when there is none.
        seeds: Mean and range over the refits, empty for a single refit.
    """

    value: str
    interval: str = ""
    seeds: str = ""


@dataclass(frozen=True)
class MethodRow:
    """One method's line of the results table.

    Attributes:
        key: `fairtune` or the control's name.
        label: Words for it.
        detail: How many bits it trains and its learning rate.
        cells: One cell for each of `shown_metrics`, in that order.
    """

    key: str
    label: str
    detail: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class GroupRow:
    """One group's line: its size, and its AUC under each method.

    Attributes:
        name: The group's name as the data give it.
        people: Patients, or a dash when they are not known.
        n: Pictures.
        positives: Pictures with a positive label.
        cells: AUC under the chosen mask and under each control, shown of every group: the smallest
            of them is the headline.
    """

    name: str
    people: str
    n: str
    positives: str
    cells: tuple[Cell, ...]


def method_results(run: RunRecord, split: str) -> dict[str, Result]:
    """Return the results of the chosen mask and of every control on a split, in table order; none without its own."""
    if not run.own.result(split):
        return {}
    results = {name: method.result(split) for name, method in run.methods.items()}
    return {name: result for name, result in results.items() if result}


def shown_metrics(run: RunRecord, split: str) -> dict[str, str]:
    """Return name and label of the metrics that a run's results hold: earlier versions measured fewer."""
    held = {name for result in method_results(run, split).values() for name in result.values}
    return {name: label for name, label in METRICS.items() if name in held or not held}


def method_rows(run: RunRecord, split: str) -> list[MethodRow]:
    """Return one row a method, the chosen mask first."""
    rows, metrics = [], shown_metrics(run, split)
    for name in method_results(run, split):
        method = run.methods[name]
        cells = tuple(_metric_cell(method, metric, split) for metric in metrics)
        rows.append(MethodRow(name, capital(method_name(name)), _detail(method.choice), cells))
    return rows


def capital(words: str) -> str:
    """Return the words with a capital first letter."""
    return words[:1].upper() + words[1:]


def _metric_cell(method: MethodRecord, metric: str, split: str) -> Cell:
    result = method.result(split)
    known = [v for r in method.results(split) if (v := r.value(metric)) is not None]
    spread = ""
    if len(known) > 1:
        mean = numbers.fraction(sum(known) / len(known))
        low, high = numbers.fraction(min(known)), numbers.fraction(max(known))
        spread = f"{mean} ({low}\u2013{high})"
    value, bounds = result.value(metric), result.interval(metric)
    return Cell(numbers.fraction(value), numbers.interval(bounds), spread)


def _detail(choice: ChoiceRecord) -> str:
    mask, parts = choice.mask, []
    if mask and set(mask) <= {"0", "1"}:
        parts.append(f"{mask.count('1')} of {len(mask)} parts trained")
    if numbers.is_number(choice.learning_rate):
        parts.append(f"rate {numbers.learning_rate(choice.learning_rate)}")
    return "\n".join(parts)


def group_rows(folder: LoadedRun, split: str) -> list[GroupRow]:
    """Return one row a group; of those of fewer than ten people the AUC alone is shown."""
    results = method_results(folder.record, split)
    own = folder.result(split).groups
    people = folder.people(split)
    hidden = folder.hidden_groups(split)
    rows = []
    for name in folder.group_order(split):
        row, words = own[name], hidden.get(name)
        others = [result.groups.get(name, GroupResult()) for result in results.values()]
        cells = tuple(Cell(numbers.fraction(i.auc), numbers.interval(i.auc_ci)) for i in others)
        n = words or numbers.count(row.n)
        found = words or numbers.positives(row.n, row.positives)
        heads = words or numbers.count(people[name]) if name in people else numbers.MISSING
        rows.append(GroupRow(name, heads, n, found, cells))
    return rows


def split_rows(folder: LoadedRun) -> list[tuple[str, str, str]]:
    """Return split, pictures and patients of every split of the data."""
    frame, told = folder.predictions, folder.record.dataset.n_patients
    rows = []
    for split, number in folder.record.dataset.rows.items():
        people = numbers.count(told.get(split))
        if (
            people == numbers.MISSING
            and not frame.empty
            and {"patient", "split"} <= set(frame.columns)
        ):
            held = frame.loc[frame["split"] == split, "patient"]
            people = numbers.count(int(held.nunique())) if len(held) else numbers.MISSING
        rows.append((str(split), numbers.count(number), people))
    return rows


def data_rows(folder: LoadedRun) -> list[tuple[str, tuple[str, ...]]]:
    """Return each group's pictures and positive labels in every split, small groups hidden.

    Validation and test counts are those of the results; training counts are there when `run.json`
    has `dataset.counts` ({split: {group: {n, positives, n_patients}}}).
    """
    given = folder.record.dataset.counts
    names = folder.group_order("test") or folder.group_order("validation")
    names = names or [str(name) for name in folder.record.dataset.groups]
    hidden = {split: folder.hidden_groups(split) for split in SPLITS}
    rows = []
    for name in names:
        cells = []
        for split in SPLITS:
            counts = (given.get(split) or {}).get(name)
            known = counts if given.get(split) else folder.result(split).groups.get(name)
            cells.append(_data_cell(known, hidden[split].get(name)))
        rows.append((name, tuple(cells)))
    return rows if any(cell != numbers.MISSING for _, cells in rows for cell in cells) else []


def _data_cell(known: GroupCounts | GroupResult | None, hidden: str | None) -> str:
    if known is None or not numbers.is_number(known.n):
        return numbers.MISSING
    return hidden or f"{numbers.count(known.n)} ({numbers.positives(known.n, known.positives)})"


def search_rows(folder: LoadedRun) -> list[tuple[str, str]]:
    """Return what the search did, in words and numbers."""
    search = folder.record.own.search
    names = {
        "objective": "Objective",
        "sampler": "Sampler",
        "pruner": "Pruner",
        "trials": "Trials",
        "completed": "Completed",
        "pruned": "Pruned",
        "failed": "Failed",
        "trained_epochs": "Epochs trained",
    }
    objective = ", ".join(
        name + (" (lower is better)" if sign < 0 else "")
        for name, sign in folder.objectives.items()
    )
    told = {name: getattr(search, name) for name in names}
    told["objective"] = search.objective and objective
    rows = [(names[name], _plain(value)) for name, value in told.items() if value is not None]
    epochs, train = search.trained_epochs, folder.record.dataset.rows.get("train")
    if numbers.is_number(epochs) and numbers.is_number(train):
        rows.append(("Training pictures seen", numbers.count(epochs * train)))
    if numbers.is_number(search.seconds):
        rows.append(("Time", numbers.seconds(search.seconds)))
    return rows


def reproduce_rows(folder: LoadedRun) -> list[tuple[str, str]]:
    """Return the choice, the hashes, the versions and the machine, flattened to pairs."""
    record = folder.record
    dataset, model, choice = record.dataset, record.model, vars(record.choice)
    rows = [("Data set", _plain(dataset.name)), ("Split hash", _plain(dataset.split_hash))]
    rows += [(f"Data option: {key}", _plain(value)) for key, value in dataset.options.items()]
    rows += [
        ("Base model", shown_model(model.id)),
        ("Base model revision", _plain(model.revision)),
        ("Base model sha256", _plain(model.sha256)),
    ]
    rows += [
        (f"Choice: {key.replace('_', ' ')}", _plain(value))
        for key, value in (choice if record.choice else {}).items()
        if key != "bit_names"
    ]
    rows += [(f"Version: {key}", _plain(value)) for key, value in record.versions.items()]
    rows += [(f"Hardware: {key}", _plain(value)) for key, value in record.hardware.items()]
    return [(name, value) for name, value in rows if value != numbers.MISSING]


_LOGIN = re.compile(r"(?<=://)[^/@\s]*@")


def config_text(folder: LoadedRun) -> str:
    """Return the resolved configuration as YAML, without this machine's folders and without logins."""
    if not folder.config:
        return ""
    shown = {key: _without_login(value) for key, value in folder.config.items()}
    return str(yaml.safe_dump(without_folders(shown), sort_keys=False, allow_unicode=True)).strip()


def _without_login(value: Any) -> Any:
    return _LOGIN.sub("", value) if isinstance(value, str) else value


def shown_model(identity: object) -> str:
    """Return the model's id for readers; of a local folder its last name only."""
    words = str(identity or "")
    if not words:
        return numbers.MISSING
    return words if is_hub_id(words) else words.replace("\\", "/").rstrip("/").split("/")[-1]


def is_hub_id(identity: str) -> bool:
    """Tell whether a model id has the form of a Hub id (`organisation/name` or `name`)."""
    parts = identity.split("/")
    allowed = all(
        part and part[0] not in ".~-" and all(c.isalnum() or c in "._-" for c in part)
        for part in parts
    )
    return allowed and len(parts) <= 2


_FOLDERS = re.compile(r"(?<![\w:/.])(?:~|[A-Za-z]:)?[\\/](?:[^\s\\/'\",;]+[\\/])+")


def without_folders(value: Any) -> Any:
    """Return a value of JSON with the folders of this machine cut off its paths, names kept."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    return _FOLDERS.sub("", value) if isinstance(value, str) else value


def _plain(value: object) -> str:
    if value is None or value == "":
        return numbers.MISSING
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items()) or numbers.MISSING
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) or numbers.MISSING
    return str(without_folders(str(value)))
