"""Packages whose public names are loaded on first use, so that a page of help does not wait for PyTorch.

A package lists its names once, as imports under `TYPE_CHECKING`: type checkers and editors read them
there, and so does `attach` (PEP 562).
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def attach(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make `__getattr__`, `__dir__` and `__all__` of a package from the imports it shows type checkers.

    Args:
        package: Its `__name__`.
        file: Its `__file__`, whose `from .module import name as name` below `if TYPE_CHECKING:` are read.
    """
    homes = _read_homes(package, Path(file))

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}; it has {', '.join(sorted(homes))}"
            )
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(importlib.import_module(package), name, value)
        return value

    return load, lambda: sorted(homes), sorted(homes)


def _read_homes(package: str, file: Path) -> dict[str, str]:
    """Return public name -> the module that has it."""
    homes: dict[str, str] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            continue
        for each in node.body:
            if isinstance(each, ast.ImportFrom):
                module = f"{package}.{each.module}" if each.level else str(each.module)
                homes |= {alias.name: module for alias in each.names}
    return homes
