"""Where a folder of pictures keeps its table: the layouts that `datasets` calls ImageFolder.

One metadata file at the top, or one in each folder of a split or a label; CSV, TSV, Excel, JSON
lines or Parquet; the splits and the labels by folder. Mixtures are refused in words.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fairtune_hf.data.links import walk_folders
from fairtune_hf.data.rows import PICTURES
from fairtune_hf.data.split_names import split_of, split_of_path
from fairtune_hf.data.tabular import read_table, safe_relative
from fairtune_hf.naming import shortened

FILE = "file_name"
LABEL = "label"
SPLIT_FOLDER = "folder of the split"
"""The column for splits that are told by folders."""

SUFFIXES = (".csv", ".tsv", ".xlsx", ".xlsm", ".jsonl", ".parquet")
DEPTH = 4


@dataclass
class FolderTable:
    """The rows of a folder, file names relative to it, and what messages call their origin."""

    table: pd.DataFrame
    origin: str
    notes: list[str] = field(default_factory=list)


def read_folder_table(root: Path) -> FolderTable | None:
    """Read the metadata of a folder, or return None if it has no metadata file.

    Raises:
        ValueError: if metadata files stand beside each other that cannot be read as one table.
    """
    files = metadata_files(root)
    if not files:
        return None
    top = [f for f in files if f.parent == root]
    below = [f for f in files if f.parent != root]
    if not top:
        return _read_nested(root, below)
    in_splits = [f for f in below if split_of_path(f.relative_to(root).parts[:-1])]
    if len(top) > 1 or in_splits:
        raise _mixture(root, [*top, *in_splits])
    found = FolderTable(_with_file_names(read_table(top[0]), top[0].name), top[0].name)
    if below:
        names = [f.relative_to(root).as_posix() for f in below]
        found.notes.append(f"{top[0].name} was read, these were not: {shortened(names)}")
    return found


def metadata_files(root: Path) -> list[Path]:
    """Return the files called metadata.csv, .tsv, .xlsx, .jsonl or .parquet, the top ones first."""
    found = []
    for folder, names in walk_folders(root, DEPTH):
        for name in names:
            stem, suffix = os.path.splitext(name.lower())  # noqa: PTH122  over many thousand names
            if stem == "metadata" and suffix in SUFFIXES:
                found.append(folder / name)
    return sorted(found, key=lambda f: (len(f.parts), str(f)))


def _mixture(root: Path, files: Sequence[Path]) -> ValueError:
    names = [f.relative_to(root).as_posix() for f in files]
    return ValueError(
        f"{root} must have one metadata file at its top, or one of the same kind in each folder of "
        f"a split or label; it has {shortened(names)}. Keep the ones that hold the rows, and move "
        "the others away."
    )


def _read_nested(root: Path, files: Sequence[Path]) -> FolderTable:
    """Join the tables of several folders; each names files relative to its own."""
    if len({f.suffix.lower() for f in files}) > 1 or len({f.parent for f in files}) < len(files):
        raise _mixture(root, files)
    places = [f.relative_to(root).parts[:-1] for f in files]
    splits = [split_of_path(p) for p in places]
    _require_every_split(root, files, places, splits)
    tables = []
    for path, place, split in zip(files, places, splits, strict=True):
        table = _with_file_names(read_table(path), path.relative_to(root).as_posix())
        folder = "/".join(place)
        names = [_inside(folder, name) for name in table[FILE]]
        table[FILE] = pd.Series(names, index=table.index, dtype=object)
        tables.append(table if split is None else table.assign(**{SPLIT_FOLDER: split}))
    _require_same_columns(root, files, tables)
    joined = pd.concat(tables, ignore_index=True)
    shown = shortened(["/".join(p) for p in places])
    return FolderTable(joined, f"the {files[0].name} of the folders {shown}")


def _inside(folder: str, name: object) -> object:
    # A name that leaves its folder stays as it is, to be refused with the others.
    relative = safe_relative(name) if isinstance(name, str) else None
    return name if relative is None else f"{folder}/{relative}"


def _require_every_split(
    root: Path,
    files: Sequence[Path],
    places: Sequence[tuple[str, ...]],
    splits: Sequence[str | None],
) -> None:
    if any(splits) and not all(splits):
        raise _mixture(root, files)
    bare = [
        d.name
        for d in sorted(root.iterdir())
        if d.is_dir() and split_of(d.name) and d.name not in {p[0] for p in places}
    ]
    if any(splits) and bare:
        raise ValueError(
            f"each folder of a split in {root} must have its metadata file; {shortened(bare)} has "
            "none. Add it, or move that folder away."
        )


def _require_same_columns(
    root: Path, files: Sequence[Path], tables: Sequence[pd.DataFrame]
) -> None:
    first = set(tables[0].columns)
    for path, table in zip(files, tables, strict=True):
        differing = sorted(map(str, first ^ set(table.columns)))
        if differing:
            raise ValueError(
                f"the metadata files of one data set must have the same columns; "
                f"{path.relative_to(root).as_posix()} and {files[0].relative_to(root).as_posix()} "
                f"differ in {shortened(differing)}. Give both the same ones."
            )


def _with_file_names(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Return a table with `file_name`; one other column such as `image_file_name` is as good."""
    if FILE in table.columns:
        return table
    other = [str(c) for c in table.columns if str(c).endswith(f"_{FILE}")]
    if len(other) > 1:
        raise ValueError(
            f"{origin} must name one picture a row, in the column {FILE}; it has the columns "
            f"{', '.join(other)}. Rename the one to use to {FILE}."
        )
    return table.rename(columns={other[0]: FILE}) if other else table


def add_split_folders(found: FolderTable, *, required: bool) -> None:
    """Take the splits from the folders that the file names lie in, where all of them tell one.

    Raises:
        ValueError: if some file names lie in folders of two splits or more, and others in none,
            while `required`.
    """
    table = found.table
    if SPLIT_FOLDER in table or FILE not in table:
        return
    folders = table[FILE].map(lambda n: str(n).replace("\\", "/").rpartition("/")[0])
    meant = {f: split_of_path(f.split("/")) for f in folders.unique()}
    splits = {s for s in meant.values() if s}
    if len(splits) < 2:
        return
    column = folders.map(meant)
    if column.notna().all():
        found.table = table.assign(**{SPLIT_FOLDER: column})
    elif required:
        raise ValueError(
            f"the file names of {found.origin} must lie in folders of the splits, or none of them; "
            f"{int(column.notna().sum())} lie in folders of {' and '.join(sorted(splits))}, "
            f"{int(column.isna().sum())} elsewhere. Name a column with --split-column, or have all "
            "patients split anew with --split-rule stratified."
        )


def add_label_folders(found: FolderTable, label_column: str | None) -> None:
    """Take `label` from the name of the folder that each picture lies in, if no column has it."""
    if label_column != LABEL or LABEL in found.table or FILE not in found.table:
        return
    labels = label_folders(found.table[FILE])
    if labels is not None:
        found.table = found.table.assign(**{LABEL: labels})
        found.notes.append("the label is the name of the folder that each picture lies in")


def label_folders(names: pd.Series) -> pd.Series | None:
    """Return the last folder of each file name if these are labels: two or more, none a split."""
    folders = names.map(lambda n: str(n).replace("\\", "/").rpartition("/")[0].rpartition("/")[2])
    found = set(folders)
    if len(found) < 2 or "" in found or any(split_of(f) for f in found):
        return None
    return folders


def say_picture_folders(root: Path) -> str:
    """Describe a folder without metadata whose pictures lie in folders of labels; else nothing."""
    found: set[str] = set()
    for folder, names in walk_folders(root, DEPTH):
        if any(n.lower().endswith(PICTURES) for n in names):
            found.add(folder.name if folder != root else "")
    if len(found) < 2 or "" in found:
        return ""
    return (
        f" The pictures lie in folders of labels ({shortened(sorted(found))}), which tell no "
        "sensitive attribute: add a metadata.csv with file_name and that attribute, and take the "
        "label from the folders with --label-column label."
    )


def complete_suffixes(root: Path, found: FolderTable) -> None:
    """Complete file names without a suffix where one file of the folder has this name with one.

    Raises:
        ValueError: if two files or more differ only in the suffix.
    """
    names = found.table[FILE]
    listed: dict[str, tuple[set[str], dict[str, list[str]]]] = {}
    full: dict[str, str] = {}
    twice: list[str] = []
    for name in names.dropna().unique():
        relative = safe_relative(str(name))
        if relative is None:
            continue
        folder, _, last = relative.rpartition("/")
        if folder not in listed:
            listed[folder] = _list_stems(root / folder)
        files, stems = listed[folder]
        if last in files or last not in stems:
            continue
        if len(stems[last]) > 1:
            twice.append(f"{name}: {', '.join(stems[last])}")
        else:
            full[name] = f"{folder}/{stems[last][0]}" if folder else stems[last][0]
    if twice:
        raise ValueError(
            f"a file name without a suffix must fit one file; {len(twice)} in {found.origin} fit "
            f"several ({shortened(twice)}). Write the names with their suffix."
        )
    if full:
        count = int(names.isin(full).sum())
        found.table = found.table.assign(**{FILE: names.map(lambda n: full.get(n, n))})
        found.notes.append(
            f"{count} file names have no suffix; the one file of that name was taken"
        )


def _list_stems(folder: Path) -> tuple[set[str], dict[str, list[str]]]:
    files = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208
    stems: dict[str, list[str]] = {}
    for name in sorted(files):
        stem, dot, _ = name.rpartition(".")
        if dot and stem:
            stems.setdefault(stem, []).append(name)
            # Two suffixes, as in scan.nii.gz, are one.
            inner, dot, last = stem.rpartition(".")
            if dot and last.lower() == "nii":
                stems.setdefault(inner, []).append(name)
    return files, stems
