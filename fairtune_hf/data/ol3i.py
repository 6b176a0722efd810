"""OL3I (Stanford AIMI): a CT slice at L3 per patient, ischaemic heart disease to come, or not.

Slices are windowed from Hounsfield units; the reference cast them to uint8, which wraps.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fairtune_hf.data.array_files import H5Source, h5_keys
from fairtune_hf.data.declaration import DatasetSpec, OptionSpec, RawTable, ReadRequest
from fairtune_hf.data.rows import Rows, require_file

TABLE, SLICES = "clinical_data.csv", "l3_slices.h5"
SETS = {"train": "train", "val": "validation", "test": "test"}
STEPS = (
    "Apply for the dataset OL3I at Stanford AIMI "
    "(https://stanfordaimi.azurewebsites.net/datasets/3263e34a-252e-460f-8f63-d585a9bfecfc, login "
    "and licence) and put clinical_data.csv and l3_slices.h5 into one folder."
)


def read(root: Path, request: ReadRequest) -> RawTable:
    """Read the clinical table and look up each patient's slice."""
    options = request.options
    label_column = f"label_{options['horizon']}"
    split_column = f"set_{options['horizon']}"
    needed = ["anon_id", "age", "sex", label_column, split_column]
    rows = Rows.open(root, [TABLE], STEPS, needed)
    rows.keep_first("anon_id", "repeated patient id")
    label = pd.to_numeric(rows.table[label_column], errors="coerce")
    rows.drop(~label.isin([0, 1]), "label missing")
    ages = rows.ages("age")
    rows.drop(ages.isna(), "age unknown")
    table = rows.table
    rows.add_age(ages.loc[table.index], options)
    rows.add_sex(table["sex"])
    ids = table["anon_id"]
    frame = rows.frame(row_id=ids, patient_id=ids, label=label.loc[table.index])
    if options["split_rule"] == "official":
        frame["split"] = _shipped(table[split_column], rows.origin)
    sources = None if request.metadata_only else _sources(root, frame["row_id"], request)
    return rows.raw(frame, ("no event", f"event within {options['horizon']}"), sources)


def _shipped(values: pd.Series, origin: str) -> list[str]:
    text = values.fillna("").str.strip().str.lower()
    odd = int((~text.isin(SETS)).sum())
    if odd:
        raise ValueError(
            f"the column {values.name!r} of {origin} must hold train, val or test; {odd} rows hold "
            "something else. Use --split-rule stratified, or the table as shipped."
        )
    return list(text.map(SETS))


def _sources(root: Path, ids: pd.Series, request: ReadRequest) -> list[H5Source]:
    path = require_file(root, [SLICES], STEPS)
    keys = h5_keys(path)
    window = (request.options["window_low"], request.options["window_high"])
    return [H5Source(path, key, key in keys, window) for key in ids]


SPEC = DatasetSpec(
    name="ol3i",
    title="8,139 axial CT slices at the third lumbar vertebra, one per patient",
    source="Stanford AIMI, OL3I; Zambrano Chaves et al.",
    licence="Stanford University dataset research use agreement",
    steps=STEPS,
    label_rule="1 iff label_1y: ischaemic heart disease within one year (horizon=5y: five)",
    attributes={"age": "cut at 60", "sex": "male M, female F"},
    default_sensitive="age",
    read=read,
    filters="label or age missing (none expected)",
    split_rules=("official", "stratified"),
    fractions=(0.64, 0.16, 0.2),
    stratify=("age", "sex"),
    expected_counts={
        "rows": 8139,
        "positives": 355,
        "train": 5227,
        "validation": 1303,
        "test": 1609,
    },
    preprocessing="uint8 as it is, else Hounsfield units windowed to 0..255; three equal channels",
    class_weight="inverse_share",
    options=(
        OptionSpec("horizon", "1y", "label and shipped split: one year or five", ("1y", "5y")),
        OptionSpec("window_low", -1000.0, "Hounsfield units shown as black"),
        OptionSpec("window_high", 1000.0, "Hounsfield units shown as white"),
    ),
)
