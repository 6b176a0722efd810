"""Which pictures are meant: files, folders with what lies in them, or a table with a column of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fairtune_hf.data.dicom import is_dicom
from fairtune_hf.data.links import walk_folders
from fairtune_hf.data.rows import PICTURES
from fairtune_hf.data.tabular import read_table
from fairtune_hf.data.volumes import SUFFIXES as VOLUMES
from fairtune_hf.naming import require_columns, shortened

DICOM = (".dcm", ".dicom", ".ima")
OTHER_PICTURES = (".jp2", ".j2k", ".pgm", ".ppm", ".pnm", ".gif", ".jfif", ".mpo", ".sgi", ".tga")
_DEPTH = 64
_HEAD = 1 << 16  # of DICOM without a preamble, more than its first elements is looked at


@dataclass(frozen=True)
class Listing:
    """Pictures in their order, as they are to be called and where they lie; `rows` is the table they stand in."""

    names: list[str]
    paths: list[Path]
    rows: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)


def list_pictures(given: Sequence[str | Path]) -> Listing:
    """List files as they were named and the pictures of folders, by name, folders within them too.

    Of a folder the files are taken whose name ends as a picture's does, and DICOM without an ending; the others are
    counted. A file that was named is taken whatever it is called.

    Raises:
        ValueError: A folder holds no picture.
    """
    paths: list[Path] = []
    notes = []
    for word in given:
        path = Path(word).expanduser()
        if not path.is_dir():
            paths.append(path)
            continue
        found, others = _in_folder(path)
        if not found:
            raise ValueError(
                f"PICTURES: expected pictures in the folder {path}, and none of its {len(others)} files is one by its "
                "name. Name the files themselves."
            )
        paths += found
        if others:
            notes.append(f"Left out, not pictures by their names: {shortened(others, shown=3)}")
    return Listing([str(path) for path in paths], paths, notes=notes)


def read_listing(table: str | Path, column: str) -> Listing:
    """List the pictures of a table, in the order of its rows; all columns are kept as text.

    Args:
        table: CSV, TSV, XLSX, JSONL or Parquet.
        column: The files, absolute or relative to the table's folder.

    Raises:
        FileNotFoundError: There is no such table.
        ValueError: It cannot be read, has no such column, or a row without a file.
    """
    path = Path(table).expanduser()
    rows = read_table(path)
    require_columns(rows, [column], path.name)
    names = rows[column]
    empty = [str(line) for line in rows.index[names.isna()] + 2]
    if empty:
        raise ValueError(
            f"--image-column: expected a file in every row of {path.name}, and {len(empty)} have none (line "
            f"{shortened(empty)}). Complete or remove these rows."
        )
    return Listing(names.tolist(), [path.parent / str(name) for name in names], rows)


def _in_folder(root: Path) -> tuple[list[Path], list[str]]:
    found, others = [], []
    for folder, names in walk_folders(root, _DEPTH):
        for name in names:
            path = folder / name
            if _is_picture(path):
                found.append(path)
            elif not name.startswith("."):
                others.append(str(path.relative_to(root)))
    return found, others


def _is_picture(path: Path) -> bool:
    name = path.name.lower()
    if name.startswith("."):
        return False
    if name.endswith((*PICTURES, *DICOM, *VOLUMES, *OTHER_PICTURES)):
        return True
    if path.suffix and not path.suffix[1:].isdigit():  # DICOM is often called by its UID
        return False
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(_HEAD))
    except OSError:
        return False
