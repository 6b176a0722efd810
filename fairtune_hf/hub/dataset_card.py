"""The card of a prepared data set: counts by split, group and label, never a patient id.

Reads `table.csv` and, where there is one, `prepared.json` of the folder that `fairtune prepare`
wrote; no picture is opened.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import DatasetCardData

from fairtune_hf.data.small_cells import SMALL, hidden_cells
from fairtune_hf.data.table import FIXED_COLUMNS, SPLITS
from fairtune_hf.reports import numbers
from fairtune_hf.run_folder import write_text

from .public import check_no_ids, ids_of
from .templates import Verbatim, card_environment

_TOLD = ("dataset", "label_names", "dropped", "warnings", "options", "recorded")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def render_dataset_card(prepared_dir: Path | str) -> Path:
    """Write the card of a prepared data set to its `README.md`.

    Args:
        prepared_dir: Folder with `table.csv`, as `fairtune prepare` writes it.

    Returns:
        The path of the card.

    Raises:
        FileNotFoundError: There is no `table.csv`.
        ValueError: The table lacks a column, or the card would name a row or a patient.
    """
    folder = Path(prepared_dir)
    table = _read_table(folder / "table.csv")
    manifest = folder / "prepared.json"
    facts = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    template = card_environment().get_template("dataset_card.md.jinja")
    text = template.render(_content(folder, table, facts))
    told = {key: facts[key] for key in _TOLD if key in facts}
    texts = {"prepared.json": json.dumps(told).encode(), "README.md": text.encode()}
    check_no_ids(texts, ids_of(table), source="prepared.json")
    return write_text(folder / "README.md", text)


def _read_table(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise FileNotFoundError(
            f"prepared_dir should be a folder that `fairtune prepare` wrote; {file} does not exist."
        )
    table = pd.read_csv(file, dtype="string", keep_default_na=False)
    missing = [name for name in FIXED_COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(
            f"{file} should have the columns {', '.join(FIXED_COLUMNS)}; {', '.join(missing)} is missing. "
            "Prepare the data set again."
        )
    return table


def _content(folder: Path, table: pd.DataFrame, facts: dict[str, Any]) -> dict[str, Any]:
    attributes = [str(name) for name in table.columns if name not in FIXED_COLUMNS]
    labels = [str(name) for name in facts.get("label_names") or ("0", "1")]
    options = {**(facts.get("options") or {}), **(facts.get("recorded") or {})}
    patients = int(table.loc[table["patient_id"] != "", "patient_id"].nunique())
    name = str(facts.get("dataset") or folder.resolve().name)
    tables = [_count_table(table, attribute, labels) for attribute in attributes]
    small = {group for counted in tables for group in counted["small"]}
    return {
        "metadata": Verbatim(_metadata(name, len(table)).to_yaml(line_break="\n").strip()),
        "name": name,
        "rows": numbers.count(len(table)),
        "patients": numbers.count(patients) if patients else "",
        "label_names": labels,
        "image_size": facts.get("image_size"),
        "tables": tables,
        "dropped": facts.get("dropped") or {},
        "warnings": [numbers.hide_small_counts(str(w), small) for w in facts.get("warnings") or []],
        "split_hash": facts.get("split_hash") or "not recorded",
        "options": [(key, value) for key, value in options.items() if value not in ("", None)],
    }


def _metadata(name: str, rows: int) -> DatasetCardData:
    size = next((words for limit, words in _SIZES if rows < limit), "n>1M")
    return DatasetCardData(
        pretty_name=name,
        task_categories=["image-classification"],
        size_categories=[size],
        tags=["medical", "fairness", "fairtune"],
    )


def _people(rows: pd.DataFrame) -> int:
    """Count patients; rows without a patient id count one each."""
    known = rows.loc[rows["patient_id"] != "", "patient_id"]
    return int(known.nunique() + (len(rows) - len(known)))


def _count_table(table: pd.DataFrame, attribute: str, labels: list[str]) -> dict[str, Any]:
    """Count pictures by group; what is hidden is decided column by column, see `hidden_cells`."""
    held = set(table["split"])
    columns = [(s, value) for s in SPLITS if s in held for value in ("0", "1")]
    groups = sorted(set(table[attribute]))
    lines: dict[str, list[str]] = {group: [] for group in groups}
    small = set()
    for split, value in columns:
        column = table[(table["split"] == split) & (table["label"] == value)]
        cells = {group: column[column[attribute] == group] for group in groups}
        hidden = hidden_cells({group: _people(rows) for group, rows in cells.items()})
        small |= {group for group, words in hidden.items() if words == SMALL}
        for group, rows in cells.items():
            lines[group].append(hidden.get(group) or numbers.count(len(rows)))
    return {
        "attribute": attribute,
        "heads": [f"{split}, {labels[int(value)]}" for split, value in columns],
        "lines": [(group or "unknown", cells) for group, cells in lines.items()],
        "small": small,
    }
