"""Anybody's own data: a folder with pictures and `metadata.csv`, its columns named by flags."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fairtune_hf.ages import MANY, is_age_name, needs_cut, without_impossible
from fairtune_hf.data.attributes import JOINT, parse_thresholds, read_ages, threshold_groups
from fairtune_hf.data.declaration import DatasetSpec, OptionSpec, RawTable, ReadRequest
from fairtune_hf.data.folder_hf import SPLIT_COLUMN, is_hf_folder, is_hub_id, read_hf
from fairtune_hf.data.folder_layouts import (
    FILE,
    SPLIT_FOLDER,
    FolderTable,
    add_label_folders,
    add_split_folders,
    complete_suffixes,
    read_folder_table,
    say_picture_folders,
)
from fairtune_hf.data.image_source import ImageSource
from fairtune_hf.data.images import FileSource
from fairtune_hf.data.links import say_links
from fairtune_hf.data.rows import Rows, absent
from fairtune_hf.data.split_names import say_names, split_of
from fairtune_hf.data.tabular import safe_relative
from fairtune_hf.data.volumes import told_of_volumes
from fairtune_hf.label_values import binary_label, missing_label, say_positive
from fairtune_hf.naming import require_columns, shortened, value_counts
from fairtune_hf.unknown_values import say_unknown, unknown_mask

STEPS = (
    "Make one folder with the pictures and a metadata.csv (or .jsonl, .parquet; also one in each "
    "split's folder) that has a column file_name (paths "
    "relative to the folder), a column with the label (two values) and one with the sensitive "
    "attribute; name these with --label-column and --sensitive-column, and with --patient-column "
    "the column that says which pictures belong to one person. A folder saved by datasets, or an "
    "id on the Hub (owner/name), does too."
)


def read(root: Path, request: ReadRequest) -> RawTable:
    """Read metadata.csv by the columns that the flags name."""
    found, pictures = _open(root, request)
    origin = found.origin
    rows = Rows(found.table, origin)
    rows.warnings += found.notes
    names = _sensitive_columns(request)
    _require(rows.table, names, request, origin)
    label_column = str(request.label_column)
    told = [FILE, label_column, *names, request.patient_column, request.split_column]
    _refuse_empty(rows.table, [c for c in told if c], origin)
    rows.drop(rows.table[FILE].isna(), "file name missing")
    rows.drop(rows.table[label_column].isna(), "label missing")
    rows.drop(missing_label(rows.table[label_column]), "label unknown")
    table = rows.table
    for name in names:
        _add_attribute(rows, name, request.options)
    label, label_names = binary_label(
        table[label_column], label_column, request.options["positive_label"]
    )
    if not request.options["positive_label"]:
        rows.warnings += say_positive(label_names, label_column)
    patients = _patients(rows, request.patient_column)
    frame = rows.frame(row_id=table[FILE], patient_id=patients, label=label)
    split_column = request.split_column or _own_splits(table, pictures)
    if split_column and request.options["split_rule"] == "given":
        frame["split"] = _split_values(table[split_column], split_column, origin)
        rows.warnings += say_names(table[split_column].unique())
    sources: Sequence[ImageSource] = (
        [pictures[name] for name in table[FILE]]
        if pictures
        else _sources(root, table, origin, request)
    )
    if not pictures:
        rows.warnings += say_links(root, (source.name for source in sources))
    rows.warnings += told_of_volumes(table[FILE])
    raw = rows.raw(frame, label_names, None if request.metadata_only else sources)
    raw.recorded = {
        "label_column": label_column,
        "positive_label": label_names[1],
        "sensitive_column": ",".join(names),
        "patient_column": request.patient_column,
        "split_column": split_column,
    }
    raw.stratify = tuple(names)
    is_joint = JOINT in str(request.sensitive_column)
    raw.default_sensitive = JOINT.join(names) if is_joint else names[0]
    return raw


def _patients(rows: Rows, column: str | None) -> pd.Series:
    """Return the patient of each row; one without an id is its own."""
    table = rows.table
    # A blank too many must not make two patients of one, who could then lie in two splits.
    patients = table[column or FILE].astype("string").str.strip()
    if column is None:
        rows.warnings.append(
            "no patient column is named: pictures of one person may lie in two splits"
        )
        return patients
    unknown = unknown_mask(patients)
    if unknown.any():
        rows.warnings.append(f"{int(unknown.sum())} rows have no patient id: each its own")
    return patients.mask(unknown, "row " + table["source_row"].astype(str))


def _open(root: Path, request: ReadRequest) -> tuple[FolderTable, Mapping[str, ImageSource] | None]:
    """Return the table, and the pictures if they are not files."""
    found = read_folder_table(root) if root.is_dir() else None
    if found is not None:
        if request.split_column is None:
            add_split_folders(found, required=request.options["split_rule"] == "given")
        add_label_folders(found, request.label_column)
        if FILE in found.table:
            complete_suffixes(root, found)
        return found, None
    if not is_hub_id(root) and not is_hf_folder(root):
        raise absent(root, "metadata.csv", say_picture_folders(root).lstrip() or STEPS)
    table, pictures = read_hf(root, request.options["depth16"])
    return _with_known_splits(table, f"the data set {root}", request), pictures


def _with_known_splits(table: pd.DataFrame, origin: str, request: ReadRequest) -> FolderTable:
    """Leave out rows of splits beside train, validation and test, if there are such ones too."""
    found = FolderTable(table, origin)
    if (
        SPLIT_COLUMN not in table
        or request.split_column
        or request.options["split_rule"] != "given"
    ):
        return found
    meant = table[SPLIT_COLUMN].map(split_of)
    extra = ", ".join(sorted(table.loc[meant.isna(), SPLIT_COLUMN].unique()))
    if not extra:
        return found
    if meant.isna().all():
        found.table = table.drop(columns=SPLIT_COLUMN)
        found.notes.append(f"the splits {extra} are joined, and patients split anew")
        return found
    found.table = table[meant.notna()].reset_index(drop=True)
    found.notes.append(
        f"{int(meant.isna().sum())} rows were left out, of splits that are none of train, "
        f"validation and test: {extra}"
    )
    return found


def _own_splits(table: pd.DataFrame, pictures: Mapping[str, ImageSource] | None) -> str | None:
    """Return the column with the splits that the folders, or a `datasets` data set, tell."""
    if SPLIT_FOLDER in table:
        return SPLIT_FOLDER
    if not pictures or SPLIT_COLUMN not in table:
        return None
    # A single training split is the whole data set, whose other splits are still to be made.
    return (
        None if {split_of(s) for s in table[SPLIT_COLUMN].unique()} == {"train"} else SPLIT_COLUMN
    )


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0


def _sensitive_columns(request: ReadRequest) -> list[str]:
    if request.label_column is None:
        raise ValueError(
            "--dataset folder needs --label-column, the column of metadata.csv with the label."
        )
    given = request.sensitive_column or request.sensitive
    if not given:
        raise ValueError(
            "--dataset folder needs --sensitive-column, the column of metadata.csv with the "
            "sensitive attribute; several are separated by commas."
        )
    parts = given.replace(JOINT, ",").split(",")
    return list(dict.fromkeys(p.strip() for p in parts if p.strip()))


def _require(table: pd.DataFrame, names: list[str], request: ReadRequest, origin: str) -> None:
    chosen = [request.label_column, *names, request.patient_column, request.split_column]
    require_columns(table, [FILE, *(c for c in chosen if c)], origin)
    for name in names:
        if name in (request.label_column, FILE):
            raise ValueError(
                f"the sensitive attribute must be another column than the label and the file "
                f"name; {name!r} came. Name another with --sensitive-column."
            )
        if name in ("row_id", "patient_id", "label", "split", "source_row"):
            raise ValueError(
                f"a sensitive attribute cannot be named {name!r}, a name the table uses itself. "
                "Rename the column."
            )


def _refuse_empty(table: pd.DataFrame, columns: list[str], origin: str) -> None:
    for column in columns:
        if table[column].isna().all():
            raise ValueError(
                f"the column {column!r} of {origin} must have values; all {len(table)} are "
                "missing. Choose another column, or fill it in."
            )


def _add_attribute(rows: Rows, name: str, options: Any) -> None:
    """Add a column as groups: numbers with many values are cut at thresholds, else as they are."""
    values = rows.table[name]
    values = values.mask(unknown_mask(values, name), None)
    rows.warnings += say_unknown(rows.table[name], name)
    text = values.fillna("").astype(str).str.strip()
    is_age = is_age_name(name)
    if is_age:
        numbers, notes = read_ages(values)
    else:
        numbers, notes = pd.to_numeric(text.where(text != ""), errors="coerce").astype(float), []
    mostly_numbers = numbers.notna().sum() > (text != "").sum() / 2
    if needs_cut(numbers, is_age=is_age, mostly_numbers=bool(mostly_numbers)):
        rows.warnings += notes
        cuts = parse_thresholds(options["age_threshold"])
        rows.add_age(numbers, options, name)
        rows.warnings.append(
            f"{name!r} holds many numbers and is cut into {', '.join(threshold_groups(cuts, options['age_boundary']))}"
        )
        return
    if is_age:
        text, told = without_impossible(text, name)
        rows.warnings += told
    found = sorted(set(text) - {""}, key=lambda v: (_number(v), v))
    if len(found) > 2 * MANY:
        raise ValueError(
            f"the sensitive attribute {name!r} must have a few groups; it has {len(found)} values "
            f"({value_counts(text)}). Choose another column, or merge values into a new one."
        )
    rows.add(name, text, found)


def _split_values(values: pd.Series, column: str, origin: str) -> list[str]:
    meant = values.map(lambda v: None if v is None or v != v else split_of(v))
    odd = values[meant.isna()].fillna("").astype(str).str.strip()
    if len(odd):
        raise ValueError(
            f"the split column {column!r} of {origin} must hold train, validation or test; "
            f"{len(odd)} rows hold something else ({value_counts(odd)}). Correct these rows."
        )
    return list(meant)


def _sources(
    root: Path, table: pd.DataFrame, origin: str, request: ReadRequest
) -> list[FileSource]:
    depth16 = request.options["depth16"]
    sources, refused = [], []
    prefix = f"{root}{os.sep}"  # joined as text: a Path a picture is slow over many thousands
    for name, line in zip(table[FILE].tolist(), table["source_row"].tolist(), strict=True):
        relative = safe_relative(str(name))
        if relative is None:
            refused.append(f"line {line}: {name!r}")
            continue
        sources.append(FileSource(path=prefix + relative, name=relative, depth16=depth16))
    if refused:
        raise ValueError(
            f"file names in {origin} must be paths inside its folder; {len(refused)} are absolute "
            f"or leave it ({shortened(refused)}). Copy these pictures into the folder."
        )
    return sources


SPEC = DatasetSpec(
    name="folder",
    title="your own pictures and metadata.csv",
    source="you",
    licence="yours",
    steps=STEPS,
    label_rule="--label-column, two values; of words a negation or a word for the healthy is 0, of "
    "numbers the smaller (option positive_label decides otherwise)",
    attributes={"any column": "named by --sensitive-column; many numbers are cut at age_threshold"},
    default_sensitive=None,
    read=read,
    filters="rows without a label or file name",
    split_unit="--patient-column, else the picture",
    split_rules=("given", "stratified"),
    options=(OptionSpec("positive_label", "", "the value of the label column that is label 1"),),
)
