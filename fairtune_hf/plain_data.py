"""Plain data from files, read strictly: JSON and YAML from text, and JSON as dataclasses and back.

A file that was cut off, emptied, nested without end or filled with other kinds of values is told
apart here, with the reason, before any step works with it. Imports nothing of the package.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml

_DEEPEST = 30  # the records that are written here nest 9 levels
_MOST_ALIASES = 20
# Of a field: it must be there where its object is; its object's entries lie among those of the object that
# holds it; it takes the entries that no other field names.
REQUIRED, FLAT, REST = ({"plain": word} for word in ("required", "flat", "rest"))


@dataclasses.dataclass(kw_only=True)
class Part:
    """An object of a file; one in which nothing is known is false, and null in the file."""

    def __bool__(self) -> bool:
        return self != type(self)()


def parse_json(text: str) -> dict[str, Any]:
    """Read the text of a JSON file that holds an object.

    Raises:
        ValueError: It does not; the message is the reason, without the file's name.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it nests without end") from error
    except ValueError as error:
        raise ValueError(
            f"it is no JSON, as when it was cut off ({error})" if text.strip() else "it is empty"
        ) from error
    if _is_deep(content):
        raise ValueError(f"it nests deeper than {_DEEPEST} levels")
    if not isinstance(content, dict):
        raise ValueError(f"it holds {_kind(content)}, not an object")
    return content


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


@functools.cache
def _fields(kind: Any) -> tuple[tuple[str, Any, str], ...]:
    """Return name, type and place (see `REQUIRED`) of each field of a dataclass."""
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)
    return tuple((f.name, hints[f.name], f.metadata.get("plain", "")) for f in fields)


def read_as(kind: Any, value: Any, place: str = "") -> Any:
    """Build what a type annotation says of a value of JSON; null is what the field has by itself.

    Args:
        kind: A dataclass, `list[X]`, `dict[str, X]`, `X | None`, `Any`, or str, int, float or bool.
        value: Plain data.
        place: Where it stands in its file, for messages.

    Raises:
        ValueError: It is of another kind, or lacks an entry; the message says which.
    """
    if kind is Any:
        return value
    origin, inner = get_origin(kind), get_args(kind)
    if _may_be_null(kind):
        return None if value is None else read_as(inner[0], value, place)
    if origin is list:
        _check_kind(place, value, list)
        return [read_as(inner[0], item, f"{place}[{n}]") for n, item in enumerate(value)]
    if origin is dict:
        _check_kind(place, value, dict)
        return {name: read_as(inner[1], item, f"{place}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(kind):
        _check_kind(place, value, dict)
        return _read_object(kind, value, place)
    _check_kind(place, value, (int, float) if kind is float else kind)
    return value


def _read_object(kind: Any, value: dict[str, Any], place: str) -> Any:
    found: dict[str, Any] = {}
    left = dict(value)
    for name, hint, role in _fields(kind):
        where = f"{place}.{name}" if place else name
        if role == "rest":
            continue
        if role == "flat":
            held = {key: left.pop(key, None) for key, _, _ in _fields(hint)}
            if any(item is not None for item in held.values()):
                found[name] = read_as(hint, held, place)
        elif name not in left:
            if role == "required":
                raise ValueError(f"{place} has no {name}")
        elif (item := left.pop(name)) is not None or role == "required" or _may_be_null(hint):
            found[name] = read_as(hint, item, where)
    rest = next((name for name, _, role in _fields(kind) if role == "rest"), None)
    return kind(**found) if rest is None else kind(**found, **{rest: left})


def _may_be_null(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def to_plain(value: Any) -> Any:
    """Return what `read_as` reads back: dataclasses as dictionaries, in them those in which nothing is known as None."""
    if isinstance(value, Part):
        return _plain_fields(value)
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def _plain_fields(part: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    kind: Any = type(part)
    for name, hint, role in _fields(kind):
        held = getattr(part, name)
        if role == "rest":
            plain |= to_plain(held)
        elif role == "flat":
            nothing = dict.fromkeys(key for key, _, _ in _fields(hint))
            plain |= _plain_fields(held) if held else nothing
        else:
            plain[name] = None if isinstance(held, Part) and not held else to_plain(held)
    return plain


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
