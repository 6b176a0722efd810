"""Every public name says what it is, and every example runs."""

import dataclasses
import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pandas as pd
import pytest

import fairtune_hf.metrics as package

MODULES = [f"{package.__name__}.{info.name}" for info in pkgutil.iter_modules(package.__path__)]
PUBLIC = {name: getattr(package, name) for name in package.__all__}


def test_modules_are_found():
    assert len(MODULES) >= 15


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"np": np, "pd": pd})
    assert result.failed == 0


@pytest.mark.parametrize("name", [n for n, value in PUBLIC.items() if inspect.isfunction(value)])
def test_functions_have_examples_and_sources_of_error(name):
    text = inspect.getdoc(PUBLIC[name])
    assert ">>>" in text
    needs_none = {"collapse_flag", "is_levelling_down", "round_half_up"}
    assert "Raises:" in text or name in needs_none


@pytest.mark.parametrize(
    "name", [n for n, value in PUBLIC.items() if dataclasses.is_dataclass(value)]
)
def test_fields_are_explained(name):
    for field in dataclasses.fields(PUBLIC[name]):
        assert len(field.metadata.get("help", "")) > 4, field.name


def test_no_torch_in_the_metrics():
    for name in MODULES:
        source = inspect.getsource(importlib.import_module(name))
        assert "import torch" not in source
        assert "from torch" not in source
