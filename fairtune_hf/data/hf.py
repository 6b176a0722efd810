"""`ImageTable` as a `datasets.DatasetDict`, for `push_to_hub`, `map` and `filter`.

Pictures are written as PNG, so that the pixels are the same when they are read again. Patients are
anonymous codes, never the data set's own ids.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fairtune_hf.data.table import ImageTable

BATCH = 256
UNKNOWN = "unknown"


def to_dataset_dict(table: ImageTable, folder: str | Path | None = None) -> Any:
    """Return the splits of a table as a `datasets.DatasetDict`.

    Features: image, label (ClassLabel), each attribute (ClassLabel; an unknown value is the class
    "unknown", after the others), patient_id (an anonymous number) and row_id.

    Args:
        table: The table; only the splits it holds are converted.
        folder: Write Arrow files there and map them, for a table larger than memory. Without it
            the data set is in memory.
    """
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
