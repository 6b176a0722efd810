"""Steps that several readers share: ages to groups, de-duplication, finding picture files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fairtune_hf.data.attributes import (
    SEX_GROUPS,
    bin_values,
    parse_thresholds,
    read_ages,
    sex_groups,
    threshold_groups,
)
from fairtune_hf.data.declaration import RawTable, ReadRequest
from fairtune_hf.data.image_source import ImageSource
from fairtune_hf.data.images import FileSource
from fairtune_hf.data.tabular import find_table, read_table
from fairtune_hf.naming import require_columns

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class Rows:
    """A table on its way through a reader: what is dropped is counted, what is odd is noted."""

    def __init__(self, table: pd.DataFrame, origin: str) -> None:
        self.table, self.origin = table.reset_index(drop=True), origin
        # Line 1 is the header, so the first row stands on line 2.
        self.table["source_row"] = range(2, len(table) + 2)
        self.dropped: dict[str, int] = {}
        self.warnings: list[str] = []
        self.groups: dict[str, tuple[str, ...]] = {}
        self.attributes: dict[str, pd.Series] = {}

    @classmethod
    def open(cls, root: Path, names: Sequence[str], steps: str, needed: Sequence[str]) -> Rows:
        """Read the first of the tables `names` in `root`, which must have the columns `needed`."""
        path = require_file(root, names, steps)
        table = read_table(path)
        require_columns(table, needed, path.name)
        return cls(table, path.name)

    def drop(self, where: pd.Series, reason: str) -> None:
        """Leave out the rows of `where`, counted under `reason`."""
        count = int(where.sum())
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count
            self.table = self.table[~where]

    def keep_first(self, column: str, reason: str) -> None:
        """Leave out later rows that repeat a value of `column`."""
        self.drop(self.table[column].duplicated(), reason)

    def ages(self, column: str) -> pd.Series:
        """Return the ages of a column as numbers and note the values that are none."""
        ages, notes = read_ages(self.table[column])
        self.warnings += notes
        return ages

    def add_age(self, ages: pd.Series, options: Mapping[str, Any], name: str = "age") -> None:
        """Add an attribute of age groups."""
        cuts = parse_thresholds(options["age_threshold"])
        self.groups[name] = threshold_groups(cuts, options["age_boundary"])
        self.attributes[name] = bin_values(ages, cuts, options["age_boundary"])

    def add_sex(self, values: pd.Series, name: str = "sex") -> None:
        """Add an attribute with the groups M and F."""
        self.groups[name] = SEX_GROUPS
        self.attributes[name] = sex_groups(values)

    def add(self, name: str, values: pd.Series, groups: Sequence[str]) -> None:
        """Add an attribute whose values are group names already, empty where unknown."""
        self.groups[name] = tuple(groups)
        self.attributes[name] = values

    def frame(self, *, row_id: pd.Series, patient_id: pd.Series, label: pd.Series) -> pd.DataFrame:
        """Put the canonical columns together."""
        columns: dict[str, Any] = {
            "row_id": row_id.astype(str),
            "patient_id": patient_id.astype(str).str.strip(),
            "label": label.astype("int64"),
        }
        index = self.table.index
        columns |= {n: v.reindex(index).astype(str) for n, v in self.attributes.items()}
        columns["source_row"] = self.table["source_row"]
        return pd.DataFrame(columns, index=index).reset_index(drop=True)

    def raw(
        self,
        frame: pd.DataFrame,
        label_names: tuple[str, str],
        sources: Sequence[ImageSource] | None,
        *notes: str,
    ) -> RawTable:
        """Return what a reader hands on: complete rows with what was counted and noted on the way."""
        return RawTable(
            frame=frame,
            groups=self.groups,
            label_names=label_names,
            sources=sources,
            origin=self.origin,
            dropped=self.dropped,
            warnings=[*self.warnings, *notes],
        )


def picture_index(folders: Iterable[Path], suffixes: Sequence[str] = PICTURES) -> dict[str, Path]:
    """Map the stem of each picture in `folders` (not deeper) to its path; the first found wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix.lower() in suffixes:
                found.setdefault(path.stem, path)
    return found


def stem_sources(
    stems: Iterable[str], folders: Sequence[Path], request: ReadRequest, missing: str = "{}.jpg"
) -> list[FileSource] | None:
    """Return the picture file of each stem, unless none is asked for; one that is not there keeps the name to expect."""
    if request.metadata_only:
        return None
    index = picture_index(folders)
    fallback = folders[0] if folders else Path()
    sources = []
    for stem in stems:
        path = index.get(stem, fallback / missing.format(stem))
        sources.append(FileSource(path=path, name=path.name, depth16=request.options["depth16"]))
    return sources


def require_file(root: Path, names: Sequence[str], steps: str) -> Path:
    """Return the first of `names` that is in `root`.

    Raises:
        FileNotFoundError: if none is, with the steps to get it.
    """
    path = find_table(root, names)
    if path is None:
        raise absent(root, names[0], steps)
    return path


def absent(root: Path, expected: str, steps: str) -> FileNotFoundError:
    """Build the error for a folder without the file a reader starts from."""
    present = sorted(p.name for p in root.iterdir())[:8]
    return FileNotFoundError(
        f"{expected} was expected in {root}, which holds {', '.join(present) or 'nothing'}. {steps}"
    )
