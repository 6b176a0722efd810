"""Records and settings that are none: told with the reason, at once, whatever is in the file."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fairtune_hf.run_record import parse_record, parse_yaml

CHOICE = {"mask": "01", "layout": "attention", "learning_rate": 1e-3, "seed": 0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ('{"choice": {"mask"', "it is no JSON"),
        ('{"choice": NaN}', "NaN is no number of JSON"),
        ("null", "it holds null"),
        ("[]", "it holds a list"),
        ('"run"', "it holds a text"),
        ("[" * 100_000, "it nests without end"),
        ('{"search": ' + "[" * 40 + "]" * 40 + "}", "deeper than 30 levels"),
        ("9" * 5000, "it is no JSON"),
        ('{"schema_version": null}', "schema_version is not a whole number but null"),
        ('{"choice": []}', "choice is not an object but a list"),
        ('{"choice": {}}', "choice has no mask"),
        (json.dumps({"choice": {**CHOICE, "seed": True}}), "choice.seed is not a whole number"),
        ('{"controls": {"full_blocks": null}}', "controls.full_blocks is not an object but null"),
        ('{"seeds": {}}', "seeds is not a list but an object"),
        ('{"seeds": [{"seed": "0"}]}', r"seeds\[0\].seed is not a whole number but a text"),
        ('{"test": {"groups": []}}', "test.groups is not an object but a list"),
        ('{"warnings": "few"}', "warnings is not a list but a text"),
    ],
)
def test_a_record_that_is_none_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_record(text)


@pytest.mark.parametrize(
    "record", [{}, {"choice": None}, {"choice": CHOICE, "test": {}}, {"search": {"trials": None}}]
)
def test_parts_that_are_not_known_yet_are_no_fault(record: dict[str, Any]) -> None:
    assert parse_record(json.dumps(record)) == record


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("trials: " + "[" * 20_000, "deeper than 30 levels"),
        ("- " * 20_000, "deeper than 30 levels"),
        ("trials: &a [*a]", "deeper than 30 levels"),
        (BOMB, "more than 20 aliases"),
        ("trials: [", "it is no YAML"),
        ("!!python/object:os.system {}", "it is no YAML"),
    ],
)
def test_yaml_that_holds_no_settings_is_refused_before_it_is_built(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_yaml(text)


def test_settings_are_read_as_they_are() -> None:
    text = "trials: 3\nmethods: [full, lora]\ntraining_arguments: {report_to: [tensorboard]}\n"
    assert parse_yaml(text) == {
        "trials": 3,
        "methods": ["full", "lora"],
        "training_arguments": {"report_to": ["tensorboard"]},
    }
