"""NIH ChestX-ray14 (Wang et al. 2017): any finding against none, by sex or age."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fairtune_hf.data.declaration import DatasetSpec, OptionSpec, RawTable, ReadRequest
from fairtune_hf.data.rows import Rows, absent, require_file, stem_sources
from fairtune_hf.data.splits import label_strata, stratified_split
from fairtune_hf.data.tabular import find_table
from fairtune_hf.naming import unknown_name

TABLES = ("metadata.csv", "Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
ANY = "any"
STEPS = (
    "Download images_001.tar.gz to images_012.tar.gz, Data_Entry_2017_v2020.csv, train_val_list.txt "
    "and test_list.txt from https://nihcc.app.box.com/v/ChestXray-NIHCC and unpack all into one "
    "folder: images/ (or images_001/images/ and so on) beside the CSV file, which may also be "
    "named metadata.csv."
)


def read(root: Path, request: ReadRequest) -> RawTable:
    """Read the CSV file and find the pictures."""
    if find_table(root, TABLES) is None:
        raise absent(root, " or ".join(TABLES), STEPS)
    needed = ["Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender"]
    rows = Rows.open(root, TABLES, STEPS, needed)
    rows.drop(rows.table["Finding Labels"].isna(), "label missing")
    rows.keep_first("Image Index", "repeated image id")
    table = rows.table
    rows.add_sex(table["Patient Gender"])
    rows.add_age(rows.ages("Patient Age"), request.options)
    label, names = _label(table, request.options["finding"])
    frame = rows.frame(row_id=table["Image Index"], patient_id=table["Patient ID"], label=label)
    if request.options["split_rule"] == "official":
        frame["split"] = _official_split(root, frame, request)
    folders = [root / "images", *sorted(root.glob("images_*/images")), root]
    stems = [Path(name).stem for name in frame["row_id"]]
    return rows.raw(frame, names, stem_sources(stems, folders, request, "{}.png"))


def _label(table: pd.DataFrame, finding: str) -> tuple[pd.Series, tuple[str, str]]:
    findings = table["Finding Labels"].str.split("|")
    if finding == ANY:
        return (table["Finding Labels"] != "No Finding").astype(int), ("no finding", "any finding")
    known = sorted({f for row in findings for f in row})
    if finding not in known:
        raise unknown_name("finding", finding, [ANY, *known])
    return findings.map(lambda f: int(finding in f)), (f"no {finding}", finding)


def _official_split(root: Path, frame: pd.DataFrame, request: ReadRequest) -> pd.Series:
    held = set(require_file(root, ["test_list.txt"], STEPS).read_text().split())
    test = frame["row_id"].isin(held)
    rest = frame[~test]
    strata = label_strata(rest, ("sex", "age"))
    inner = stratified_split(
        rest["patient_id"], strata, seed=request.seed, fractions=(0.875, 0.125, 0.0)
    )
    return inner.reindex(frame.index).fillna("test")


SPEC = DatasetSpec(
    name="nih_chestxray14",
    title="112,120 frontal chest X-rays of 30,805 patients with 14 findings mined from reports",
    source="NIH Clinical Center; Wang et al., CVPR 2017",
    licence="no restriction on use; name the NIH Clinical Center and cite Wang et al. 2017",
    steps=STEPS,
    label_rule="1 iff 'Finding Labels' is not 'No Finding' (option finding: 1 iff it is listed)",
    attributes={"sex": "'Patient Gender': M, F", "age": "'Patient Age' cut at 60"},
    default_sensitive="sex",
    read=read,
    filters="rows without finding labels; columns repo_split and repo_class are ignored",
    split_unit="patient ('Patient ID')",
    split_rules=("stratified", "official"),
    stratify=("sex", "age"),
    expected_counts={"rows": 112120},
    options=(OptionSpec("finding", ANY, "any finding, or one finding such as Pneumonia"),),
)
