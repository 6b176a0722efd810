"""CheXpert (Irvin et al. 2019): chest X-rays, no finding against any, by sex, age or race.

The published count of 222,793 has no published filter, so counts are reported and not asserted.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fairtune_hf.data.declaration import DatasetSpec, OptionSpec, RawTable, ReadRequest
from fairtune_hf.data.images import FileSource
from fairtune_hf.data.rows import Rows, absent, require_file
from fairtune_hf.data.tabular import find_table, read_table
from fairtune_hf.naming import require_columns
from fairtune_hf.unknown_values import is_unknown

TABLES = ("train.csv", "valid.csv")
ROOTS = ("CheXpert-v1.0-small", "CheXpert-v1.0")
DEMOGRAPHICS = ("CHEXPERT DEMO.xlsx", "CHEXPERT_DEMO.xlsx", "CHEXPERT DEMO.csv")
RACES = ("White", "Black", "Asian", "Other")
STEPS = (
    "Register at Stanford AIMI (https://stanfordaimi.azurewebsites.net/datasets/"
    "8cbd9ed4-2eb9-4565-affc-111cf4f7ebe2), download CheXpert-v1.0-small and unpack it: the folder "
    "expected holds train.csv, valid.csv, train/ and valid/. Race is a separate download there "
    "(192ada7c-4d43-466e-b8bb-b81992bb80cf): put CHEXPERT DEMO.xlsx beside train.csv."
)


def read(root: Path, request: ReadRequest) -> RawTable:
    """Read train.csv and valid.csv, re-root the paths, join race where it is there."""
    base = next((root / r for r in ROOTS if (root / r / TABLES[0]).is_file()), root)
    path = require_file(base, TABLES[:1], STEPS)
    paths = [p for p in (path, find_table(base, TABLES[1:])) if p]
    tables = [read_table(p) for p in paths]
    for table in tables:
        require_columns(table, ["Path", "Sex", "Age", "Frontal/Lateral", "No Finding"], path.name)
    rows = Rows(pd.concat(tables, ignore_index=True), " and ".join(p.name for p in paths))
    place = rows.table["Path"].fillna("").str.extract(r"((?:train|valid)/(patient\d+)/.+)$")
    rows.drop(place[0].isna(), "path not understood")
    rows.drop(~rows.table["Sex"].isin(["Male", "Female"]), "sex unknown")
    ages = rows.ages("Age")
    rows.drop(ages.isna(), "age unknown")
    if request.options["views"] == "frontal":
        rows.drop(rows.table["Frontal/Lateral"] != "Frontal", "lateral view")
    patients = place[1]
    _add_race(rows, base, patients, request)
    table = rows.table
    rows.add_sex(table["Sex"])
    rows.add_age(ages.loc[table.index], request.options)
    # Blank, 0 and -1 (uncertain) all mean that "no finding" was not stated.
    label = pd.to_numeric(table["No Finding"], errors="coerce") > 0
    files = place.loc[table.index, 0]
    frame = rows.frame(row_id=files, patient_id=patients.loc[table.index], label=label)
    depth16 = request.options["depth16"]
    sources = [FileSource(base / f, f, depth16) for f in frame["row_id"]]
    return rows.raw(frame, ("finding", "no finding"), None if request.metadata_only else sources)


def _add_race(rows: Rows, base: Path, patients: pd.Series, request: ReadRequest) -> None:
    path = find_table(base, DEMOGRAPHICS)
    wanted = "race" in (request.sensitive or "").split("+") or request.options["race_known"]
    if path is None:
        if wanted:
            raise absent(base, DEMOGRAPHICS[0], STEPS)
        return
    table = read_table(path)
    require_columns(table, ["PATIENT", "PRIMARY_RACE"], path.name)
    by_patient = dict(zip(table["PATIENT"], table["PRIMARY_RACE"].map(_race), strict=True))
    race = patients.map(by_patient).fillna("")
    if request.options["race_known"]:
        rows.drop(race.loc[rows.table.index] == "", "race unknown")
    rows.add("race", race, RACES)


def _race(value: object) -> str:
    if is_unknown(value):
        return ""
    text = str(value).strip().lower()
    return next((r for r in RACES[:3] if r.lower() in text), RACES[3])


SPEC = DatasetSpec(
    name="chexpert",
    title="223,648 chest X-rays of 64,734 patients with 14 observations",
    source="Stanford AIMI; Irvin et al. 2019",
    licence="Stanford University dataset research use agreement",
    steps=STEPS,
    label_rule="1 iff No Finding is 1; blank, 0 and uncertain are 0",
    attributes={
        "sex": "Male M, Female F",
        "age": "cut at 60; age+sex gives the paper's four groups",
        "race": "PRIMARY_RACE of CHEXPERT DEMO.xlsx, where it is there",
    },
    default_sensitive="sex",
    read=read,
    filters="sex unknown, age missing",
    split_unit="patient (the path's patient folder)",
    stratify=("sex", "age"),
    expected_counts={"rows": 222793},
    search_fraction=0.1,
    options=(
        OptionSpec("views", "all", "every view, or frontal ones only", ("all", "frontal")),
        OptionSpec("race_known", False, "only patients whose race is known"),
    ),
)
