"""Registers the tuner with PEFT as soon as PEFT is imported, and not before.

PEFT brings torch and transformers, seconds of imports that measuring a table of predictions does
not need. Only the standard library is imported here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_TUNER = "fairtune_hf.tuner"


def register_with_peft() -> None:
    """Register the tuner now if PEFT is there, else when anything imports PEFT."""
    if "peft" in sys.modules:
        importlib.import_module(_TUNER)
    elif not any(isinstance(finder, _PeftFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PeftFinder())


class _PeftFinder(MetaPathFinder):
    """Finds `peft` as the other finders do, with a loader that registers the tuner afterwards."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "peft":
            return None
        for finder in sys.meta_path:
            found = None if finder is self else finder.find_spec(fullname, path, target)
            if found is not None:
                if found.loader is not None:
                    found.loader = _RegisteringLoader(found.loader)
                return found
        return None


class _RegisteringLoader(Loader):
    """Loads PEFT by its own loader, leaves no trace of itself, and imports the tuner.

    PEFT is complete by then, so whoever waits for it, in this thread or another, gets all of it.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        importlib.import_module(_TUNER)
