"""The tables of a run as plain rows: methods, groups, counts, search, how to reproduce.

Rows hold finished strings, so that the page, the card and the terminal show the same numbers.
Counts of groups of fewer than ten people are hidden here (see `LoadedRun.hidden_groups`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from fairtune_hf.data.table import SPLITS
from fairtune_hf.metrics import registry

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


def method_results(run: Mapping[str, Any], split: str) -> dict[str, Mapping[str, Any]]:
    """Return the results of the chosen mask and of every control on a split, in table order; none without its own."""
    if not run.get(split):
        return {}
    results: dict[str, Mapping[str, Any]] = {"fairtune": run.get(split) or {}}
    for name, control in (run.get("controls") or {}).items():
        results[str(name)] = (control or {}).get(split) or {}
    return {name: result for name, result in results.items() if result}


def shown_metrics(run: Mapping[str, Any], split: str) -> dict[str, str]:
    """Return name and label of the metrics that a run's results hold: earlier versions measured fewer."""
    held = {name for result in method_results(run, split).values() for name in result}
    return {name: label for name, label in METRICS.items() if name in held or not held}


def method_rows(run: Mapping[str, Any], split: str) -> list[MethodRow]:
    """Return one row a method, the chosen mask first."""
    controls = run.get("controls") or {}
    rows, metrics = [], shown_metrics(run, split)
    for name, result in method_results(run, split).items():
        recipe = (run.get("choice") if name == "fairtune" else controls.get(name)) or {}
        seeds = (run if name == "fairtune" else recipe).get("seeds") or []
        cells = tuple(_metric_cell(result, seeds, metric, split) for metric in metrics)
        rows.append(MethodRow(name, capital(method_name(name)), _detail(recipe), cells))
    return rows


def capital(words: str) -> str:
    """Return the words with a capital first letter."""
    return words[:1].upper() + words[1:]


def _metric_cell(
    result: Mapping[str, Any], seeds: Sequence[Mapping[str, Any]], metric: str, split: str
) -> Cell:
    values = [(item.get(split) or {}).get(metric) for item in seeds]
    known = [float(value) for value in values if numbers.is_number(value)]
    spread = ""
    if len(known) > 1:
        mean = numbers.fraction(sum(known) / len(known))
        low, high = numbers.fraction(min(known)), numbers.fraction(max(known))
        spread = f"{mean} ({low}\u2013{high})"
    return Cell(
        numbers.fraction(result.get(metric)), numbers.interval(result.get(f"{metric}_ci")), spread
    )


def _detail(recipe: Mapping[str, Any]) -> str:
    mask = str(recipe.get("mask") or "")
    parts = []
    if mask and set(mask) <= {"0", "1"}:
        parts.append(f"{mask.count('1')} of {len(mask)} parts trained")
    if numbers.is_number(recipe.get("learning_rate")):
        parts.append(f"rate {numbers.learning_rate(recipe['learning_rate'])}")
    return "\n".join(parts)


def group_rows(folder: LoadedRun, split: str) -> list[GroupRow]:
    """Return one row a group; of those of fewer than ten people the AUC alone is shown."""
    results = method_results(folder.run, split)
    own = folder.part(split).get("groups") or {}
    people = folder.people(split)
    hidden = folder.hidden_groups(split)
    rows = []
    for name in folder.group_order(split):
        row, words = own[name], hidden.get(name)
        others = [(result.get("groups") or {}).get(name) or {} for result in results.values()]
        cells = tuple(
            Cell(numbers.fraction(item.get("auc")), numbers.interval(item.get("auc_ci")))
            for item in others
        )
        n = words or numbers.count(row.get("n"))
        found = words or numbers.positives(row.get("n"), row.get("positives"))
        heads = words or numbers.count(people[name]) if name in people else numbers.MISSING
        rows.append(GroupRow(name, heads, n, found, cells))
    return rows


def split_rows(folder: LoadedRun) -> list[tuple[str, str, str]]:
    """Return split, pictures and patients of every split of the data."""
    frame, told = folder.predictions, folder.part("dataset").get("n_patients") or {}
    rows = []
    for split, number in (folder.part("dataset").get("rows") or {}).items():
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
    given = folder.part("dataset").get("counts") or {}
    names = folder.group_order("test") or folder.group_order("validation")
    names = names or [str(name) for name in folder.part("dataset").get("groups") or []]
    hidden = {split: folder.hidden_groups(split) for split in SPLITS}
    rows = []
    for name in names:
        cells = []
        for split in SPLITS:
            known = (given.get(split) or folder.part(split).get("groups") or {}).get(name) or {}
            cells.append(_data_cell(known, hidden[split].get(name)))
        rows.append((name, tuple(cells)))
    return rows if any(cell != numbers.MISSING for _, cells in rows for cell in cells) else []


def _data_cell(known: Mapping[str, Any], hidden: str | None) -> str:
    if not numbers.is_number(known.get("n")):
        return numbers.MISSING
    n, positive = known["n"], known.get("positives")
    return hidden or f"{numbers.count(n)} ({numbers.positives(n, positive)})"


def search_rows(folder: LoadedRun) -> list[tuple[str, str]]:
    """Return what the search did, in words and numbers."""
    search = folder.part("search")
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
    told = dict(search)
    if "objective" in search:
        told["objective"] = ", ".join(
            name + (" (lower is better)" if sign < 0 else "")
            for name, sign in folder.objectives.items()
        )
    rows = [(label, _plain(told[key])) for key, label in names.items() if key in search]
    epochs, train = (
        search.get("trained_epochs"),
        (folder.part("dataset").get("rows") or {}).get("train"),
    )
    if numbers.is_number(epochs) and numbers.is_number(train):
        rows.append(("Training pictures seen", numbers.count(epochs * train)))
    if numbers.is_number(search.get("seconds")):
        rows.append(("Time", numbers.seconds(search["seconds"])))
    return rows


def reproduce_rows(folder: LoadedRun) -> list[tuple[str, str]]:
    """Return the choice, the hashes, the versions and the machine, flattened to pairs."""
    dataset, model = folder.part("dataset"), folder.part("model")
    rows = [
        ("Data set", _plain(dataset.get("name"))),
        ("Split hash", _plain(dataset.get("split_hash"))),
    ]
    rows += [(f"Data option: {key}", _plain(value)) for key, value in _items(dataset, "options")]
    rows += [
        ("Base model", shown_model(model.get("id"))),
        ("Base model revision", _plain(model.get("revision"))),
        ("Base model sha256", _plain(model.get("sha256"))),
    ]
    hidden = {"bit_names"}
    rows += [
        (f"Choice: {key.replace('_', ' ')}", _plain(value))
        for key, value in folder.part("choice").items()
        if key not in hidden
    ]
    rows += [(f"Version: {key}", _plain(value)) for key, value in _items(folder.run, "versions")]
    rows += [(f"Hardware: {key}", _plain(value)) for key, value in _items(folder.run, "hardware")]
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


def _items(part: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    found = part.get(key)
    return [(str(name), value) for name, value in found.items()] if isinstance(found, dict) else []


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
