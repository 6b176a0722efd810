"""HAM10000 (Tschandl et al. 2018): skin lesions, malignant against benign, by age or sex.

The split is made on the 9,958 rows with a known age, as the paper's Tables 10a and 10b were;
rows of unknown sex are dropped afterwards and for the sex attribute only.
"""

from __future__ import annotations

from pathlib import Path

from fairtune_hf.data.declaration import DatasetSpec, OptionSpec, RawTable, ReadRequest
from fairtune_hf.data.rows import Rows, stem_sources

TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata")
FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_images")
MALIGNANT = {"maron": ("akiec", "mel"), "clinical": ("akiec", "mel", "bcc")}
STEPS = (
    "Download HAM10000_images_part_1.zip, HAM10000_images_part_2.zip and HAM10000_metadata from "
    "Harvard Dataverse, https://doi.org/10.7910/DVN/DBW86T, and unpack them into one folder: "
    "HAM10000_images_part_1/, HAM10000_images_part_2/ (or one HAM10000_images/) beside "
    "HAM10000_metadata.csv (or .tab)."
)


def read(root: Path, request: ReadRequest) -> RawTable:
    """Read the metadata table and find the pictures."""
    rows = Rows.open(root, TABLES, STEPS, ["lesion_id", "image_id", "dx", "age", "sex"])
    # Redistributed copies repeat image ids after augmentation.
    rows.keep_first("image_id", "repeated image id")
    rows.drop(rows.table["dx"].isna(), "diagnosis missing")
    ages = rows.ages("age")
    rows.drop(ages.isna(), "age unknown")
    table = rows.table
    rows.add_age(ages.loc[table.index], request.options)
    rows.add_sex(table["sex"])
    malignant = MALIGNANT[request.options["label_rule"]]
    label = table["dx"].str.strip().str.lower().isin(malignant)
    frame = rows.frame(row_id=table["image_id"], patient_id=table["lesion_id"], label=label)
    folders = [root / f for f in FOLDERS] + [root]
    sources = stem_sources(frame["row_id"], folders, request)
    return rows.raw(frame, ("benign", "malignant"), sources)


SPEC = DatasetSpec(
    name="ham10000",
    title="10,015 dermatoscopic pictures of 7,470 pigmented skin lesions",
    source="Tschandl et al. 2018, Harvard Dataverse doi:10.7910/DVN/DBW86T",
    licence="CC BY-NC 4.0",
    steps=STEPS,
    label_rule="1 iff dx is akiec or mel (label_rule=clinical: bcc too, which is a malignancy)",
    attributes={"age": "cut at 60; 60 itself is in the lower group", "sex": "male M, female F"},
    default_sensitive="age",
    read=read,
    filters="age unknown; for the sex attribute also sex unknown, after the split",
    split_unit="lesion ('lesion_id'); patients are not published, so two lesions of one patient "
    "may lie in two splits",
    split_rules=("published", "stratified"),
    split_seeds=(0, 0),
    stratify=("age", "sex"),
    expected_counts={"rows": 9958, "positives": 1438},
    options=(
        OptionSpec(
            "label_rule",
            "maron",
            "maron: basal cell carcinoma counts as benign (paper, MEDFAIR); clinical: malignant",
            ("maron", "clinical"),
        ),
    ),
)
