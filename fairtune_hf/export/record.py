"""`export.json`: what was exported, with what, and what belongs to it; nothing of this machine and no small counts."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from fairtune_hf.data.checks import FEW
from fairtune_hf.data.small_cells import SMALL, hidden_cells
from fairtune_hf.export.quantise import SETTINGS
from fairtune_hf.export.request import Request
from fairtune_hf.inference import Predictor
from fairtune_hf.plain_data import to_plain
from fairtune_hf.version import __version__

_PACKAGES = ("torch", "transformers", "timm", "onnx", "onnxscript", "onnxruntime", "pillow")
_COUNTS = ("n", "n_patients", "positives", "turned", "turned_to_label_1")


def describe(predictor: Predictor, request: Request) -> dict[str, Any]:
    """Describe an export before it is checked."""
    told = predictor.described
    return {
        "format": request.format,
        "int8": SETTINGS if request.int8 else None,
        "stored_as": request.half,
        "needs_timm": predictor.model.get_base_model().config.model_type == "timm_wrapper",
        "id2label": {str(code): name for code, name in predictor.id2label.items()},
        "positive_label": predictor.id2label[1],
        "input": to_plain(told.input),
        "dataset": told.dataset,
        "sensitive": told.sensitive,
        "seed": told.seed,
        "base_sha256": told.base.sha256,
        "operating_point": to_plain(told.operating_point),
        "measured_on": told.measured_on,
        "groups": hide_counts(told.groups),
        "versions": _versions(),
    }


def hide_counts(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Hide the counts of groups of fewer than ten people, and of a class under ten; see `hidden_cells`."""
    people = {name: group.get("n_patients") or group.get("n") for name, group in groups.items()}
    hidden = hidden_cells({name: n for name, n in people.items() if isinstance(n, int)})
    shown = {}
    for name, group in groups.items():
        if name in hidden:
            group = {key: hidden[name] if key in _COUNTS else value for key, value in group.items()}
        elif _has_small_class(group):
            group = {**group, "positives": SMALL}
        shown[name] = dict(group)
    return shown


def _has_small_class(group: Mapping[str, Any]) -> bool:
    n, positives = group.get("n"), group.get("positives")
    if not isinstance(n, int) or not isinstance(positives, int):
        return False
    return min(positives, n - positives) < FEW


def _versions() -> dict[str, str]:
    found = {"fairtune_hf": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
