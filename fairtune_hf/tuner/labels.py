"""The names of the classes, which an adapter brings along for the head that it trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

_BEFORE = "_fairmask_labels_before"


def name_labels(model: nn.Module, names: Mapping[str, str] | None) -> None:
    """Give a model's own config the adapter's names of its classes, if it has as many."""
    config: Any = getattr(model, "config", None)
    held = getattr(config, "id2label", None)
    if not names or not held or len(held) != len(names):
        return
    model.__dict__.setdefault(_BEFORE, dict(held))
    _set(config, {int(code): name for code, name in names.items()})


def rename_labels(model: nn.Module, *, merged: bool) -> None:
    """Give back the names that the base model had, unless the adapter's head stays in it."""
    before = model.__dict__.pop(_BEFORE, None)
    if before is not None and not merged:
        _set(model.config, before)


def _set(config: Any, names: dict[int, str]) -> None:
    config.id2label = names
    config.label2id = {name: code for code, name in names.items()}
