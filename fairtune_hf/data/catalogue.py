"""The declarations as text, for `fairtune prepare --list`."""

from __future__ import annotations

import textwrap

from fairtune_hf.data.declaration import COMMON_OPTIONS, DatasetSpec, OptionSpec
from fairtune_hf.data.registry import dataset_specs
from fairtune_hf.naming import flag_of

WIDTH = 100


def list_datasets() -> str:
    """Describe every data set: what it is, its rules and options, and how to obtain it."""
    parts = [describe_dataset(spec) for spec in dataset_specs().values()]
    common = [_option(option) for option in COMMON_OPTIONS]
    return "\n\n".join([*parts, "\n".join(["Options of every data set:", *common])])


def describe_dataset(spec: DatasetSpec) -> str:
    """Describe one data set."""
    counts = ", ".join(f"{name} {count}" for name, count in spec.expected_counts.items())
    told = {
        **spec.rules,
        "left out": spec.filters,
        "split": f"{spec.split_rules[0]}; by {spec.split_unit}",
        "expected": counts,
        "stored": spec.preprocessing,
        "class weight": spec.class_weight or "",
        "to obtain": spec.steps,
    }
    lines = [f"{spec.name}: {spec.title}"]
    lines += [_wrapped(name, text) for name, text in told.items() if text]
    own = [o for o in spec.all_options.values() if o not in COMMON_OPTIONS]
    return "\n".join([*lines, *(_option(o) for o in own)])


def count_differences(spec: DatasetSpec, found: dict[str, int]) -> list[str]:
    """Say where counts differ from the published ones."""
    return [
        f"the published set has {expected} {name} and this one {found[name]}"
        for name, expected in spec.expected_counts.items()
        if name in found and found[name] != expected
    ]


def _option(option: OptionSpec) -> str:
    choices = f" ({'|'.join(option.choices)})" if option.choices else ""
    default = "" if option.default in ("", False) else f", default {option.default}"
    return _wrapped(f"{flag_of(option.name)}{choices}{default}", option.help)


def _wrapped(name: str, text: str) -> str:
    return textwrap.fill(f"{name}: {text}", WIDTH, initial_indent="  ", subsequent_indent="      ")
