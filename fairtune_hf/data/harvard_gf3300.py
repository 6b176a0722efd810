"""Harvard-GF3300 (Luo et al. 2024): retinal nerve fibre layer maps, glaucoma or not.

Works with the summary table or from the NPZ files alone; race is read from words or codes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fairtune_hf.data.array_files import NpzSource, read_npz
from fairtune_hf.data.declaration import DatasetSpec, OptionSpec, RawTable, ReadRequest
from fairtune_hf.data.image_source import ImageError
from fairtune_hf.data.rows import Rows, absent
from fairtune_hf.data.tabular import find_table, read_table
from fairtune_hf.naming import require_columns, shortened

TABLES = ("data_summary.csv", "data_summary_gf3300.csv")
USES = {"training": "train", "train": "train", "validation": "validation", "val": "validation",
        "test": "test"}  # fmt: skip
RACES = {"0": "Asian", "1": "Black", "2": "White"}
RACE_RULES = {
    "black_vs_rest": ({"Black": "Black", "Asian": "Asian or White", "White": "Asian or White"},
                      ("Black", "Asian or White")),
    "white_vs_rest": ({"White": "White", "Asian": "not White", "Black": "not White"},
                      ("White", "not White")),
    "three": ({r: r for r in RACES.values()}, ("Asian", "Black", "White")),
}  # fmt: skip
MAP, BOUNDS = "rnflt", (-2.0, 350.0)
KEYS = ["glaucoma", "age", "male", "race"]
STEPS = (
    "Request Harvard-GF at https://huggingface.co/datasets/harvardairobotics/Harvard-GF and put "
    "data_summary.csv and the folders Training/, Validation/ and Test/ with data_0001.npz and so "
    "on into one folder."
)


def read(root: Path, request: ReadRequest) -> RawTable:
    """Read the summary table, or the values in the NPZ files where there is none."""
    files = {p.name: p for p in sorted(root.glob("**/*.npz"))}
    path = find_table(root, TABLES)
    if path is None and not files:
        raise absent(root, TABLES[0], STEPS)
    origin = path.name if path else "the NPZ files"
    rows = Rows(_summary(path) if path else _from_files(files), origin)
    rows.keep_first("filename", "repeated file name")
    glaucoma = rows.table["glaucoma"].map(_yes_no)
    rows.drop(glaucoma.isna(), "label missing")
    table = rows.table
    rows.add_age(rows.ages("age"), request.options)
    rows.add_sex(table["gender"])
    mapping, names = RACE_RULES[request.options["race_rule"]]
    rows.add("race", table["race"].map(_race).map(mapping).fillna(""), names)
    stem = table["filename"].str.removesuffix(".npz")
    frame = rows.frame(row_id=stem, patient_id=stem, label=glaucoma.loc[table.index])
    if request.options["split_rule"] == "official":
        frame["split"] = _official(table["use"])
    fallback = root / "Training"
    sources = [
        NpzSource(files.get(f"{s}.npz", fallback / f"{s}.npz"), MAP, BOUNDS)
        for s in frame["row_id"]
    ]
    return rows.raw(frame, ("no glaucoma", "glaucoma"), None if request.metadata_only else sources)


def _summary(path: Path) -> pd.DataFrame:
    table = read_table(path)
    require_columns(table, ["filename", "age", "gender", "race", "glaucoma"], path.name)
    return table if "use" in table else table.assign(use="")


def _from_files(files: dict[str, Path]) -> pd.DataFrame:
    """Make the summary table from the values beside the maps; the folder says which split."""
    lines, failed = [], []
    for name, path in files.items():
        try:
            values = {k: np.ravel(v)[0] for k, v in read_npz(path, KEYS).items()}
        except ImageError as error:
            failed.append(f"{name} {error}")
            continue
        male = str(values["male"]).split(".")[0]
        lines.append(
            {
                "filename": name,
                "age": str(values["age"]),
                "gender": {"1": "male", "0": "female"}.get(male, ""),
                "race": str(values["race"]),
                "glaucoma": str(values["glaucoma"]),
                "use": path.parent.name,
            }
        )
    if failed:
        raise ValueError(
            f"without data_summary.csv every NPZ file must hold {', '.join(KEYS)}; {len(failed)} "
            f"of {len(files)} do not: {shortened(failed)}. Add data_summary.csv, or remove them."
        )
    return pd.DataFrame(lines)


def _yes_no(value: object) -> float:
    return {"yes": 1.0, "1": 1.0, "no": 0.0, "0": 0.0}.get(
        str(value).strip().lower().removesuffix(".0"), float("nan")
    )


def _race(value: object) -> str:
    text = str(value).strip().lower().removesuffix(".0")
    return RACES.get(text) or next((r for r in RACES.values() if r.lower() in text), "")


def _official(values: pd.Series) -> list[str]:
    text = values.fillna("").astype(str).str.strip().str.lower()
    odd = int((~text.isin(USES)).sum())
    if odd:
        raise ValueError(
            f"the official split needs training, validation or test for every file; {odd} of "
            f"{len(text)} have none. Use --split-rule stratified, or the set as shipped."
        )
    return list(text.map(USES))


SPEC = DatasetSpec(
    name="harvard_gf3300",
    title="3,300 retinal nerve fibre layer thickness maps, 1,100 of each of three races",
    source="Harvard Ophthalmology AI Lab; Luo et al. 2024",
    licence="CC BY-NC-ND 4.0",
    steps=STEPS,
    label_rule="1 iff glaucoma",
    attributes={
        "age": "cut at 60 on the unrounded age",
        "sex": "male M, female F",
        "race": "Black against Asian or White (option race_rule)",
    },
    default_sensitive="race",
    read=read,
    split_unit="patient, one map each",
    split_rules=("stratified", "official"),
    stratify=("race", "sex", "age"),
    expected_counts={"rows": 3300},
    preprocessing="thickness -2..350 micrometres scaled to 0..255; three equal channels",
    options=(
        OptionSpec(
            "race_rule",
            "black_vs_rest",
            "the paper's rule, MEDFAIR's, or three groups",
            tuple(RACE_RULES),
        ),
    ),
)
