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

from fairtune_hf.data.images import DECODER, ImageError, Pixels, decode_bytes, square
from fairtune_hf.data.naming import closest

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SAVED = ("dataset_dict.json", "state.json", "dataset_info.json")
SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class HfSource:
    """The picture of one row of a `datasets.Dataset`, kept as the file's bytes."""

    data: Any = field(repr=False)
    column: str
    index: int
    name: str
    fingerprint: str
    depth16: str = "minmax"

    def signature(self) -> str:
        """Return the data set's fingerprint and the row."""
        return f"{self.fingerprint} {self.column} {self.index} {self.depth16} {DECODER}"

    def read(self, side: int) -> tuple[Pixels, bytes]:
        """Decode the row's picture; see `ImageSource.read`."""
        value = self.data[self.index][self.column]
        if not value:
            raise ImageError("has no picture")
        raw = value.get("bytes")
        if raw is None:
            try:
                raw = Path(value["path"]).read_bytes()
            except (OSError, TypeError) as error:
                raise ImageError("has a picture whose file cannot be opened") from error
        return square(decode_bytes(raw, self.depth16), side), hashlib.sha256(raw).digest()


def is_hub_id(root: str | Path) -> bool:
    """Say whether `root` can only be a hub id: owner/name, and no such place on this disk."""
    place = Path(root)
    return bool(HUB_ID.fullmatch(str(root))) and not place.exists() and not place.parent.exists()


def is_hf_folder(root: Path) -> bool:
    """Say whether `root` was saved by `datasets`, or holds Parquet or Arrow files."""
    if not root.is_dir():
        return False
    if any((root / name).is_file() for name in SAVED):
        return True
    return any(next(root.glob(p), None) for p in ("*.parquet", "*/*.parquet"))


def read_hf(root: Path, depth16: str) -> tuple[pd.DataFrame, dict[str, HfSource]]:
    """Read all splits as one table of text columns, and the picture of each file_name.

    The table has file_name (the row's place, such as train-00012) and, where the data set has a
    train, validation and test split, `split`.

    Raises:
        FileNotFoundError: if the hub has no such data set, or cannot be reached.
        ValueError: if there is no picture column, or more than one.
    """
    parts = _load(root)
    tables, sources = [], {}
    for split, data in parts.items():
        column = _picture_column(data, root)
        names = [f"{split}-{i:06d}" for i in range(len(data))]
        told = _as_text(data, column).assign(file_name=names)
        if len(parts) > 1:
            told[SPLIT_COLUMN] = split
        tables.append(told)
        raw = _undecoded(data, column)
        mark = f"{split} {data._fingerprint}"
        for i, name in enumerate(names):
            sources[name] = HfSource(raw, column, i, name, mark, depth16)
    return pd.concat(tables, ignore_index=True), sources


def _load(root: Path) -> dict[str, Any]:
    import datasets

    try:
        if any((root / name).is_file() for name in SAVED):
            loaded = datasets.load_from_disk(str(root))
        else:
            loaded = datasets.load_dataset(root.as_posix())
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{root} was expected to be a folder, or a data set on the Hub; it is no folder here "
            f"and the Hub gave: {str(error).splitlines()[0]}. Check the name, and log in if the "
            "data set is private."
        ) from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _picture_column(data: Any, root: Path) -> str:
    import datasets

    found = [n for n, kind in data.features.items() if isinstance(kind, datasets.Image)]
    if len(found) == 1:
        return str(found[0])
    hint = closest("image", list(data.features)) if not found else " Remove the others."
    raise ValueError(
        f"the data set {root} must have one column of pictures (datasets.Image); it has "
        f"{len(found)}: {', '.join(found) or 'none'}.{hint} Its columns: "
        f"{', '.join(data.features)}."
    )


def _undecoded(data: Any, column: str) -> Any:
    import datasets

    return data.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def _as_text(data: Any, column: str) -> pd.DataFrame:
    """Return the columns beside the picture as text, class labels by name, blanks missing."""
    import datasets

    plain = data.remove_columns([column])
    frame: pd.DataFrame = (
        plain.to_pandas() if plain.column_names else pd.DataFrame(index=range(len(data)))
    )
    for name, kind in plain.features.items():
        values = frame[name]
        if isinstance(kind, datasets.ClassLabel):
            values = values.map(lambda v, k=kind: k.int2str(int(v)) if v == v and v >= 0 else None)
        missing = values.isna()
        frame[name] = values.astype(str).where(~missing & (values.astype(str) != ""), None)
    return frame
