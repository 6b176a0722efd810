"""What of a run may be seen by everybody: the checks and the cleaned copies behind a push."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairtune_hf.reports import numbers
from fairtune_hf.reports.loaded_run import LoadedRun
from fairtune_hf.reports.tables import without_folders

_SAFE_SUFFIXES = frozenset({".json", ".safetensors", ".md", ".txt", ".html"})
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_PATIENT_KEYS = frozenset({"patient_id", "patient_ids", "patients", "row_id", "row_ids"})
_SHORTEST_ID = 5


def check_no_pickle(folder: Path) -> None:
    """Refuse a folder that holds pickled files, by name and by their first bytes.

    Raises:
        ValueError: A file is not JSON, safetensors or text.
    """
    if not folder.is_dir():
        return
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            start = file.read(4)
        if path.suffix not in _SAFE_SUFFIXES and not path.name.startswith("."):
            raise ValueError(
                f"{path.relative_to(folder)} in {folder} is neither JSON, safetensors nor text; "
                "pickled files can run code on the machine that loads them and are not pushed. "
                "Remove it or save it as safetensors."
            )
        if start.startswith(_PICKLE_STARTS):
            raise ValueError(
                f"{path.relative_to(folder)} in {folder} starts like a pickled file whatever its "
                "name says; it is not pushed. Save it again as safetensors."
            )


def check_no_ids(contents: Mapping[str, bytes], folder: LoadedRun) -> None:
    """Refuse files in which a row id or a patient key stands.

    Row ids are often file names, and file names often hold patient numbers. Ids of fewer than five
    characters cannot be told from other numbers and are not looked for.

    Raises:
        ValueError: Such a thing was found; the message names the file, not the id.
    """
    ids = _row_ids(folder)
    for name, content in contents.items():
        text = content.decode("utf-8", errors="replace")
        keys = sorted(key for key in _PATIENT_KEYS if f'"{key}"' in text)
        if keys:
            raise ValueError(
                f"{name} has the entry {', '.join(keys)}: what identifies patients is not pushed. "
                "Remove it from run.json and render the report again."
            )
        found = sum(_stands_in(identity, text) for identity in ids)
        if found:
            raise ValueError(
                f"{name} names {found} row id(s) of the data, which may tell who a patient is; it "
                "is not pushed. Look at the warnings in run.json: they often name files."
            )


def _row_ids(folder: LoadedRun) -> list[str]:
    frame = folder.predictions
    if frame.empty or "row_id" not in frame.columns:
        return []
    return [i for i in map(str, frame["row_id"].unique()) if len(i) >= _SHORTEST_ID]


def _stands_in(identity: str, text: str) -> bool:
    if identity not in text:
        return False
    return bool(re.search(rf"(?<![\w.]){re.escape(identity)}(?!\w)", text))


def public_run(folder: LoadedRun) -> str:
    """Return `run.json` as text without folders of this machine and counts of small groups."""
    run: dict[str, Any] = without_folders(copy.deepcopy(folder.run))
    for split in ("validation", "test"):
        small = folder.small_groups(split)
        for part in (run, *(run.get("controls") or {}).values()):
            blocks = [part.get(split), *((s or {}).get(split) for s in part.get("seeds") or [])]
            for block in blocks:
                _hide_small(block, small)
        run["warnings"] = [
            numbers.hide_small_counts(str(words), small) for words in run.get("warnings") or []
        ]
    _hide_small_data(run.get("dataset") or {})
    return json.dumps(run, indent=1, allow_nan=False) + "\n"


def _hide_small_data(dataset: dict[str, Any]) -> None:
    """Hide the counts of groups and splits of fewer than ten people in what is said of the data."""
    for groups in (dataset.get("counts") or {}).values():
        for counts in groups.values():
            if any(_is_small(counts.get(key)) for key in ("n", "n_patients")):
                counts.update(dict.fromkeys(counts, numbers.SMALL))
    people = dataset.get("n_patients") or {}
    people.update({split: numbers.SMALL for split, n in people.items() if _is_small(n)})


def _is_small(n: object) -> bool:
    return numbers.is_number(n) and n < numbers.SMALLEST_SHOWN


def _hide_small(block: dict[str, Any] | None, small: set[str]) -> None:
    if not block:
        return
    for name in small & set(block.get("groups") or {}):
        hidden = dict.fromkeys(block["groups"][name])
        block["groups"][name] = hidden | {"n": numbers.SMALL, "positives": numbers.SMALL}
    if block.get("warnings"):
        block["warnings"] = [numbers.hide_small_counts(str(w), small) for w in block["warnings"]]


def public_config(config: dict[str, Any], base: str | None, revision: str | None) -> str:
    """Return `adapter_config.json` with the base model named by its Hub id, or by none."""
    named = {"base_model_name_or_path": base, "revision": revision if base else None}
    return json.dumps(without_folders(config) | named, indent=2, sort_keys=True) + "\n"


def public_predictions(folder: LoadedRun) -> bytes:
    """Return the predictions as parquet, without ids and without groups of fewer than ten people.

    Raises:
        FileNotFoundError: The run has no predictions.
        ValueError: Every group is that small.
    """
    frame = folder.predictions
    if frame.empty:
        raise FileNotFoundError(
            f"--with-predictions needs predictions.parquet in {folder.path}; there is none."
        )
    shown = frame[frame["split"].isin(["validation", "test"])]
    for split in ("validation", "test"):
        small = folder.small_groups(split)
        hidden = shown["split"].eq(split) & shown[folder.sensitive].astype(str).isin(small)
        shown = shown[~hidden]
    if shown.empty:
        raise ValueError(
            "--with-predictions: every group has fewer than ten people, so no row may be shown. "
            "Push without the predictions."
        )
    kept = ["seed", "split", "label", "score", folder.sensitive]
    order = shown.sample(frac=1.0, random_state=0).sort_values(["seed", "split"], kind="stable")
    buffer = io.BytesIO()
    order[kept].to_parquet(buffer, index=False)
    return buffer.getvalue()
