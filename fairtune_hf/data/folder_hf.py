"""A Hugging Face `datasets` folder or hub id as the input of `folder`.

Takes what `load_dataset` or `load_from_disk` gives: one picture column, the others by name. Class
labels become their names. No code of the data set's repository is run.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.compute as pc

from fairtune_hf.data.image_source import DECODER, ImageError, Pixels, file_stamp, square
from fairtune_hf.data.images import decode_bytes
from fairtune_hf.data.split_names import split_of
from fairtune_hf.data.tabular import arrow_frame, as_text
from fairtune_hf.naming import closest, closest_name

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SAVED = ("dataset_dict.json", "state.json", "dataset_info.json")
SPLIT_COLUMN = "split"
FOLDER_NAMES = {
    "data", "dataset", "datasets", "image", "images", "picture", "pictures", "prepared", "raw", "runs",
    "downloads", "home", "tmp", "mnt", "media", "users", "volumes",
}  # fmt: skip


@dataclass(frozen=True)
class HfSource:
    """The picture of one row of a `datasets.Dataset`, which holds the file's bytes or its path."""

    data: Any = field(repr=False)
    column: str
    index: int
    name: str
    fingerprint: str
    depth16: str = "minmax"
    stored: str = ""
    """The stamps of the files that hold the data set."""
    path: str | None = None
    """The picture's own file, where the data set holds no bytes."""

    def signature(self) -> str:
        """Return the data set's fingerprint and the row."""
        return f"{self.fingerprint} {self.column} {self.index} {self.depth16} {DECODER}"

    def stamp(self) -> str:
        """Return the stamps of the data set's files, and of the picture's own."""
        return self.stored if self.path is None else f"{self.stored} {file_stamp(self.path)}"

    def read(self, side: int) -> tuple[Pixels, bytes]:
        """Decode the row's picture; see `ImageSource.read`."""
        raw = self.raw()
        return square(decode_bytes(raw, self.depth16), side), hashlib.sha256(raw).digest()

    def raw(self) -> bytes:
        """Return the bytes of the row's picture.

        Raises:
            ImageError: if there are none.
        """
        value = self.data[self.index][self.column]
        if not value:
            raise ImageError("has no picture")
        raw: bytes | None = value.get("bytes")
        if raw is None:
            try:
                raw = Path(value["path"]).read_bytes()
            except (OSError, TypeError) as error:
                raise ImageError("has a picture whose file cannot be opened") from error
        return raw


def is_hub_id(root: str | Path) -> bool:
    """Say whether `root` can only be a hub id: owner/name that is not meant as a path.

    It is a path if it or the folder above it exists on this disk, if it starts or ends as one
    does, and if its first part is a usual folder's name or nearly that of a folder that is here.
    """
    place = Path(root)
    if not HUB_ID.fullmatch(str(root)) or place.exists() or place.parent.exists():
        return False
    owner = str(root).split("/")[0]
    if owner.lower() in FOLDER_NAMES or set(owner) <= {"."}:
        return False
    here = [p.name for p in Path().iterdir() if p.is_dir()]
    return closest_name(owner, here, cutoff=0.8) is None


def is_hf_folder(root: Path) -> bool:
    """Say whether `root` was saved by `datasets`, or holds Parquet or Arrow files."""
    if not root.is_dir():
        return False
    if any((root / name).is_file() for name in SAVED):
        return True
    return any(next(root.glob(p), None) for p in ("*.parquet", "*/*.parquet"))


def read_hf(root: Path, depth16: str) -> tuple[pd.DataFrame, dict[str, HfSource]]:
    """Read all splits as one table of text columns, and the picture of each file_name.

    The table has file_name (the row's place, such as train-00012) and, where the data set has
    several splits, or is a test split, `split` with their names.

    Raises:
        FileNotFoundError: if the hub has no such data set, or cannot be reached.
        ValueError: if there is no picture column, or more than one.
    """
    import datasets

    parts = _load(root)
    tables, sources = [], {}
    for split, data in parts.items():
        column = _picture_column(data, root)
        names = [f"{split}-{i:06d}" for i in range(len(data))]
        told = _as_text(data, column).assign(file_name=names)
        if len(parts) > 1 or split_of(split) == "test":
            told[SPLIT_COLUMN] = split
        tables.append(told)
        raw = data.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        mark = f"{split} {data._fingerprint}"
        stored = " ".join(file_stamp(held["filename"]) for held in data.cache_files)
        for i, (name, path) in enumerate(zip(names, _own_files(raw, column), strict=True)):
            sources[name] = HfSource(raw, column, i, name, mark, depth16, stored, path)
    return pd.concat(tables, ignore_index=True), sources


def _load(root: Path) -> dict[str, Any]:
    import datasets

    local = root.is_dir()
    try:
        if any((root / name).is_file() for name in SAVED):
            loaded = datasets.load_from_disk(str(root))
        else:
            loaded = datasets.load_dataset(root.as_posix())
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if local:
            raise ValueError(
                f"{root} was expected to be a data set that `datasets` saved, or Parquet files of one; "
                f"it cannot be read: {reason}. Save or download it again."
            ) from error
        raise FileNotFoundError(
            f"{root} was expected to be a folder, or a data set on the Hub; it is no folder here "
            f"and the Hub gave: {reason}. Check the name, and log in if the data set is private."
        ) from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _picture_column(data: Any, root: Path) -> str:
    import datasets

    found = [n for n, kind in data.features.items() if isinstance(kind, datasets.Image)]
    if len(found) == 1:
        return str(found[0])
    hint = " Remove the others." if found else _cast_hint(data.features)
    raise ValueError(
        f"the data set {root} must have one column of pictures (datasets.Image); it has "
        f"{len(found)}: {', '.join(found) or 'none'}.{hint} Its columns: "
        f"{', '.join(data.features)}."
    )


def _cast_hint(features: Any) -> str:
    """Say how a column that holds the bytes of files is told to be pictures; else the likely name."""
    for name, kind in features.items():
        if getattr(kind, "dtype", "") == "binary" or (isinstance(kind, dict) and "bytes" in kind):
            return (
                f" {name!r} holds bytes: call cast_column({name!r}, datasets.Image()) on it and save "
                "the data set again."
            )
    return closest("image", list(features))


def _own_files(raw: Any, column: str) -> list[str | None]:
    """Return the path of each picture that the data set holds no bytes of; no picture is read."""
    pictures = raw.data.column(column)
    is_outside = pc.is_null(pc.struct_field(pictures, "bytes"))
    paths = pc.if_else(is_outside, pc.struct_field(pictures, "path"), None).to_pylist()
    if raw._indices is None:
        return list(paths)
    return [paths[i] for i in raw._indices.column(0).to_pylist()]


def _as_text(data: Any, column: str) -> pd.DataFrame:
    """Return the columns beside the picture as text, class labels by name, blanks missing."""
    import datasets

    plain = data.remove_columns([column])
    if not plain.column_names:
        return pd.DataFrame(index=range(len(data)))
    frame = arrow_frame(plain.with_format("arrow")[:])
    for name, kind in plain.features.items():
        if isinstance(kind, datasets.ClassLabel):
            known = frame[name].notna() & (frame[name].fillna(-1) >= 0)
            names = frame[name].where(known, 0).astype(int).map(kind.int2str)
            frame[name] = names.astype(object).where(known, None)
    return as_text(frame)
