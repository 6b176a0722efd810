"""`load_dataset_table`: the one entrance from a data set's name to an `ImageTable`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fairtune_hf.data.checks import (
    check_duplicate_pictures,
    duplicate_pairs,
    duplicates_to_drop,
)
from fairtune_hf.data.decode import decode_all, failure_message
from fairtune_hf.data.naming import unknown_name
from fairtune_hf.data.plan import Plan, check_rows, choose_groups, drop_missing_files, make_plan
from fairtune_hf.data.splits import hash_split
from fairtune_hf.data.table import SPLITS, ImageTable

DIGEST_BYTES = 32


def load_dataset_table(
    dataset: str,
    data_root: str | Path | None = None,
    *,
    sensitive: str | None = None,
    image_size: int = 64,
    seed: int = 0,
    splits: Sequence[str] = SPLITS,
    label_column: str | None = None,
    sensitive_column: str | None = None,
    patient_column: str | None = None,
    split_column: str | None = None,
    workers: int | None = None,
    progress: bool = True,
    **options: Any,
) -> ImageTable:
    """Load a data set: rows, groups, splits and square uint8 pictures of side `image_size`.

    Every picture is decoded and every check made whatever `splits` says; only the splits asked
    for are kept, so that a search that asks for train and validation never holds a test row.

    Args:
        dataset: A name of `DATASETS`.
        data_root: The folder as downloaded; not needed for `demo`.
        sensitive: An attribute, or an intersection such as `age+sex`.
        image_size: Side of the stored pictures: the shorter side is resized, the centre cropped.
        seed: Seed of the split where no published seeds exist (and of the demo set). Keep it the
            same in every step of a run: it is not the training seed.
        splits: The splits to keep.
        label_column: For `folder`: the column with the label.
        sensitive_column: For `folder`: the column, or columns, with the sensitive attribute.
        patient_column: For `folder`: the column that says which rows belong to one person.
        split_column: For `folder`: a column with train, validation and test.
        workers: Threads that decode; all cores by default.
        progress: Show a bar when decoding takes long.
        **options: Options of the data set; see `dataset_spec(name).all_options`.

    Raises:
        ValueError: for an unknown name, column, attribute or option; pictures that cannot be
            decoded; a label or group without both classes; an empty split; a leak.
        FileNotFoundError: if the folder or a file is not there, or the folder is empty.
    """
    for split in splits:
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
    _check_side(image_size)
    plan = make_plan(
        dataset,
        data_root,
        options=options,
        columns={
            "label_column": label_column,
            "sensitive_column": sensitive_column,
            "patient_column": patient_column,
            "split_column": split_column,
        },
        sensitive=sensitive,
        seed=seed,
        image_size=image_size,
    )
    choose_groups(plan, sensitive)
    check_rows(plan)
    if plan.raw.images is None:
        drop_missing_files(plan)
        images = decode_plan(plan, image_size, workers=workers, progress=progress)
    else:
        images = plan.raw.images
    plan.raw.warnings += check_rows(plan)
    return build_table(plan, images, splits)


def decode_plan(
    plan: Plan, side: int, *, workers: int | None = None, progress: bool = True
) -> npt.NDArray[np.uint8]:
    """Decode the pictures of a plan's rows in memory; rows that cannot be used leave the plan.

    Raises:
        ValueError: if a picture cannot be decoded (unless skip_corrupt), or is in two splits.
    """
    sources = plan.raw.sources or []
    images = np.zeros((len(sources), side, side, 3), dtype=np.uint8)
    digests = np.zeros((len(sources), DIGEST_BYTES), dtype=np.uint8)
    failures = decode_all(sources, images, digests, workers=workers, progress=progress)
    keep = usable_rows(plan, failures, digests)
    return images if len(keep) == len(images) else images[keep]


def usable_rows(
    plan: Plan, failures: dict[int, str], digests: npt.NDArray[np.uint8]
) -> npt.NDArray[np.int64]:
    """Take out rows without a usable picture and copies across splits; return the positions kept.

    Raises:
        ValueError: see `decode_plan`.
    """
    if failures and not plan.request.options["skip_corrupt"]:
        raise ValueError(failure_message(failures, plan.raw.sources or []))
    position = np.arange(len(plan.frame))
    bad = np.isin(position, list(failures))
    if failures:
        named = sorted((plan.raw.sources or [])[i].name for i in failures)
        plan.raw.warnings.append(f"left out as unreadable: {', '.join(named)}")
    plan.drop(bad, "picture unreadable")
    position, digests = position[~bad], digests[~bad]
    shared = duplicate_pairs(plan.frame, digests)
    if plan.request.options["duplicates"] == "drop":
        copies = plan.frame["row_id"].isin(duplicates_to_drop(shared)).to_numpy()
        plan.drop(copies, "same picture in another split")
        position = position[~copies]
        shared = duplicate_pairs(plan.frame, digests[~copies])
    plan.raw.warnings += check_duplicate_pictures(shared, plan.raw.origin)
    return position


def build_table(
    plan: Plan, images: npt.NDArray[np.uint8], splits: Sequence[str] = SPLITS
) -> ImageTable:
    """Make the `ImageTable` of a plan's rows, holding only `splits`."""
    raw = plan.raw
    sensitive = str(plan.sensitive)
    frame = raw.frame.drop(columns="source_row")
    attributes = dict.fromkeys([*raw.groups, sensitive])
    frame = frame[["row_id", "patient_id", "label", *attributes, "split"]]
    table = ImageTable(
        name=plan.spec.name,
        frame=frame,
        images=images,
        sensitive=sensitive,
        groups=plan.groups,
        label_names=raw.label_names,
        options={**plan.request.options, **raw.recorded},
        dropped=dict(raw.dropped),
        warnings=tuple(dict.fromkeys(raw.warnings)),
        split_hash=hash_split(frame),
    )
    keep = np.flatnonzero(frame["split"].isin(list(splits)).to_numpy())
    if len(keep) == len(frame):
        return table
    kept = table.take(keep)
    # A view would keep the left-out splits' pictures in memory.
    return ImageTable(**{**vars(kept), "images": kept.images.copy()})


def _check_side(side: int) -> None:
    if not 1 <= side <= 4096:
        raise ValueError(f"image_size must be between 1 and 4096 pixels; {side} came.")
