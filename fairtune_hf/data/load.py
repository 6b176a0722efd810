"""`load_dataset_table`: the one entrance from a data set's name to an `ImageTable`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fairtune_hf.data.appearance import measure_originals
from fairtune_hf.data.checked_rows import (
    CheckedRows,
    check_rows,
    choose_groups,
    drop_missing_files,
    read_checked_rows,
)
from fairtune_hf.data.checks import (
    check_duplicate_pictures,
    duplicate_pairs,
    duplicates_to_drop,
)
from fairtune_hf.data.declaration import MemoryPictures, Pictures, ReadRequest
from fairtune_hf.data.decode import Chunk, decode_rows, failure_message
from fairtune_hf.data.fingerprint import fingerprint
from fairtune_hf.data.splits import hash_split
from fairtune_hf.data.store import build_store, default_cache, store_key
from fairtune_hf.data.table import SPLITS, ImageTable
from fairtune_hf.naming import shortened, unknown_name


def load_dataset_table(
    dataset: str,
    data_root: str | Path | None = None,
    *,
    sensitive: str | None = None,
    image_size: int = 64,
    seed: int = 0,
    splits: Sequence[str] = SPLITS,
    cache_dir: str | Path | None = None,
    cache: bool = True,
    external: bool = False,
    **choices: Any,
) -> ImageTable:
    """Load a data set: rows, groups, splits and square uint8 pictures of side `image_size`.

    Every picture is decoded and every check made whatever `splits` says; only the splits asked
    for are kept, so that a search that asks for train and validation never holds a test row.
    Pictures left out under skip_corrupt are named on stderr and counted in the table's warnings.

    Args:
        dataset: A name of `DATASETS`.
        data_root: The folder as downloaded, or one written by `prepare`; none for `demo`.
        sensitive: An attribute, or an intersection such as `age+sex`.
        image_size: Side of the stored pictures: the shorter side is resized, the centre cropped.
        seed: Seed of the split where no published seeds exist (and of the demo set). Keep it the
            same in every step of a run: it is not the training seed.
        splits: The splits to keep.
        cache_dir: Folder of the prepared pictures, which are decoded once and opened at later
            loads; `FAIRTUNE_CACHE` or the user's cache folder by default.
        external: Every row is for a test, whatever its split: put all into the test split and ask
            for no training or validation row.
        cache: Whether to keep prepared pictures on disk; else they are decoded into memory.
        **choices: For `folder` the columns that hold what is needed:
            `label_column`: the label;
            `sensitive_column`: the sensitive attribute; several are separated by commas, and the first is
            used unless `sensitive` says otherwise;
            `patient_column`: which rows belong to one person;
            `split_column`: train, validation and test; the ones that it lacks are dealt out of train by
            patient.
            For the decoding `workers`, threads, all cores by default, and `progress`, whether a bar is
            shown where it takes long, as it is by default.
            All others are options of the data set; see `dataset_spec(name).all_options`.

    Raises:
        ValueError: for an unknown name, column, attribute or option; pictures that cannot be
            decoded; a label or group without both classes; an empty split; a leak.
        FileNotFoundError: if the folder or a file is not there, or the folder is empty.
    """
    for split in splits:
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
    check_side(image_size)
    decoding = take_decoding(choices)
    request = ReadRequest.of(choices, sensitive=sensitive, seed=seed, image_size=image_size)
    checked = read_checked_rows(dataset, data_root, request, external=external)
    check_before_pictures(checked, sensitive)
    store = (Path(cache_dir) if cache_dir else default_cache()) if cache else None
    pictures = decode_pictures(checked, image_size, store, **decoding)
    choose_groups(checked, sensitive)
    checked.raw.warnings += check_rows(checked)
    return build_table(checked, pictures, splits)


def take_decoding(choices: dict[str, Any]) -> dict[str, Any]:
    """Take `workers` and `progress`, which say how pictures are decoded, out of what was chosen."""
    return {name: choices.pop(name) for name in ("workers", "progress") if name in choices}


def check_before_pictures(checked: CheckedRows, sensitive: str | None) -> None:
    """Find what is wrong with the rows before any picture is decoded.

    Raises:
        ValueError: see `load_dataset_table`.
    """
    trial = checked.fork()
    choose_groups(trial, sensitive)
    check_rows(trial)


def decode_pictures(
    checked: CheckedRows,
    side: int,
    cache: Path | None,
    *,
    workers: int | None = None,
    progress: bool = True,
    place: Path | None = None,
) -> Pictures:
    """Decode the pictures of checked rows; rows that cannot be used leave them.

    They are kept in `place`, or in a folder of `cache` named by their key, or in memory.

    Raises:
        ValueError: if a picture cannot be decoded (unless skip_corrupt), or is in two splits.
    """
    if checked.raw.pictures is None:
        signatures = drop_missing_files(checked)
        checked.raw.frame = checked.frame.assign(position=np.arange(len(checked.frame)))
        pictures = _decode(
            checked, side, signatures, cache, place, workers=workers, progress=progress
        )
    else:
        pictures = checked.raw.pictures
    _drop_unusable(checked, pictures.failures)
    _say_notes(checked, pictures.notes)
    if pictures.digests is not None:
        _drop_copies(checked, pictures.digests)
    return pictures


def _decode(
    checked: CheckedRows,
    side: int,
    signatures: list[str],
    cache: Path | None,
    place: Path | None,
    *,
    workers: int | None,
    progress: bool,
) -> Pictures:
    sources = checked.raw.sources or []
    skip = bool(checked.request.options["skip_corrupt"])
    key = store_key(signatures, (s.stamp() for s in sources), side)
    if place is None and cache is not None:
        place = _writable(cache, f"{checked.spec.name}-{side}-{key[:16]}", checked)
    if place is not None:
        return build_store(
            place, sources, side, key=key, skip_corrupt=skip, workers=workers, progress=progress
        )
    return decode_in_memory(checked, side, workers=workers, progress=progress)


def _writable(cache: Path, name: str, checked: CheckedRows) -> Path | None:
    """Return the place in the cache, or None with a warning if nothing can be written there."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        probe = cache / f".{name}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        checked.raw.warnings.append(
            f"prepared pictures are not kept: {cache} cannot be written ({error.strerror})"
        )
        return None
    return cache / name


def decode_in_memory(
    checked: CheckedRows, side: int, *, workers: int | None = None, progress: bool = True
) -> MemoryPictures:
    """Decode the pictures of checked rows into memory; failures are returned, not raised."""
    sources = checked.raw.sources or []
    images = np.zeros((len(sources), side, side, 3), dtype=np.uint8)
    digests = np.zeros((len(sources), 32), dtype=np.uint8)
    failures: dict[int, str] = {}
    notes: dict[int, str] = {}

    def keep(chunk: Chunk) -> None:
        images[chunk.rows.start : chunk.rows.stop] = chunk.images
        digests[chunk.rows.start : chunk.rows.stop] = chunk.digests
        failures.update(chunk.failures)
        notes.update(chunk.notes)

    decode_rows(sources, side, keep, workers=workers, progress=progress)
    return MemoryPictures(images, digests, failures, notes)


def _drop_unusable(checked: CheckedRows, failures: dict[int, str]) -> None:
    held = set(checked.frame["position"])
    failures = {row: reason for row, reason in failures.items() if row in held}
    if not failures:
        return
    sources = checked.raw.sources or []
    if not checked.request.options["skip_corrupt"]:
        raise ValueError(failure_message(failures, sources))
    for i, reason in sorted(failures.items()):
        tqdm.write(f"left out: {sources[i].name} {reason}", file=sys.stderr)
    # A warning is kept in the run's files, which are handed on; a file's name may name a patient.
    gone = checked.frame["position"].isin(failures).to_numpy()
    lines = [str(line) for line in sorted(checked.frame.loc[gone, "source_row"])]
    checked.raw.warnings.append(
        f"pictures left out because they cannot be read: {len(lines)} "
        f"(line {shortened(lines, shown=20)} of {checked.raw.origin})"
    )
    checked.drop(gone, "picture unreadable")


def _say_notes(checked: CheckedRows, notes: dict[int, str]) -> None:
    """Warn of pictures with something odd, by their lines: a file's name may name a patient."""
    there = checked.frame["position"].isin(notes)
    if not there.any():
        return
    lines = zip(
        checked.frame.loc[there, "source_row"], checked.frame.loc[there, "position"], strict=True
    )
    told = [f"line {line}: {notes[row]}" for line, row in lines]
    checked.raw.warnings.append(
        f"pictures of {checked.raw.origin} that are used, with a note: {len(told)} ({shortened(told)})"
    )


def _drop_copies(checked: CheckedRows, digests: npt.NDArray[np.uint8]) -> None:
    def pairs() -> Any:
        return duplicate_pairs(checked.frame, digests[checked.frame["position"].to_numpy()])

    shared = pairs()
    if checked.request.options["duplicates"] == "drop":
        copies = checked.frame["row_id"].isin(duplicates_to_drop(shared)).to_numpy()
        checked.drop(copies, "same picture in another split")
        shared = pairs()
    checked.raw.warnings += check_duplicate_pictures(shared, checked.raw.origin)


def build_table(
    checked: CheckedRows, pictures: Pictures, splits: Sequence[str] = SPLITS
) -> ImageTable:
    """Make the `ImageTable` of checked rows, holding only `splits`."""
    raw = checked.raw
    sensitive = str(checked.sensitive)
    attributes = dict.fromkeys([*raw.groups, sensitive])
    frame = raw.frame[["row_id", "patient_id", "label", *attributes, "split"]]
    patients = frame["patient_id"].factorize()[0].astype(np.int64)
    keep = np.flatnonzero(frame["split"].isin(list(splits)).to_numpy())
    positions = raw.frame["position"].to_numpy(dtype=np.int64)
    images = pictures.rows(positions[keep])
    side = images.shape[1]
    return ImageTable(
        name=checked.spec.name,
        frame=frame.iloc[keep].reset_index(drop=True),
        images=images,
        sensitive=sensitive,
        groups=checked.groups,
        label_names=raw.label_names,
        options={**checked.request.options, **raw.recorded},
        dropped=dict(raw.dropped),
        warnings=tuple(dict.fromkeys(raw.warnings)),
        split_hash=hash_split(frame),
        patient_codes=patients[keep],
        fingerprint=fingerprint(frame, pictures, positions, keep, images),
        stored_sides=tuple(dict.fromkeys([raw.prepared_side or side, side])),
        originals=training_originals(checked) if "train" in splits else None,
    )


def training_originals(checked: CheckedRows) -> dict[str, Any] | None:
    """Return the ranges of size of the files that training rows were read from, or what a prepared folder says of them."""
    raw = checked.raw
    if raw.sources is None:
        return raw.originals
    rows = np.flatnonzero((raw.frame["split"] == "train").to_numpy())
    return measure_originals([raw.sources[int(row)] for row in rows])


def check_side(side: int) -> None:
    """Raise ValueError unless `side` is a usable number of pixels."""
    if not 1 <= side <= 4096:
        raise ValueError(f"image_size must be between 1 and 4096 pixels; {side} came.")
