"""Reads a run.json, of this release or an earlier one, and tells what is none apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fairtune_hf.plain_data import parse_json, read_as
from fairtune_hf.run_record import (
    FAIRTUNE,
    SCHEMA_VERSION,
    SPLITS,
    ChoiceRecord,
    MethodRecord,
    Result,
    RunRecord,
    SearchRecord,
    SeedRecord,
    summarize,
)


def parse_record(text: str) -> RunRecord:
    """Read the text of a run.json.

    Raises:
        ValueError: It is no record of a run; the message is the reason, without the file's name.
    """
    raw = parse_json(text)
    version = read_as(int, raw.get("schema_version", 1), "schema_version")
    if version < SCHEMA_VERSION:
        return _from_schema_1(raw)
    if version > SCHEMA_VERSION:  # whose shape is not known; whoever asked for it says so
        return RunRecord(schema_version=version)
    record: RunRecord = read_as(RunRecord, raw)
    for name, found in summarize(record).items():
        told = record.more.pop(name, found)
        if not _agree(told, found):
            raise ValueError(
                f"its {name} is not that of its methods, as when it was edited by hand"
            )
    return record


def _agree(told: Any, found: Any) -> bool:
    """Whether a summary in a file is the one made now; it may lack entries that it has no value for.

    A release that was before an entry did not write it.
    """
    if isinstance(told, dict) and isinstance(found, dict):
        missing = found.keys() - told.keys()
        same = told.keys() <= found.keys() and all(_agree(told[k], found[k]) for k in told)
        return same and all(found[name] is None for name in missing)
    if isinstance(told, list) and isinstance(found, list):
        return len(told) == len(found) and all(map(_agree, told, found))
    return bool(told == found)


# Parts of the earlier schema that are a method's now; the others are what they were.
_OF_METHODS: dict[str, Any] = {
    "choice": ChoiceRecord | None,
    "method": MethodRecord | None,
    "search": SearchRecord | None,
    "cost": Any,
    "validation": Result | None,
    "test": Result | None,
    "seeds": list[SeedRecord] | None,
    "controls": dict[str, dict[str, Any]] | None,
}


def _from_schema_1(raw: Mapping[str, Any]) -> RunRecord:
    """Read a record of an earlier release.

    Raises:
        ValueError: A part is of another kind, or lacks an entry.
    """
    left = {name: part for name, part in raw.items() if name != "schema_version"}
    old = {name: read_as(kind, left.pop(name, None), name) for name, kind in _OF_METHODS.items()}
    record: RunRecord = read_as(RunRecord, left)
    choice, own = old["choice"] or ChoiceRecord(), old["method"] or MethodRecord()
    if old["choice"] is not None and choice.seed is None:
        raise ValueError("choice has no seed")
    if old["method"] is not None and "name" not in own.more:
        raise ValueError("method has no name")
    record.chosen = read_as(str, own.more.pop("name", FAIRTUNE), "method.name")
    cost = old["cost"] if isinstance(old["cost"], dict) else {}
    own.choice, own.search = choice, old["search"] or SearchRecord()
    own.cost = {step: entry for step, entry in cost.items() if isinstance(entry, dict)}
    own.seeds = _seeds(old, choice.seed)
    record.methods = {record.chosen: own} if own else {}
    for name, entry in (old["controls"] or {}).items():
        record.methods[name] = _read_control(entry, choice.seed, f"controls.{name}")
    compared = next((item.reference for item in record.comparisons), None)
    record.reference = record.chosen if compared in record.controls else compared
    return record


def _read_control(entry: dict[str, Any], first: int | None, place: str) -> MethodRecord:
    told = {
        split: read_as(Result | None, entry.pop(split, None), f"{place}.{split}")
        for split in SPLITS
    }
    control: MethodRecord = read_as(MethodRecord, entry, place)
    if not control.choice:
        raise ValueError(f"{place} has no mask")
    control.seeds = _seeds({**told, "seeds": control.seeds}, first)
    return control


def _seeds(told: Mapping[str, Any], first: int | None) -> list[SeedRecord]:
    """Return the refits, among them that with the first seed as the results beside them say."""
    seeds: list[SeedRecord] = told["seeds"] or []
    results: dict[str, Any] = {split: told[split] or Result() for split in SPLITS}
    if any(results.values()) and not any(entry.seed == first for entry in seeds):
        return [SeedRecord(**results), *seeds]
    return [replace(entry, **results) if entry.seed == first else entry for entry in seeds]
