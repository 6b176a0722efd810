"""OASIS-1 (Marcus et al. 2007): coronal slices of T88 volumes, dementia or not, by age or sex.

The paper's text and counts contradict each other; what the counts prove is the default here: CDR
above 0, age cut at 75, 52 central slices of every subject.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fairtune_hf.data.array_files import SliceSource, volume_slices
from fairtune_hf.data.declaration import DatasetSpec, OptionSpec, RawTable, ReadRequest
from fairtune_hf.data.rows import Rows

TABLES = ("oasis_cross-sectional.csv", "oasis_cross-sectional.xlsx")
CORONAL, CORONAL_SLICES = 1, 208
ENDINGS = {"masked": "_t88_masked_gfc.hdr", "full": "_t88_gfc.hdr"}
CUTS = {"above_0": 0.0, "above_1": 1.0}
STEPS = (
    "Agree to the terms at https://www.oasis-brains.org, download oasis_cross-sectional.csv and "
    "oasis_cross-sectional_disc1.tar.gz to disc12.tar.gz and unpack all into one folder: "
    "disc1/OAS1_0001_MR1/PROCESSED/MPRAGE/T88_111/ and so on beside the CSV file."
)


def read(root: Path, request: ReadRequest) -> RawTable:
    """Read the table, find each session's volume and list its central slices."""
    options = request.options
    rows = Rows.open(root, TABLES, STEPS, ["ID", "M/F", "Age", "CDR"])
    rows.keep_first("ID", "repeated session id")
    rating = pd.to_numeric(rows.table["CDR"], errors="coerce")
    rows.drop(rating.isna(), "sessions without CDR")
    table = rows.table
    rows.add_age(rows.ages("Age"), options)
    rows.add_sex(table["M/F"])
    subject = table["ID"].str.replace(r"_MR\d+$", "", regex=True)
    demented = rating.loc[table.index] > CUTS[options["cdr_cut"]]
    sessions = rows.frame(row_id=table["ID"], patient_id=subject, label=demented)
    frame, sources = _slices(root, sessions, request)
    return rows.raw(frame, ("non-demented", "demented"), None if request.metadata_only else sources)


def _slices(
    root: Path, sessions: pd.DataFrame, request: ReadRequest
) -> tuple[pd.DataFrame, list[SliceSource]]:
    """Repeat each session for its central slices along the coronal axis."""
    options = request.options
    wanted = options["slices_per_subject"]
    if wanted < 1:
        raise ValueError(f"slices_per_subject must be 1 or more; {wanted} came.")
    volumes = {} if request.metadata_only else _volumes(root, options["volume"])
    repeats, sources, names = [], [], []
    for place, session in enumerate(sessions["row_id"]):
        path = volumes.get(session)
        there = volume_slices(path, CORONAL) if path else 0
        depth = there or CORONAL_SLICES
        count = min(wanted, depth)
        first = (depth - count) // 2
        for index in range(first, first + count):
            repeats.append(place)
            names.append(f"{session}_{index:03d}")
            sources.append(
                SliceSource(
                    path or root / f"{session}{ENDINGS[options['volume']]}",
                    f"{session} slice {index}",
                    index,
                    CORONAL,
                    options["intensity"],
                )
            )
    frame = sessions.iloc[repeats].reset_index(drop=True)
    return frame.assign(row_id=names), sources


def _volumes(root: Path, kind: str) -> dict[str, Path]:
    """Map session to header file; the number after `mpr_n` varies, `masked` is another volume."""
    found: dict[str, Path] = {}
    for path in sorted(root.glob("**/T88_111/*.hdr")):
        masked = "_masked_" in path.name
        if path.name.endswith(ENDINGS[kind]) and masked == (kind == "masked"):
            found.setdefault("_".join(path.name.split("_")[:3]), path)
    return found


SPEC = DatasetSpec(
    name="oasis1",
    title="416 people of 18 to 96 years, T1 brain volumes; 235 with a clinical dementia rating",
    source="OASIS-1; Marcus et al. 2007, https://www.oasis-brains.org",
    licence="OASIS data use agreement",
    steps=STEPS,
    label_rule="1 iff CDR > 0 (cdr_cut=above_1: the text's reading, CDR 2 only: 2 subjects)",
    attributes={"age": "cut at 75, as the paper's counts prove; its text says 60", "sex": "M/F"},
    default_sensitive="age",
    read=read,
    filters="sessions without CDR, among them every repeat session",
    split_unit="subject, all slices together",
    stratify=("age", "sex"),
    expected_counts={"rows": 12220, "patients": 235},
    preprocessing="whole volume scaled to 0..255, coronal slices, three equal channels",
    options=(
        OptionSpec("age_threshold", "75", "75 reproduces the paper's counts; its text says 60"),
        OptionSpec("cdr_cut", "above_0", "CDR above which label is 1", tuple(CUTS)),
        OptionSpec("slices_per_subject", 52, "central slices of each volume (25 % of 208)"),
        OptionSpec("volume", "masked", "brain-masked volume or the full head", tuple(ENDINGS)),
        OptionSpec(
            "intensity",
            "percentile",
            "scale each volume from its 0.5 to 99.5 percentile, or its range",
            ("percentile", "range"),
        ),
    ),
)
