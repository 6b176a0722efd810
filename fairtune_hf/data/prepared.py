"""The folder `prepare` writes: whose it is, its table and manifest, and reading it again."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from fairtune_hf.data.declaration import DatasetSpec, RawTable, ReadRequest
from fairtune_hf.data.picture_store import DamagedStoreError, PictureStore, open_store
from fairtune_hf.data.pixels import digest_bytes
from fairtune_hf.data.prepared_checks import check_table, describe_table, sign, was_signed
from fairtune_hf.data.splits import hash_split
from fairtune_hf.data.table import FIXED_COLUMNS
from fairtune_hf.data.tabular import read_table
from fairtune_hf.whole_files import write_text

TABLE, PICTURES, REPORT, MANIFEST = "table.csv", "pictures", "data_report.html", "prepared.json"
NEAR = "near_duplicates.csv"
SCHEMA_VERSION = 1
FREE_OPTIONS = ("unknown", "skip_corrupt", "duplicates", "splits_file")
"""Options that may differ between preparing and loading: they choose among the prepared rows."""


def table_text(checked: Any) -> str:
    """Render `table.csv`: row_id, patient_id, label, the attributes (empty if unknown), split."""
    columns = ["row_id", "patient_id", "label", *checked.raw.groups, "split"]
    text: str = checked.frame[columns].to_csv(index=False, lineterminator="\n")
    return text


def write_table(checked: Any, path: Path) -> None:
    """Write `table.csv` in one step."""
    write_text(path, table_text(checked))


def held_by_another(folder: Path) -> ValueError:
    """Build the error for a folder that holds another preparation."""
    return ValueError(
        f"out must be a new folder, or one that the same preparation wrote; {folder} holds a "
        "different one. Choose another folder, or replace it with --overwrite."
    )


def claim_folder(folder: Path, identity: str, overwrite: bool) -> None:
    """Mark `folder` as being prepared, unless something else is in it.

    Raises:
        ValueError: if another preparation is there and `overwrite` is not set.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out must be a folder; {folder} is a file. Choose another name.")
    present = [n for n in (TABLE, PICTURES, REPORT, MANIFEST, NEAR) if (folder / n).exists()]
    if present and _manifest(folder).get("identity") != identity:
        if not overwrite:
            raise held_by_another(folder)
        for name in present:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    if _manifest(folder).get("identity") != identity:
        mark = {"schema_version": SCHEMA_VERSION, "state": "incomplete", "identity": identity}
        write_text(folder / MANIFEST, json.dumps(mark, indent=1) + "\n")


def release_folder(folder: Path) -> None:
    """Take the mark of an unfinished preparation away, and the folder if nothing else is in it."""
    if _manifest(folder).get("state") == "incomplete":
        (folder / MANIFEST).unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def write_manifest(
    checked: Any, folder: Path, side: int, identity: str, originals: dict[str, Any] | None = None
) -> None:
    """Write `prepared.json` with checksums of the others, which makes the folder complete.

    Args:
        checked: The rows.
        folder: Where.
        side: Side of the pictures.
        identity: Hash of what was prepared.
        originals: What is to be said of the pictures' files.
    """
    raw = checked.raw
    content = {
        "schema_version": SCHEMA_VERSION,
        "state": "complete",
        "identity": identity,
        "dataset": checked.spec.name,
        "image_size": side,
        "rows": len(checked.frame),
        "positions": [int(p) for p in checked.frame["position"]],
        "groups": {k: list(v) for k, v in raw.groups.items()},
        "label_names": list(raw.label_names),
        "default_sensitive": raw.default_sensitive,
        "options": dict(checked.request.options),
        "recorded": raw.recorded,
        "dropped": raw.dropped,
        "warnings": list(dict.fromkeys(raw.warnings)),
        "group_warnings": checked.group_warnings,
        "split_hash": hash_split(checked.frame),
        "checksums": {
            "table": describe_table(read_table(folder / TABLE)),
            "pictures": digest_bytes(_open_pictures(folder).pixels),
        },
    }
    if originals is not None:
        content["originals"] = originals
    if content["positions"] == list(range(len(checked.frame))):
        del content["positions"]
    write_text(folder / MANIFEST, json.dumps(sign(content), indent=1) + "\n")


def is_prepared(root: Path) -> bool:
    """Say whether `root` is a folder that `prepare` completed.

    Raises:
        ValueError: if it is one that `prepare` did not complete, or whose manifest is damaged.
    """
    if not (root / MANIFEST).is_file():
        return False
    state = _manifest(root).get("state")
    if state == "incomplete":
        raise ValueError(
            f"{root} was not prepared to the end. Run the same fairtune prepare command again; it "
            "goes on where it stopped."
        )
    if state != "complete":
        raise ValueError(
            f"{root / MANIFEST} is damaged, so what the folder holds cannot be told. Restore it, or "
            "run the same fairtune prepare command with --overwrite."
        )
    return True


def prepared_name(root: Path) -> str | None:
    """Return the name of the data set that a complete prepared folder holds, else None."""
    return str(_manifest(root)["dataset"]) if is_prepared(root) else None


def prepared_side(root: str | Path | None) -> int | None:
    """Return the side of the pictures in a folder that `prepare` wrote, None for any other folder."""
    side = None if root is None else _manifest(Path(root)).get("image_size")
    return side if isinstance(side, int) else None


def read_prepared(
    root: Path, spec: DatasetSpec, request: ReadRequest, given: Mapping[str, Any]
) -> RawTable:
    """Read a prepared folder in place of the raw data.

    Raises:
        ValueError: if it holds another data set, was prepared with other options than those
            `given`, or in smaller pictures than asked for; or a file of it is not what was written.
    """
    manifest = _manifest(root)
    _check_manifest(root, manifest, spec, request, given)
    store, frame = _open_pictures(root), read_table(root / TABLE)
    warnings = _check_contents(root, manifest, store, frame)
    attributes = [c for c in frame.columns if c not in FIXED_COLUMNS]
    frame[attributes] = frame[attributes].fillna("")
    positions, side = manifest.get("positions", range(len(frame))), request.image_size
    return RawTable(
        frame=frame.assign(
            label=frame["label"].astype("int64"),
            source_row=range(2, len(frame) + 2),
            position=np.asarray(positions, dtype=np.int64),
        ),
        groups={k: tuple(v) for k, v in manifest["groups"].items()},
        label_names=(manifest["label_names"][0], manifest["label_names"][1]),
        pictures=store if store.shape[1] == side else _Smaller(store, side),
        origin=TABLE,
        dropped=dict(manifest["dropped"]),
        # Groups are checked again, as the run chooses them.
        warnings=[w for w in manifest["warnings"] if w not in manifest["group_warnings"]]
        + warnings,
        recorded=dict(manifest["recorded"]),
        default_sensitive=manifest["default_sensitive"],
        prepared_side=manifest["image_size"],
        originals=manifest.get("originals"),
    )


def prepared_options(root: Path) -> dict[str, Any]:
    """Return the options a folder was prepared with."""
    return dict(_manifest(root)["options"])


def _open_pictures(root: Path) -> PictureStore:
    try:
        store = open_store(root / PICTURES)
    except DamagedStoreError as damage:
        raise _changed(root, f"its pictures are damaged: {damage}") from damage
    if store is None:
        raise _changed(root, f"{PICTURES}/ is not there or not complete")
    return store


def _check_contents(
    root: Path, manifest: Mapping[str, Any], store: PictureStore, frame: pd.DataFrame
) -> list[str]:
    """Compare a prepared folder with its checksums; return what is to be said where it has none.

    Pictures belong to rows by place, so a table in another order is as wrong as one that was edited.
    """
    if not was_signed(manifest):
        raise _changed(root, f"{MANIFEST} was edited")
    sums = manifest.get("checksums")
    if sums is None:
        if len(frame) != manifest["rows"] or hash_split(frame) != manifest["split_hash"]:
            raise _changed(root, f"{TABLE} holds other rows or splits")
        return [
            "the prepared folder is of an earlier release and has no checksums: an edited table or "
            "damaged pictures cannot be noticed. The same fairtune prepare command adds them"
        ]
    found = check_table(sums["table"], frame)
    if found:
        raise _changed(root, f"in {TABLE} {found}")
    if digest_bytes(store.pixels) != sums["pictures"]:
        raise _changed(root, f"{PICTURES}/ is not the folder that belongs to {TABLE}")
    return []


def _changed(root: Path, what: str) -> ValueError:
    return ValueError(
        f"{root} is no longer what fairtune prepare wrote: {what}. Restore it, or run the same "
        "fairtune prepare command again, which mends it. To change labels, groups or splits, change "
        "the raw data and prepare into another folder."
    )


def _check_manifest(
    root: Path,
    manifest: Mapping[str, Any],
    spec: DatasetSpec,
    request: ReadRequest,
    given: Mapping[str, Any],
) -> None:
    if manifest["dataset"] != spec.name:
        raise ValueError(
            f"{root} holds the prepared data set {manifest['dataset']!r}; {spec.name!r} was asked "
            "for. Name the set that was prepared."
        )
    told = {**manifest["options"], **manifest["recorded"]}
    columns = ("label_column", "sensitive_column", "patient_column", "split_column")
    asked = {k: v for k, v in given.items() if k not in FREE_OPTIONS}
    asked |= {c: getattr(request, c) for c in columns if getattr(request, c)}
    for name, value in asked.items():
        if told.get(name) != value:
            raise ValueError(
                f"{root} was prepared with {name}={told.get(name)!r}; {name}={value!r} was asked "
                "for. Prepare again with this choice, or leave it out."
            )
    if request.image_size > manifest["image_size"]:
        raise ValueError(
            f"pictures of {request.image_size} px were asked for and {root} was prepared with "
            f"{manifest['image_size']} px. Prepare again with --image-size {request.image_size}."
        )


class _Smaller:
    """A store's pictures, resized when read."""

    def __init__(self, store: PictureStore, side: int) -> None:
        self.store, self.side = store, side
        self.digests, self.failures, self.notes = store.digests, store.failures, store.notes

    def rows(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return resized copies of some rows."""
        images = np.empty((len(index), self.side, self.side, 3), dtype=np.uint8)
        size = (self.side, self.side)
        for i, stored in enumerate(self.store.rows(index)):
            resized = Image.fromarray(stored).resize(size, Image.Resampling.BILINEAR)
            images[i] = np.asarray(resized)
        return images


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
