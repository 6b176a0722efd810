"""The declarations are complete, and every dataclass field says what it is."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import fairtune_hf.data as data
from fairtune_hf.data import DATASETS, dataset_spec, list_datasets, prepare
from fairtune_hf.data.declaration import COMMON_OPTIONS, OptionSpec, ReadRequest
from fairtune_hf.data.picture_store import PictureStore

NAMES = {
    "fitzpatrick17k",
    "ham10000",
    "papila",
    "ol3i",
    "oasis1",
    "harvard_gf3300",
    "chexpert",
    "nih_chestxray14",
    "folder",
    "demo",
}


def test_the_ten_sets_are_there():
    assert set(DATASETS) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_declaration_is_complete(name):
    spec = dataset_spec(name)
    assert spec.name == name
    for text in (spec.title, spec.source, spec.licence, spec.steps, spec.label_rule):
        assert len(text) >= 3
    assert spec.attributes
    assert spec.default_sensitive in spec.attributes or name == "folder"
    assert set(spec.stratify) <= set(spec.attributes)
    assert sum(spec.fractions) == pytest.approx(1)
    if "published" in spec.split_rules:
        assert spec.split_seeds is not None
    resolved = spec.resolve_options({})
    assert set(resolved) == set(spec.all_options)
    for option in spec.all_options.values():
        assert not option.choices or option.default in option.choices


def test_list_shows_every_set_its_options_and_how_to_get_it():
    text = list_datasets()
    for name in NAMES:
        spec = dataset_spec(name)
        assert f"\n{name}: " in "\n" + text
        for option in spec.options:
            assert f"--{option.name.replace('_', '-')}" in text
    for option in COMMON_OPTIONS:
        assert f"--{option.name.replace('_', '-')}" in text
    assert "10.7910/DVN/DBW86T" in text
    assert max(len(line) for line in text.splitlines()) <= 110


@pytest.mark.parametrize("name", sorted(NAMES - {"demo", "folder"}))
def test_absent_data_says_how_to_obtain_it(tmp_path, name):
    (tmp_path / "something.txt").write_text("")
    with pytest.raises(FileNotFoundError) as caught:
        prepare(name, tmp_path, out=tmp_path / "out")
    assert dataset_spec(name).steps in str(caught.value)
    assert "something.txt" in str(caught.value)
    assert not (tmp_path / "out").exists()


def dataclasses_of():
    found = [getattr(data, n) for n in data.__all__] + [OptionSpec, ReadRequest, PictureStore]
    found.append(type(dataset_spec("demo")))
    return [c for c in found if inspect.isclass(c) and dataclasses.is_dataclass(c)]


@pytest.mark.parametrize("cls", dataclasses_of(), ids=lambda c: c.__name__)
def test_every_field_says_what_it_is(cls):
    for item in dataclasses.fields(cls):
        assert item.metadata.get("help"), f"{cls.__name__}.{item.name}"


def test_options_are_parsed_and_refused():
    spec = dataset_spec("oasis1")
    told = spec.resolve_options({"slices_per_subject": "20", "skip_corrupt": "yes"})
    assert told["slices_per_subject"] == 20
    assert told["skip_corrupt"] is True
    assert told["age_threshold"] == "75"
    with pytest.raises(ValueError, match=r"slices_per_subject must be a number; 'many' came"):
        spec.resolve_options({"slices_per_subject": "many"})
    with pytest.raises(ValueError, match=r"skip_corrupt must be true or false; 'perhaps' came"):
        spec.resolve_options({"skip_corrupt": "perhaps"})


def test_public_names_are_documented():
    assert data.__all__ == sorted(data.__all__)
    for name in data.__all__:
        item = getattr(data, name)
        if callable(item):
            assert item.__doc__, name
