"""Prepare a data set once: its table, its pictures, a page to look at. Behind `fairtune prepare`.

The folder written holds `table.csv`, `pictures/` (a `PictureStore`), `data_report.html` and, last,
`prepared.json`; it can be given as `--data-root` from then on, without the raw data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fairtune_hf.data.catalogue import count_differences
from fairtune_hf.data.checked_rows import CheckedRows, choose_groups, read_checked_rows
from fairtune_hf.data.checks import cells, check_groups, check_splits, check_test_groups
from fairtune_hf.data.data_report import render_data_report
from fairtune_hf.data.declaration import Pictures, ReadRequest
from fairtune_hf.data.load import (
    check_before_pictures,
    check_side,
    decode_pictures,
    take_decoding,
    training_originals,
)
from fairtune_hf.data.near_duplicates import find_near_duplicates
from fairtune_hf.data.prepared import (
    NEAR,
    PICTURES,
    REPORT,
    TABLE,
    claim_folder,
    held_by_another,
    is_prepared,
    release_folder,
    table_text,
    write_manifest,
    write_table,
)
from fairtune_hf.data.splits import hash_split
from fairtune_hf.data.table import SPLITS
from fairtune_hf.whole_files import write_text

_PLACES = {split: place for place, split in enumerate(SPLITS)}


@dataclass(frozen=True)
class PreparedSummary:
    """What was prepared: counts, what was left out, where the files are."""

    name: str = field(metadata={"help": "name of the data set"})
    rows: int = field(metadata={"help": "rows of the table"})
    positives: int = field(metadata={"help": "rows with label 1"})
    patients: int = field(metadata={"help": "patients, or units that never cross splits"})
    label_names: tuple[str, str] = field(metadata={"help": "names of label 0 and label 1"})
    counts: pd.DataFrame = field(
        repr=False, metadata={"help": "columns split, group, label, rows, attribute"}
    )
    dropped: Mapping[str, int] = field(metadata={"help": "reason -> rows left out"})
    warnings: tuple[str, ...] = field(metadata={"help": "what a user should know"})
    options: Mapping[str, Any] = field(metadata={"help": "every contested choice"})
    split_hash: str = field(metadata={"help": "sha256 over the table's rows and splits"})
    table: Path = field(metadata={"help": "table.csv"})
    report: Path | None = field(default=None, metadata={"help": "data_report.html"})
    pictures: Path | None = field(default=None, metadata={"help": "the folder of pictures"})

    def render(self) -> str:
        """Render label x group x split with counts, and the rest, for a terminal."""
        lines = [
            f"{self.name}: {self.rows} rows, {self.patients} split units, "
            f"{self.positives} {self.label_names[1]!r}"
        ]
        for attribute, part in self.counts.groupby("attribute", sort=False):
            wide = part.pivot_table(
                index="group", columns=["split", "label"], values="rows", sort=False
            )
            wide = wide.astype(int).rename({"": "unknown"}).rename_axis(index=str(attribute))
            lines += ["", wide.to_string()]
        lines += ["", *(f"left out: {n} rows, {reason}" for reason, n in self.dropped.items())]
        lines += [f"warning: {w}" for w in self.warnings]
        written = [p for p in (self.table, self.report, self.pictures) if p is not None]
        return "\n".join([*lines, *(f"wrote {p}" for p in written)])


def prepare(
    dataset: str,
    data_root: str | Path | None = None,
    *,
    out: str | Path,
    sensitive: str | None = None,
    image_size: int = 256,
    seed: int = 0,
    metadata_only: bool = False,
    overwrite: bool = False,
    near_duplicates: bool = True,
    **choices: Any,
) -> PreparedSummary:
    """Write a data set's table, pictures and report to the folder `out`.

    The same call on its own folder finishes what was interrupted, or returns at once. With
    `metadata_only` no picture is read or looked for and only `table.csv` is written.

    Args:
        dataset: A name of `DATASETS`.
        data_root: The folder as downloaded.
        out: Folder to write; made if absent.
        sensitive: If given, its groups must be usable; else unusable groups are warnings.
        image_size: Side of the stored pictures.
        seed: Seed of a split without published seeds.
        metadata_only: Write `table.csv` only.
        overwrite: Replace what an earlier, different preparation left in `out`.
        near_duplicates: Compare pictures across splits by how they look, list the pairs that
            nearly match in `near_duplicates.csv` and warn.
        **choices: Columns, options of the data set and how it is decoded, as for `load_dataset_table`.

    Raises:
        ValueError: as `load_dataset_table`; or `out` holds something else. Nothing is written.
        FileNotFoundError: if the folder or a file of the data set is not there.
    """
    check_side(image_size)
    if data_root is not None and not metadata_only and is_prepared(Path(data_root)):
        raise ValueError(
            f"data_root must be the folder as downloaded; {data_root} is prepared already. Give it as "
            "it is to the next step; for other pictures prepare the raw data again."
        )
    decoding = take_decoding(choices)
    request = ReadRequest.of(
        choices,
        sensitive=sensitive,
        seed=seed,
        image_size=image_size,
        metadata_only=metadata_only,
    )
    checked = read_checked_rows(dataset, data_root, request, needs_splits=False)
    _allow_empty_splits(checked)
    if sensitive:
        check_before_pictures(checked, sensitive)
    folder = Path(out)
    if metadata_only:
        return _prepare_table(checked, folder, sensitive, overwrite)
    identity = _identity(checked, image_size)
    claim_folder(folder, identity, overwrite)
    try:
        pictures = decode_pictures(checked, image_size, None, **decoding, place=folder / PICTURES)
    except ValueError:
        release_folder(folder)
        raise
    warn_of_groups(checked, sensitive)
    if near_duplicates:
        _write_near_duplicates(checked, pictures, folder / NEAR)
    write_table(checked, folder / TABLE)
    page = render_data_report(checked, pictures)
    write_text(folder / REPORT, page)
    write_manifest(checked, folder, image_size, identity, training_originals(checked))
    return _summary(checked, folder, report=folder / REPORT, pictures=folder / PICTURES)


def _write_near_duplicates(checked: CheckedRows, pictures: Pictures, path: Path) -> None:
    near = find_near_duplicates(checked.frame, pictures)
    checked.raw.warnings += near.warnings
    if len(near.pairs):
        near.pairs.to_csv(path, index=False, lineterminator="\n")


def _allow_empty_splits(checked: CheckedRows) -> None:
    """Let a set be prepared that has test rows alone, or few: it may be for a test elsewhere."""
    try:
        check_splits(checked.frame)
    except ValueError as error:
        checked.external = True
        checked.raw.warnings.append(
            f"these rows can be scored by fairtune evaluate --run, not trained on: {error}"
        )


def _prepare_table(
    checked: CheckedRows, folder: Path, sensitive: str | None, overwrite: bool
) -> PreparedSummary:
    warn_of_groups(checked, sensitive)
    target = folder / TABLE
    text = table_text(checked)
    if target.exists() and not overwrite and target.read_text(encoding="utf-8") != text:
        raise held_by_another(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(checked, target)
    return _summary(checked, folder)


def warn_of_groups(checked: CheckedRows, sensitive: str | None) -> None:
    """Check the groups of every attribute; only those of `sensitive` can stop."""
    for name in dict.fromkeys([*checked.raw.groups, *([sensitive] if sensitive else [])]):
        trial = checked.fork()
        trial.raw.warnings = []
        try:
            choose_groups(trial, name)
            check = check_test_groups if checked.external else check_groups
            trial.raw.warnings += check(trial.frame, name, trial.groups)
        except ValueError as error:
            if name == sensitive:
                raise
            trial.raw.warnings.append(f"with --sensitive {name} a run would stop: {error}")
        checked.group_warnings += [w if name in w else f"{name}: {w}" for w in trial.raw.warnings]
    checked.raw.warnings += checked.group_warnings


def _identity(checked: CheckedRows, side: int) -> str:
    """Hash what a preparation follows from, so that a folder knows whose it is."""
    told = json.dumps(
        [checked.spec.name, {**checked.request.options, **checked.raw.recorded}, side],
        sort_keys=True,
    )
    files = "\n".join(s.signature() for s in checked.raw.sources or [])
    return hashlib.sha256(f"{told}\n{table_text(checked)}\n{files}".encode()).hexdigest()


def published_differences(checked: CheckedRows) -> list[str]:
    """Say where this preparation differs from the published counts, which may be meant."""
    frame = checked.frame
    found = {
        "rows": len(frame),
        "positives": int(frame["label"].sum()),
        "patients": int(frame["patient_id"].nunique()),
        **{split: int((frame["split"] == split).sum()) for split in SPLITS},
    }
    return count_differences(checked.spec, found)


def _summary(checked: CheckedRows, folder: Path, **written: Path) -> PreparedSummary:
    frame, raw = checked.frame, checked.raw
    return PreparedSummary(
        name=checked.spec.name,
        rows=len(frame),
        positives=int(frame["label"].sum()),
        patients=int(frame["patient_id"].nunique()),
        label_names=raw.label_names,
        counts=count_cells(checked),
        dropped=dict(raw.dropped),
        warnings=tuple(dict.fromkeys([*raw.warnings, *published_differences(checked)])),
        options={**checked.request.options, **raw.recorded},
        split_hash=hash_split(frame),
        table=folder / TABLE,
        **written,
    )


def count_cells(checked: CheckedRows) -> pd.DataFrame:
    """Count rows by attribute, group, split and label; unknown values are the group ''."""
    parts = []
    for name, groups in checked.raw.groups.items():
        named = [*groups, ""] if (checked.frame[name] == "").any() else list(groups)
        wide = cells(checked.frame, name, named).reset_index()
        long = wide.melt(["split", "group"], var_name="label", value_name="rows")
        # In the order of the splits, then of the labels; the groups keep theirs.
        long = long.sort_values(
            ["split", "label"],
            key=lambda c: c.map(_PLACES) if c.name == "split" else c,
            kind="stable",
        )
        parts.append(long.assign(attribute=name))
    return pd.concat(parts, ignore_index=True)
