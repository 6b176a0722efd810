"""Flags and YAML files into dataclasses, with errors that name the closest flag.

A YAML file is turned into flags placed before those of the command line, so that both go through
the same checks and conversions and the command line wins.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn

from fairtune_hf import data
from fairtune_hf.cli.arguments import data_options
from fairtune_hf.naming import closest_name, flag_of
from fairtune_hf.plain_data import parse_yaml

_WIDTH = 100
_TRUE, _FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")


class RecipeParser:
    """Flags of dataclasses, `--config FILE.yaml`, a help of one line a flag, and errors as ValueError.

    It does what transformers' `HfArgumentParser` does for these fields, without its two seconds of imports.

    Args:
        command: Name of the subcommand.
        purpose: One sentence for the help.
        example: A command line that works, for the help.
        parts: Dataclasses to parse into, or `data_options`, which makes one; every field needs a `help` in its
            metadata. Fields in a class's `rare` are only named by `--help`, which fits a screen, and explained
            by `--help-all`.
        unlisted: Those of them that the help leaves to another command: dataclass -> the command.
        check: Called with the parsed parts and the names given; refuses what lacks or contradicts a flag.
    """

    def __init__(
        self,
        command: str,
        purpose: str,
        example: str,
        parts: Iterable[Any],
        *,
        unlisted: Mapping[Any, str] | None = None,
        check: Callable[[Sequence[Any], frozenset[str]], None] | None = None,
    ) -> None:
        self.command, self.prog = command, f"fairtune {command}"
        self.purpose, self.example = purpose, example
        self._parts, self.unlisted, self._check = list(parts), dict(unlisted or {}), check

    @cached_property
    def parts(self) -> list[type]:
        """The dataclasses; those of the data sets are read only now."""
        return [data_options() if part is data_options else part for part in self._parts]

    @cached_property
    def _flags(self) -> argparse.ArgumentParser:
        flags = argparse.ArgumentParser(prog=self.prog, allow_abbrev=False, add_help=False)
        flags.error = self._refuse  # type: ignore[method-assign]
        flags.add_argument("--config")
        for part in self.parts:
            hints = typing.get_type_hints(part)
            for field in dataclasses.fields(part):
                _add_flag(flags, field, _kind(hints[field.name]))
        return flags

    def parse(self, arguments: Sequence[str]) -> tuple[tuple[Any, ...], frozenset[str]]:
        """Parse flags and the YAML file they may name.

        Returns:
            One object a dataclass, and the names of the fields that were given, by flag or file.

        Raises:
            FileNotFoundError: The YAML file is absent.
            ValueError: Unknown flags or keys (all of them named), or a value of the wrong kind.
        """
        first, _ = self._config_only().parse_known_args(list(arguments))
        from_file = [] if first.config is None else self._file_flags(Path(first.config))
        flags = [*from_file, *arguments]
        if self._words_field is not None:
            flags = self._apart_from_switches(flags)
        found, unknown = self._flags.parse_known_args(flags)
        if self._words_field is not None and not any(word.startswith("-") for word in unknown):
            self._take_words(found, unknown)
            flags, unknown = [*flags, *([f"--{self._words_field}"] if unknown else [])], []
        if unknown:
            # What follows an unknown flag is its value; a word that follows none is a mistake itself.
            flags = [word for word in unknown if word.startswith("-")] or unknown
            self._refuse_unknown([flag.split("=")[0] for flag in flags], "flag")
        given = frozenset(
            flag.split("=")[0].lstrip("-").replace("-", "_")
            for flag in flags
            if flag.startswith("--")
        )
        parsed = tuple(
            part(**{field.name: getattr(found, field.name) for field in dataclasses.fields(part)})
            for part in self.parts
        )
        if self._check is not None:
            self._check(parsed, given)
        return parsed, given

    @cached_property
    def _words_field(self) -> str | None:
        """Name of the field that takes words which follow no flag, if there is one."""
        fields = (f for part in self.parts for f in dataclasses.fields(part))
        return next((f.name for f in fields if f.metadata.get("words")), None)

    def _apart_from_switches(self, words: Sequence[str]) -> list[str]:
        """Keep a switch from taking the word after it, which here may be a file, for its value."""
        switches = {name for part in self.parts for name in _switches(part)}
        followed = zip(words, [*words[1:], ""], strict=True)
        return [
            f"{word}=true" if word in switches and after.lower() not in _TRUE + _FALSE else word
            for word, after in followed
        ]

    def _take_words(self, found: argparse.Namespace, words: Sequence[str]) -> None:
        """Add words that follow no flag to those of their field."""
        name = str(self._words_field)
        held = getattr(found, name) or []
        setattr(found, name, [*held, *words] or None)

    def format_help(self, *, whole: bool = False) -> str:
        """One line a flag, under the heading of its dataclass, and an example."""
        lines = [*textwrap.wrap(self.purpose, _WIDTH), "", f"Example: {self.example}", ""]
        named = []
        for part in self._parts:
            if part in self.unlisted:
                first = dataclasses.fields(part)[0].name.replace("_", "-")
                words = f"And the other flags of its recipes: see `{self.unlisted[part]} --help`."
                lines.append(_help_line(f"--{first} ...", words))
                continue
            if part is data_options:  # long, and of one data set at a time
                lines += [
                    _help_line(
                        "--label-rule ...", "Options of a data set: see `fairtune prepare --list`."
                    )
                ]
                continue
            hints = typing.get_type_hints(part)
            for f in dataclasses.fields(part):
                if f.name in getattr(part, "rare", ()) and not whole:
                    named.append(flag_of(f.name))
                else:
                    lines.append(_field_line(f, _kind(hints[f.name])))
        lines += [
            _help_line("--config FILE", "YAML file of these flags; flags on the command line win.")
        ]
        if named:
            lines.append(_help_line("--help-all", f"Explains the rest too: {' '.join(named)}."))
        return "\n".join(lines) + "\n"

    def _refuse(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise ValueError(f"{message}. Run `{self.prog} --help` for the flags and an example.")

    def _config_only(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--config")
        return parser

    def _file_flags(self, path: Path) -> list[str]:
        if not path.is_file():
            raise FileNotFoundError(
                f"--config: expected a YAML file, and there is no file {path}. `fairtune recipes` lists those that "
                "come with the package."
            )
        try:
            content = parse_yaml(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"--config: expected YAML in {path}, and {error}. Correct the file; `fairtune recipes` lists some that work."
            ) from error
        if not isinstance(content, dict):
            raise ValueError(
                f"--config: expected `key: value` lines in {path}, got {type(content).__name__}."
            )
        keys = [str(key).replace("-", "_") for key in content]
        unknown = [key for key in keys if key not in self._field_names()]
        if unknown:
            self._refuse_unknown(unknown, f"key in {path.name}")
        return [
            flag
            for key, value in zip(keys, content.values(), strict=True)
            for flag in _as_flags(key, _beside(path, value) if key == "data_root" else value)
        ]

    def _field_names(self) -> list[str]:
        return [f.name for part in self.parts for f in dataclasses.fields(part)]

    def _refuse_unknown(self, unknown: Sequence[str], kind: str) -> NoReturn:
        hints = []
        for name in unknown:
            close = closest_name(name.lstrip("-").replace("-", "_"), self._field_names())
            if close is not None:
                as_given = close if kind.startswith("key") else flag_of(close)
                name = f"{name} (did you mean {as_given}?)"
            hints.append(name)
        raise ValueError(
            f"expected flags that it knows, got the unknown {kind}: {', '.join(hints)}. "
            f"Run `{self.prog} --help` for the flags and an example."
        )


def _switches(part: type) -> list[str]:
    """Name the flags of a dataclass that may stand alone."""
    hints = typing.get_type_hints(part)
    names = [f.name for f in dataclasses.fields(part) if _kind(hints[f.name]) is bool]
    return [f"--{spelt}" for name in names for spelt in (name, name.replace("_", "-"))]


def _field_line(field: dataclasses.Field[Any], kind: Any) -> str:
    words = [field.metadata["help"]]
    if typing.get_origin(kind) is Literal:
        words.append(f"One of {' '.join(typing.get_args(kind))}.")
    if not (field.default is None or isinstance(field.default, bool)):
        words.append(f"[{field.default}]")
    return _help_line(flag_of(field.name), " ".join(words))


def _help_line(flag: str, text: str) -> str:
    wrapped = textwrap.wrap(text, _WIDTH - 26, break_on_hyphens=False)
    return "\n".join([f"  {flag:<23} {wrapped[0]}", *(f"{'':<26}{line}" for line in wrapped[1:])])


def _kind(hint: Any) -> Any:
    """Return what a value is when it is not None."""
    kinds = [each for each in typing.get_args(hint) if each is not NoneType]
    return kinds[0] if NoneType in typing.get_args(hint) else hint


def _add_flag(flags: argparse.ArgumentParser, field: dataclasses.Field[Any], kind: Any) -> None:
    """Add `--some_field` and `--some-field`; a switch that is on gets `--no-some-field` too."""
    names = dict.fromkeys((field.name, field.name.replace("_", "-")))
    settings: dict[str, Any] = {"default": field.default, "type": kind}
    if typing.get_origin(kind) is Literal:
        settings |= {"choices": typing.get_args(kind), "type": str}
    elif typing.get_origin(kind) is list:
        settings |= {"nargs": "+", "type": typing.get_args(kind)[0]}
    elif kind is bool:  # a switch may stand alone, also one without a default
        settings |= {"nargs": "?", "const": True, "type": _to_bool}
    flags.add_argument(*(f"--{name}" for name in names), **settings)
    if field.default is True:
        against = (f"--no_{field.name}", f"--no-{field.name.replace('_', '-')}")
        flags.add_argument(*against, dest=field.name, action="store_false", default=True)


def _to_bool(word: str) -> bool:
    if word.lower() not in _TRUE + _FALSE:
        raise argparse.ArgumentTypeError(f"expected true or false, got {word!r}")
    return word.lower() in _TRUE


def _beside(file: Path, value: Any) -> Any:
    """Return a relative folder of a YAML file as a path from the file's own folder; a hub id stays."""
    if not isinstance(value, str) or value.startswith("~"):
        return value
    place = file.parent.absolute() / value
    meant_here = place.exists() or place.parent.exists()
    return str(place) if meant_here or not data.is_hub_id(value) else value


def _as_flags(key: str, value: Any) -> list[str]:
    """One YAML entry as command-line words: lists are repeated values, mappings JSON, null is left out."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [f"--{key}", json.dumps(value)]
    if isinstance(value, list):
        return [f"--{key}", *map(str, value)]
    return [f"--{key}", str(value)]
