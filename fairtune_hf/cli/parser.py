"""Flags and YAML files into dataclasses, with errors that name the closest flag.

A YAML file is turned into flags placed before those of the command line, so that both go through
the same checks and conversions and the command line wins.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from fairtune_hf.data.folder_hf import is_hub_id
from fairtune_hf.run_record import parse_yaml

_WIDTH = 100


class RecipeParser(HfArgumentParser):
    """HfArgumentParser with `--config FILE.yaml`, a help of one line a flag, and errors as ValueError.

    Args:
        command: Name of the subcommand.
        purpose: One sentence for the help.
        example: A command line that works, for the help.
        dataclass_types: What to parse into; every field needs a `help` in its metadata. Fields in a
            class's `rare` are only named by `--help`, which fits a screen, and explained by `--help-all`.
        unlisted: Those of them that the help leaves to another command: dataclass -> the command.
    """

    def __init__(
        self,
        command: str,
        purpose: str,
        example: str,
        dataclass_types: Iterable[Any],
        unlisted: Mapping[Any, str] | None = None,
    ) -> None:
        self.purpose, self.example = purpose, example
        self.parts, self.unlisted = list(dataclass_types), dict(unlisted or {})
        super().__init__(self.parts, prog=f"fairtune {command}", allow_abbrev=False)
        for action in self._actions:
            if (
                action.type is string_to_bool
            ):  # a switch may stand alone, also one without a default
                action.nargs, action.const = "?", True
        self.add_argument("--config", help="YAML file of flags; flags given here override it.")

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
        *parsed, _, unknown = self.parse_args_into_dataclasses(
            args=flags, return_remaining_strings=True, look_for_args_file=False
        )
        if unknown:
            # What follows an unknown flag is its value; a word that follows none is a mistake itself.
            flags = [word for word in unknown if word.startswith("-")] or unknown
            self._refuse_unknown([flag.split("=")[0] for flag in flags], "flag")
        given = {
            flag.split("=")[0].lstrip("-").replace("-", "_")
            for flag in flags
            if flag.startswith("--")
        }
        return tuple(parsed), frozenset(given)

    def format_help(self, *, whole: bool = False) -> str:
        """One line a flag, under the heading of its dataclass, and an example."""
        lines = [*textwrap.wrap(self.purpose, _WIDTH), "", f"Example: {self.example}", ""]
        named = []
        for part in self.parts:
            if part in self.unlisted:
                first = dataclasses.fields(part)[0].name.replace("_", "-")
                words = f"And the other flags of its recipes: see `{self.unlisted[part]} --help`."
                lines.append(_help_line(f"--{first} ...", words))
                continue
            if part.__name__ == "DataOptions":  # long, and of one data set at a time
                lines += [
                    _help_line(
                        "--label-rule ...", "Options of a data set: see `fairtune prepare --list`."
                    )
                ]
                continue
            for f in dataclasses.fields(part):
                if f.name in getattr(part, "rare", ()) and not whole:
                    named.append(_flag(f))
                else:
                    lines.append(self._field_line(f))
        lines += [
            _help_line("--config FILE", "YAML file of these flags; flags on the command line win.")
        ]
        if named:
            lines.append(_help_line("--help-all", f"Explains the rest too: {' '.join(named)}."))
        return "\n".join(lines) + "\n"

    def error(self, message: str) -> NoReturn:
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
            close = difflib.get_close_matches(
                name.lstrip("-").replace("-", "_"), self._field_names(), n=1, cutoff=0.5
            )
            is_flag = not kind.startswith("key")
            as_given = [f"--{word.replace('_', '-')}" if is_flag else word for word in close]
            hints.append(f"{name} (did you mean {as_given[0]}?)" if close else name)
        raise ValueError(
            f"expected flags that it knows, got the unknown {kind}: {', '.join(hints)}. "
            f"Run `{self.prog} --help` for the flags and an example."
        )

    def _field_line(self, field: dataclasses.Field[Any]) -> str:
        known = next(action for action in self._actions if action.dest == field.name)
        words = [field.metadata["help"]]
        if known.choices:
            words.append(f"One of {' '.join(map(str, known.choices))}.")
        if not (field.default is None or isinstance(field.default, bool)):
            words.append(f"[{field.default}]")
        return _help_line(_flag(field), " ".join(words))


def _flag(field: dataclasses.Field[Any]) -> str:
    return f"--{field.name.replace('_', '-')}"


def _help_line(flag: str, text: str) -> str:
    wrapped = textwrap.wrap(text, _WIDTH - 26, break_on_hyphens=False)
    return "\n".join([f"  {flag:<23} {wrapped[0]}", *(f"{'':<26}{line}" for line in wrapped[1:])])


def _beside(file: Path, value: Any) -> Any:
    """Return a relative folder of a YAML file as a path from the file's own folder; a hub id stays."""
    if not isinstance(value, str) or value.startswith("~"):
        return value
    place = file.parent.absolute() / value
    meant_here = place.exists() or place.parent.exists()
    return str(place) if meant_here or not is_hub_id(value) else value


def _as_flags(key: str, value: Any) -> list[str]:
    """One YAML entry as command-line words: lists are repeated values, mappings JSON, null is left out."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [f"--{key}", json.dumps(value)]
    if isinstance(value, list):
        return [f"--{key}", *map(str, value)]
    return [f"--{key}", str(value)]
