"""Fitzpatrick17k (Groh et al. 2021): clinical photographs, malignant or not, by skin type.

The table's scale runs from 1 to 6; the paper's "0 to 2" is the zero-based scale, so its groups
are types I-III and IV-VI.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fairtune_hf.data.declaration import DatasetSpec, RawTable, ReadRequest
from fairtune_hf.data.rows import Rows, stem_sources

TABLE = "fitzpatrick17k.csv"
SKIN_GROUPS = ("I-III", "IV-VI")
STEPS = (
    "Download fitzpatrick17k.csv from https://github.com/mattgroh/fitzpatrick17k; the pictures are "
    "not shipped: request the archive from the authors (see that page) or fetch each address of "
    "the column url. Name each picture by its md5hash and put it in images/ beside the CSV file."
)


def read(root: Path, request: ReadRequest) -> RawTable:
    """Read the published table and find the pictures there are."""
    needed = ["md5hash", "fitzpatrick_scale", "three_partition_label"]
    rows = Rows.open(root, [TABLE], STEPS, needed)
    rows.keep_first("md5hash", "repeated image id")
    scale = pd.to_numeric(rows.table["fitzpatrick_scale"], errors="coerce")
    rows.drop(~scale.between(1, 6), "skin type unknown")
    table = rows.table
    skin = scale.loc[table.index].le(3).map({True: SKIN_GROUPS[0], False: SKIN_GROUPS[1]})
    rows.add("skin_type", skin, SKIN_GROUPS)
    label = table["three_partition_label"].str.strip() == "malignant"
    frame = rows.frame(row_id=table["md5hash"], patient_id=table["md5hash"], label=label)
    folders = [root / "images", root / "finalfitz17k" / "images", root]
    return rows.raw(
        frame,
        ("not malignant", "malignant"),
        stem_sources(frame["row_id"], folders, request),
        "no patient id is published: pictures of one person may lie in two splits",
    )


SPEC = DatasetSpec(
    name="fitzpatrick17k",
    title="16,577 clinical photographs of skin conditions with Fitzpatrick skin types",
    source="Groh et al. 2021, https://github.com/mattgroh/fitzpatrick17k",
    licence="CC BY-NC-SA 3.0 for the annotations; the pictures belong to their atlases",
    steps=STEPS,
    label_rule="1 iff three_partition_label is 'malignant'",
    attributes={"skin_type": "fitzpatrick_scale 1-3: I-III, 4-6: IV-VI; -1 is unknown"},
    default_sensitive="skin_type",
    read=read,
    filters="skin type unknown (565 rows); pictures that are not there, after the split",
    split_unit="picture ('md5hash'): no patient id exists",
    split_rules=("published", "stratified"),
    split_seeds=(5, 6),
    stratify=("skin_type",),
    expected_counts={"rows": 16012, "positives": 2160},
    missing_files="drop",
)
