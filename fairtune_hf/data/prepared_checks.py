"""Checksums of a prepared folder's table and manifest, and what they say when they differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from fairtune_hf.data.fingerprint import digest_text

SIGNATURE = "signature"


def describe_table(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the checksums of a table that was read as text, whatever its separators and line ends."""
    return {
        "rows": len(frame),
        "columns": _digest_columns(frame),
        "in_any_order": _digest_set(frame),
    }


def check_table(told: Mapping[str, Any], frame: pd.DataFrame) -> str:
    """Say in words what differs between a table and its checksums; an empty text if nothing does."""
    before, now = told["columns"], _digest_columns(frame)
    if before == now:
        return ""
    if len(frame) != told["rows"]:
        return f"there are {len(frame)} rows and there were {told['rows']}"
    if set(before) != set(now):
        return f"the columns are {', '.join(now)} and were {', '.join(before)}"
    if _digest_set(frame) == told["in_any_order"]:
        return "the rows are in another order"
    changed = [name for name in before if before[name] != now[name]]
    return f"values of {', '.join(changed)} changed"


def sign(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with a checksum of itself."""
    return {**content, SIGNATURE: _digest(content)}


def was_signed(content: Mapping[str, Any]) -> bool:
    """Whether a manifest is as it was signed; those of earlier releases bear no signature."""
    rest = {name: value for name, value in content.items() if name != SIGNATURE}
    if SIGNATURE not in content:
        return "checksums" not in content
    return bool(content[SIGNATURE] == _digest(rest))


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest_columns(frame: pd.DataFrame) -> dict[str, str]:
    return {str(name): digest_text(frame[name].fillna("")) for name in frame}


def _digest_set(frame: pd.DataFrame) -> str:
    """Return a digest of the rows without their order."""
    text = frame.fillna("")
    columns = [text[name].tolist() for name in sorted(text.columns)]
    lines = sorted(map("\x1f".join, zip(*columns, strict=True)))
    return hashlib.sha256("\x1e".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
