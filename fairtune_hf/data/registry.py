"""The declarations by name."""

from __future__ import annotations

from importlib import import_module

from fairtune_hf.data.declaration import DatasetSpec
from fairtune_hf.naming import unknown_name

_MODULES = {
    "fitzpatrick17k": "fitzpatrick17k",
    "ham10000": "ham10000",
    "papila": "papila",
    "ol3i": "ol3i",
    "oasis1": "oasis1",
    "harvard_gf3300": "harvard_gf3300",
    "chexpert": "chexpert",
    "nih_chestxray14": "nih_chestxray14",
    "demo": "demo_declaration",
    "folder": "folder",
}

DATASETS: tuple[str, ...] = tuple(_MODULES)


def dataset_spec(name: str) -> DatasetSpec:
    """Return the declaration of a data set.

    Raises:
        ValueError: if there is none of this name, the closest one offered.
    """
    if name not in _MODULES:
        raise unknown_name("dataset", name, DATASETS)
    module = import_module(f"fairtune_hf.data.{_MODULES[name]}")
    spec: DatasetSpec = module.SPEC
    return spec


def dataset_specs() -> dict[str, DatasetSpec]:
    """Return every declaration, by name."""
    return {name: dataset_spec(name) for name in DATASETS}
