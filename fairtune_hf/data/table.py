"""`ImageTable`: pictures, labels, groups, patients and splits, as every later step reads them.

Holds arrays and a frame; reads no file. Built by `load_dataset_table`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from fairtune_hf.data.fingerprint import Fingerprint
from fairtune_hf.described import described
from fairtune_hf.naming import unknown_name

SPLITS = ("train", "validation", "test")
BATCH = 256
UNKNOWN = "unknown"
FIXED_COLUMNS = ("row_id", "patient_id", "label", "split")

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageTable:
    """A data set ready to train on: row `i` of `frame` describes `images[i]`."""

    name: str = field(metadata={"help": "name of the data set"})
    frame: pd.DataFrame = field(
        repr=False,
        metadata={"help": "row_id, patient_id, label, split and one column per attribute"},
    )
    images: npt.NDArray[np.uint8] = field(
        repr=False, metadata={"help": "(n, side, side, 3) uint8, square, row i of `frame`"}
    )
    sensitive: str = field(metadata={"help": "the attribute column the groups come from"})
    groups: tuple[str, ...] = field(metadata={"help": "group names in code order"})
    label_names: tuple[str, str] = field(metadata={"help": "names of label 0 and label 1"})
    options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "every contested choice, JSON-able"}
    )
    dropped: dict[str, int] = field(
        default_factory=dict, metadata={"help": "reason -> number of rows left out"}
    )
    warnings: tuple[str, ...] = described((), "what a reader should know")
    split_hash: str = described("", "sha256 over the complete table's rows and splits")
    patient_codes: Int64Array | None = field(
        default=None,
        repr=False,
        metadata={"help": "anonymous codes of the complete table, kept by subsets"},
    )
    fingerprint: Fingerprint | None = field(
        default=None,
        repr=False,
        metadata={"help": "digests of the complete table, kept by subsets; None if made by hand"},
    )
    stored_sides: tuple[int, ...] | None = field(
        default=None,
        repr=False,
        metadata={"help": "sides of the squares each picture was resized to, the last one kept"},
    )
    originals: dict[str, Any] | None = field(
        default=None,
        repr=False,
        metadata={"help": "ranges of size of the training pictures' files, where there are files"},
    )

    def __post_init__(self) -> None:
        if len(self.frame) != len(self.images):
            raise ValueError(
                f"frame and images must have as many rows: {len(self.frame)} and "
                f"{len(self.images)} came. Build the table with load_dataset_table."
            )
        if self.sensitive not in self.frame.columns:
            raise unknown_name("attribute", self.sensitive, self.attributes)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attribute columns."""
        return tuple(str(c) for c in self.frame.columns if c not in FIXED_COLUMNS)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are held, in the order train, validation, test."""
        held = set(self.frame["split"])
        return tuple(s for s in SPLITS if s in held)

    @property
    def labels(self) -> Int64Array:
        """Labels, 0 or 1, of shape (n,)."""
        return self.frame["label"].to_numpy(dtype=np.int64)

    @property
    def group_codes(self) -> Int64Array:
        """Index of each row's group in `groups`, of shape (n,)."""
        order = {g: i for i, g in enumerate(self.groups)}
        return np.asarray([order[g] for g in self.frame[self.sensitive]], dtype=np.int64)

    @property
    def group_names(self) -> npt.NDArray[np.object_]:
        """Name of each row's group, of shape (n,)."""
        return self.frame[self.sensitive].to_numpy(dtype=object)

    @property
    def patients(self) -> Int64Array:
        """Anonymous patient codes of shape (n,), the same in every subset of one table."""
        if self.patient_codes is not None:
            return self.patient_codes
        return np.asarray(pd.factorize(self.frame["patient_id"])[0], dtype=np.int64)

    def subset(self, split: str) -> ImageTable:
        """Return the rows of one split; `split_hash` stays that of the complete table.

        Raises:
            ValueError: if no row of `split` is held.
        """
        keep = np.flatnonzero((self.frame["split"] == split).to_numpy())
        if split not in SPLITS or not len(keep):
            raise unknown_name("split", split, self.splits)
        return self.take(keep)

    def take(self, rows: Iterable[int] | Int64Array) -> ImageTable:
        """Return the given rows; a run of consecutive rows shares the pictures' memory."""
        index = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            frame=self.frame.iloc[index].reset_index(drop=True),
            images=take_rows(self.images, index),
            patient_codes=self.patients[index],
        )

    def to_dataset_dict(self, folder: str | Path | None = None) -> Any:
        """Return the splits held as a `datasets.DatasetDict`, for `push_to_hub`, `map` and `filter`.

        Features: image, label (ClassLabel), each attribute (ClassLabel; an unknown value is the class
        "unknown", after the others), patient_id (an anonymous number) and row_id.

        Args:
            folder: Write Arrow files there and map them, for a table larger than memory. Without it
                the data set is in memory.
        """
        return _to_dataset_dict(self, folder)

    def counts(self) -> pd.DataFrame:
        """Count rows and patients by split, group and label, every combination listed.

        The result has the columns split, group, label, rows, patients.
        """
        lines = []
        for split in self.splits:
            for group in self.groups:
                for label in (0, 1):
                    rows = self.frame[
                        (self.frame["split"] == split)
                        & (self.frame[self.sensitive] == group)
                        & (self.frame["label"] == label)
                    ]
                    lines.append((split, group, label, len(rows), rows["patient_id"].nunique()))
        return pd.DataFrame(lines, columns=["split", "group", "label", "rows", "patients"])


def take_rows(images: npt.NDArray[np.uint8], index: Int64Array) -> npt.NDArray[np.uint8]:
    """Select rows, as a view where `index` is a run of consecutive rows."""
    if len(index) and np.array_equal(index, np.arange(index[0], index[0] + len(index))):
        return images[int(index[0]) : int(index[0]) + len(index)]
    return images[index]


def _to_dataset_dict(table: ImageTable, folder: str | Path | None) -> Any:
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(table.label_names)),
            **{
                name: datasets.ClassLabel(names=attribute_classes(table, name))
                for name in table.attributes
            },
            "patient_id": datasets.Value("int64"),
            "row_id": datasets.Value("string"),
        }
    )
    parts = {split: table.subset(split) for split in table.splits}
    return datasets.DatasetDict(
        {split: _convert(part, features, split, folder) for split, part in parts.items()}
    )


def attribute_classes(table: ImageTable, name: str) -> list[str]:
    """Return the class names of an attribute: the groups in their order, then unknown."""
    found = set(table.frame[name])
    known = list(table.groups) if name == table.sensitive else sorted(found - {""})
    return [*known, UNKNOWN] if "" in found else known


def _convert(part: ImageTable, features: Any, split: str, folder: str | Path | None) -> Any:
    import datasets
    from datasets.arrow_writer import ArrowWriter

    if folder is None:
        columns: dict[str, list[Any]] = {name: [] for name in features}
        for batch in _batches(part):
            for name, values in batch.items():
                columns[name].extend(values)
        return datasets.Dataset.from_dict(columns, features=features, split=split)
    path = Path(folder) / f"{split}.arrow"
    path.parent.mkdir(parents=True, exist_ok=True)
    with ArrowWriter(path=str(path), features=features) as writer:
        for batch in _batches(part):
            writer.write_batch(batch)
        writer.finalize()
    return datasets.Dataset.from_file(str(path), split=datasets.Split(split))


def _batches(part: ImageTable) -> Iterator[dict[str, list[Any]]]:
    patients = part.patients
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(part), BATCH):
            rows = slice(start, start + BATCH)
            frame = part.frame.iloc[rows]
            encoded = pool.map(_png, part.images[rows])
            yield {
                "image": [{"bytes": data, "path": None} for data in encoded],
                "label": frame["label"].tolist(),
                **{name: [v or UNKNOWN for v in frame[name]] for name in part.attributes},
                "patient_id": patients[rows].tolist(),
                "row_id": frame["row_id"].tolist(),
            }


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()
