"""Records and settings that are none: told with the reason, at once, whatever is in the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairtune_hf.plain_data import parse_yaml
from fairtune_hf.record_reader import parse_record
from fairtune_hf.run_record import MethodRecord, RunRecord

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
    read = parse_record(json.dumps(record)).to_json()
    for part, held in record.items():
        known = {name: value for name, value in (held or {}).items() if value is not None}
        assert known.items() <= (read[part] or {}).items()


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


SCHEMA_1 = Path(__file__).parent / "schema_1"


def require_told(old: Any, new: Any, place: str) -> None:
    """Look for every value of an earlier record at its place in the new one."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name, held in old.items():
            require_told(held, new[name], f"{place}.{name}")
    elif isinstance(old, list) and old:
        for number, (held, found) in enumerate(zip(old, new, strict=True)):
            require_told(held, found, f"{place}[{number}]")
    else:
        assert old == new or not (old or new), place


@pytest.mark.parametrize("name", ["search", "method"])
def test_an_earlier_record_keeps_every_value_at_its_place(name: str) -> None:
    old = json.loads((SCHEMA_1 / f"{name}.json").read_text())
    record = parse_record(json.dumps(old))
    new = record.to_json()
    require_told({k: v for k, v in old.items() if k != "schema_version"}, new, "")
    assert new["schema_version"] == 2
    assert parse_record(json.dumps(new)) == record


def test_a_record_of_a_comparison_has_no_summary() -> None:
    record = parse_record((SCHEMA_1 / "search.json").read_text())
    record.chosen = None
    plain = record.to_json()
    assert not any(plain[part] for part in ("choice", "search", "test", "seeds", "controls"))
    assert parse_record(json.dumps(plain)) == record


def test_a_method_that_failed_before_its_choice_is_written_with_nulls() -> None:
    record = RunRecord(chosen="lora", methods={"lora": MethodRecord(failure="too few epochs")})
    text = json.dumps(record.to_json(), allow_nan=False)
    assert json.loads(text)["methods"]["lora"]["learning_rate"] is None
    assert parse_record(text) == record


def test_methods_have_one_shape() -> None:
    methods = parse_record((SCHEMA_1 / "search.json").read_text()).to_json()["methods"]
    assert list(methods) == ["fairtune", "full_blocks", "linear_readout", "random_mask"]
    assert len({tuple(method) for method in methods.values()}) == 1
    for method in methods.values():
        assert [seed["seed"] for seed in method["seeds"]] == [0, 1, 2]
        assert method["mask"].strip("01") == ""


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("choice", lambda choice: choice.update(mask="0" * 36)),
        ("test", lambda test: test.update(min_auc=0.99)),
        ("controls", lambda controls: controls.pop("full_blocks")),
    ],
)
def test_a_summary_that_was_edited_is_noticed(
    part: str, change: Callable[[dict[str, Any]], object]
) -> None:
    record = parse_record((SCHEMA_1 / "search.json").read_text()).to_json()
    plain = json.loads(json.dumps(record))
    change(plain[part])
    with pytest.raises(ValueError, match=f"its {part} is not that of its methods"):
        parse_record(json.dumps(plain))


def test_a_record_from_before_an_entry_was_added_is_read() -> None:
    record = parse_record((SCHEMA_1 / "search.json").read_text())
    plain = json.loads(json.dumps(record.to_json()))
    for search in (plain["search"], plain["methods"]["fairtune"]["search"]):
        assert search.pop("policy") is None
        assert search.pop("shared") is None
    assert parse_record(json.dumps(plain)) == record
    del plain["search"]["trials"]  # which has a value
    with pytest.raises(ValueError, match="its search is not that of its methods"):
        parse_record(json.dumps(plain))


def test_what_a_newer_release_adds_is_kept() -> None:
    plain = parse_record((SCHEMA_1 / "search.json").read_text()).to_json()
    plain["methods"]["fairtune"]["search"]["patience"] = 3
    plain["search"]["patience"] = plain["methods"]["fairtune"]["search"]["patience"]
    plain["approved_by"] = "nobody"
    again = parse_record(json.dumps(plain)).to_json()
    assert again == plain


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layout": None}, r"methods\.fairtune\.layout is not a text but null"),
        ({"learning_rate": "fast"}, r"methods\.fairtune\.learning_rate is not a whole number or a"),
        ({"seeds": [{"seed": True}]}, r"methods\.fairtune\.seeds\[0\]\.seed is not a whole number"),
        ({"search": []}, r"methods\.fairtune\.search is not an object but a list"),
    ],
)
def test_a_method_that_is_none_is_refused_with_the_reason(
    change: dict[str, Any], reason: str
) -> None:
    plain = parse_record((SCHEMA_1 / "search.json").read_text()).to_json()
    plain["methods"]["fairtune"].update(change)
    with pytest.raises(ValueError, match=reason):
        parse_record(json.dumps(plain))
