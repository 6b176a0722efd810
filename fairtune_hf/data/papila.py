"""PAPILA (Kovalyk et al. 2022): fundus pictures of both eyes, glaucoma or healthy, by age or sex.

The clinical tables are Excel sheets with two merged header rows and a third that says only "ID";
rows are found by their id, whatever stands above.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fairtune_hf.data.declaration import DatasetSpec, RawTable, ReadRequest
from fairtune_hf.data.rows import Rows, absent, stem_sources
from fairtune_hf.data.tabular import find_table, read_table

EYES = {"OD": "patient_data_od", "OS": "patient_data_os"}
COLUMNS = ["ID", "Age", "Gender", "Diagnosis"]
STEPS = (
    "Download the figshare archive that https://doi.org/10.1038/s41597-022-01388-1 (Kovalyk et al. "
    "2022, data availability) names and unpack it: the folder expected holds ClinicalData/patient_data_od.xlsx and _os.xlsx (or "
    ".csv) and FundusImages/RET002OD.jpg and so on."
)


def read(root: Path, request: ReadRequest) -> RawTable:
    """Read both eyes' tables and find the pictures."""
    base = _base(root)
    tables = []
    for eye, stem in EYES.items():
        names = [f"{stem}.xlsx", f"{stem}.csv"]
        path = find_table(base / "ClinicalData", names) or find_table(base, names)
        if path is None:
            raise absent(base, f"ClinicalData/{stem}.xlsx", STEPS)
        tables.append(_read_eye(path).assign(eye=eye))
    rows = Rows(pd.concat(tables, ignore_index=True), "the clinical tables")
    diagnosis = pd.to_numeric(rows.table["Diagnosis"], errors="coerce")
    rows.drop(diagnosis == 2, "suspected glaucoma")
    rows.drop(~diagnosis.loc[rows.table.index].isin([0, 1]), "diagnosis missing")
    table = rows.table
    rows.add_age(rows.ages("Age"), request.options)
    gender = pd.to_numeric(table["Gender"], errors="coerce").map({0: "M", 1: "F"})
    rows.add_sex(gender.fillna(table["Gender"]))
    patient = table["ID"].str.extract(r"(\d+)")[0].str.zfill(3)
    frame = rows.frame(
        row_id="RET" + patient + table["eye"],
        patient_id=patient,
        label=diagnosis.loc[table.index] == 1,
    )
    folders = [base / "FundusImages", base]
    sources = stem_sources(frame["row_id"], folders, request)
    return rows.raw(frame, ("healthy", "glaucoma"), sources)


def _base(root: Path) -> Path:
    """Return the folder with ClinicalData: `root` itself or the one the archive unpacks to."""
    if (root / "ClinicalData").is_dir():
        return root
    inner = sorted(p.parent for p in root.glob("*/ClinicalData") if p.is_dir())
    return inner[0] if inner else root


def _read_eye(path: Path) -> pd.DataFrame:
    table = read_table(path, header=None).astype("string")
    is_row = table[0].fillna("").str.strip().str.fullmatch(r"#?\d+(\.0)?")
    if not is_row.any() or table.shape[1] < len(COLUMNS):
        raise ValueError(
            f"{path} was expected to hold rows that begin with a patient id such as #002, then "
            f"age, gender and diagnosis; none was found. {STEPS}"
        )
    places = _places(table)
    rows = table.loc[is_row, [0, *places]]
    rows.columns = pd.Index(COLUMNS)
    return rows.reset_index(drop=True)


def _places(table: pd.DataFrame) -> list[int]:
    """Return the columns of age, gender and diagnosis: as a header names them, else 1 to 3."""
    for _, line in table.head(4).iterrows():
        named = {str(value).strip(): place for place, value in enumerate(line)}
        if set(COLUMNS[1:]) <= set(named):
            return [named[name] for name in COLUMNS[1:]]
    return [1, 2, 3]


SPEC = DatasetSpec(
    name="papila",
    title="488 fundus pictures of both eyes of 244 patients with clinical data",
    source="Kovalyk et al. 2022, doi:10.1038/s41597-022-01388-1",
    licence="CC BY 4.0",
    steps=STEPS,
    label_rule="1 iff the eye's diagnosis is glaucoma (1); healthy is 0",
    attributes={"age": "cut at 60", "sex": "Gender 0: M, 1: F"},
    default_sensitive="age",
    read=read,
    filters="eyes with suspected glaucoma (Diagnosis 2)",
    split_unit="patient, both eyes together; 70/10/20",
    split_rules=("published", "stratified"),
    split_seeds=(5, 15),
    held_out=0.3,
    test_share=0.66,
    fractions=(0.7, 0.1, 0.2),
    stratify=("age", "sex"),
    expected_counts={"rows": 420, "positives": 87, "patients": 210},
    class_weight="inverse_share",
)
