"""What a `run.json` and a configuration may look like: read from text, with the reason where it is none.

A file that was cut off, emptied, nested without end or filled with other kinds of values is told
apart here, before any step works with it. Imports nothing of the package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import yaml

_DEEPEST = 30  # the records that are written here nest 8 levels
_MOST_ALIASES = 20
_NUMBER = (int, float)
_BLOCK = {"groups?": {"*": dict}}
_TRAINED = {"mask": str, "layout": str, "learning_rate": _NUMBER}
_LIMITED = {"wall_seconds?": _NUMBER, "trained_epochs?": _NUMBER}
# Part -> the kind of value, or the entries it must have where it is not null. "*" stands for every entry, a
# name with a question mark for one that may be missing or null.
_SHAPE: Mapping[str, Any] = {
    "dataset": {"sensitive": str, "split_hash": str},
    "model": {"sha256": str},
    "choice": {**_TRAINED, "seed": int},
    "method": {"name": str},
    "search": {"trials?": int, "completed?": int, "pruned?": int, "objective?": str, **_LIMITED},
    "validation": _BLOCK,
    "test": _BLOCK,
    "seeds": [{"seed": int}],
    "controls": {"*": _TRAINED},
    "comparisons": [{"metric": str, "reference": str, "split": str}],
    "verdict": str,
    "versions": {},
    "hardware": {},
    "warnings": [str],
}


def parse_record(text: str) -> dict[str, Any]:
    """Read the text of a run.json.

    Raises:
        ValueError: It is no record of a run; the message is the reason, without the file's name.
    """
    try:
        record = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it nests without end") from error
    except ValueError as error:
        raise ValueError(
            f"it is no JSON, as when it was cut off ({error})" if text.strip() else "it is empty"
        ) from error
    if _is_deep(record):
        raise ValueError(f"it nests deeper than {_DEEPEST} levels")
    if not isinstance(record, dict):
        raise ValueError(f"it holds {_kind(record)}, not an object")
    _check_kind("schema_version", record.get("schema_version", 1), int)
    for part, shape in _SHAPE.items():
        if record.get(part) is not None:
            _check(part, record[part], shape)
    return record


def parse_yaml(text: str) -> Any:
    """Read the text of a YAML file of settings.

    Raises:
        ValueError: It is no YAML, or nests or, by its aliases, holds more than settings do.
    """
    try:
        _check_yaml_depth(text)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"it is no YAML ({error})") from error
    if _is_deep(content):  # an alias within itself
        raise ValueError(f"it nests deeper than {_DEEPEST} levels")
    return content


def _check_yaml_depth(text: str) -> None:
    """Look at the levels before anything is built of them: PyYAML takes seconds for thousands.

    Raises:
        ValueError: It nests too deep, or repeats itself by too many aliases.
    """
    depth = aliases = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it nests deeper than {_DEEPEST} levels")
        if aliases > _MOST_ALIASES:
            raise ValueError(f"it has more than {_MOST_ALIASES} aliases")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _is_deep(value: Any) -> bool:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            return True
        level = [
            item
            for held in level
            if isinstance(held, dict | list)
            for item in (held.values() if isinstance(held, dict) else held)
        ]
    return False


def _check(place: str, value: Any, shape: Any) -> None:
    """Compare a value with its shape.

    Raises:
        ValueError: It is of another kind, or lacks an entry.
    """
    if isinstance(shape, list):
        _check_kind(place, value, list)
        for number, item in enumerate(value):
            _check(f"{place}[{number}]", item, shape[0])
    elif isinstance(shape, Mapping):
        _check_kind(place, value, dict)
        inner = dict.fromkeys(value, shape["*"]) if "*" in shape else shape
        for key, its_shape in inner.items():
            name = key.removesuffix("?")
            if name in value and not (name != key and value[name] is None):
                _check(f"{place}.{name}", value[name], its_shape)
            elif name == key:
                raise ValueError(f"{place} has no {name}")
    else:
        _check_kind(place, value, shape)


def _check_kind(place: str, value: Any, kind: Any) -> None:
    # True is an int to Python, and no count to anybody.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = " or ".join(_NAMES[k] for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{place} is not {wanted} but {_kind(value)}")


_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
}


def _kind(value: object) -> str:
    return "null" if value is None else _NAMES.get(type(value), type(value).__name__)
