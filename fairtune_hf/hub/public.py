"""What of a run may be seen by everybody: the checks and the cleaned copies behind a push."""

from __future__ import annotations

import copy
import html
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fairtune_hf.data.checked_rows import read_checked_rows
from fairtune_hf.data.checks import FEW
from fairtune_hf.data.declaration import COLUMNS, ReadRequest
from fairtune_hf.data.folder_hf import is_hub_id
from fairtune_hf.data.registry import dataset_spec
from fairtune_hf.data.small_cells import SMALL
from fairtune_hf.data.table import SPLITS
from fairtune_hf.inference.earlier import describe_run
from fairtune_hf.model_description import ModelDescription, read_description
from fairtune_hf.reports import numbers
from fairtune_hf.reports.loaded_run import LoadedRun
from fairtune_hf.reports.tables import without_folders
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import SPLITS as MEASURED
from fairtune_hf.run_record import GroupCounts, GroupResult

_SAFE_SUFFIXES = frozenset({".json", ".safetensors", ".md", ".txt", ".html"})
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_PATIENT_KEYS = frozenset({"patient_id", "patient_ids", "patients", "row_id", "row_ids"})
_SHORTEST_ID = 5
_PICTURE_NAME = re.compile(r"\w\.(?:jpe?g|png|bmp|tiff?|webp|dcm)\b", re.IGNORECASE)


def check_no_pickle(folder: Path) -> None:
    """Refuse a folder that holds pickled files, by name and by their first bytes.

    Raises:
        ValueError: A file is not JSON, safetensors or text.
    """
    if not folder.is_dir():
        return
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            start = file.read(4)
        if path.suffix not in _SAFE_SUFFIXES and not path.name.startswith("."):
            raise ValueError(
                f"{path.relative_to(folder)} in {folder} is neither JSON, safetensors nor text; "
                "pickled files can run code on the machine that loads them and are not pushed. "
                "Remove it or save it as safetensors."
            )
        if start.startswith(_PICKLE_STARTS):
            raise ValueError(
                f"{path.relative_to(folder)} in {folder} starts like a pickled file whatever its "
                "name says; it is not pushed. Save it again as safetensors."
            )


def known_ids(folder: LoadedRun) -> tuple[set[str], str]:
    """Return the row and patient ids of a run's data, and what to say if they are not all known.

    Those of the predictions, and those of the data set as `config.yaml` names it: training rows and
    rows that were left out have no prediction. Only its tables are read, and nothing is downloaded.
    """
    ids = set() if folder.predictions.empty else set(map(str, folder.predictions["row_id"]))
    config = {key: value for key, value in folder.config.items() if value is not None}
    root = config.get("data_root")
    try:
        if "dataset" not in config:
            raise ValueError("config.yaml does not name one")
        if root and is_hub_id(Path(root)):
            raise ValueError("it is on the Hub")
        spec = dataset_spec(str(config.get("dataset")))
        checked = read_checked_rows(
            spec.name,
            root,
            ReadRequest.of(
                {name: config[name] for name in (*spec.all_options, *COLUMNS) if name in config},
                seed=int(config.get("seed", 0)),
                metadata_only=True,
            ),
        )
    except (OSError, ValueError) as error:
        return ids, f"Looked for ids of the predictions alone, the data set was not read: {error}"
    return ids | ids_of(checked.frame), ""


def ids_of(table: pd.DataFrame) -> set[str]:
    """Return the row and patient ids of a table; "row 12" is a name that was made here."""
    found = {str(value) for name in ("row_id", "patient_id") for value in table[name].unique()}
    return {identity for identity in found if not re.fullmatch(r"row \d+", identity)}


def check_no_ids(contents: Mapping[str, bytes], ids: Iterable[str], source: str) -> None:
    """Refuse files in which an id, the name of a picture file or a patient key stands.

    Ids of fewer than five characters cannot be told from other words and are not looked for; those
    of digits alone only as words of a JSON string, where other numbers are rare.

    Args:
        contents: Name and content of each file; JSON, Markdown or HTML.
        ids: Row and patient ids.
        source: The JSON file that the texts come from, for the message.

    Raises:
        ValueError: Such a thing was found; the message names the place, not the id.
    """
    looked_for = [i for i in ids if len(i) >= _SHORTEST_ID]
    words = [i for i in looked_for if not i.isdecimal()]
    for name in sorted(contents, key=lambda name: not name.endswith(".json")):
        text = contents[name].decode("utf-8", errors="replace")
        if name.endswith(".json"):
            content = json.loads(text)
            _check_keys(name, content)
            for path, string in _strings(content):
                _check_string(f"{name}, {path}", string, looked_for, source)
        else:
            _check_string(name, _unescaped(text), words, source)


def _check_keys(name: str, content: Any) -> None:
    keys = sorted({path.rpartition(".")[2] for path, _ in _strings(content)} & _PATIENT_KEYS)
    if keys:
        raise ValueError(
            f"{name} has the entry {', '.join(keys)}: what identifies patients is not pushed. "
            "Remove it from run.json and repeat the command."
        )


def _strings(content: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Give every string of a JSON value, each key before what it holds, with its place."""
    if isinstance(content, str):
        yield path, content
    items: Iterable[tuple[str, Any]] = ()
    if isinstance(content, dict):
        items = ((f"{path}.{key}" if path else str(key), item) for key, item in content.items())
        for key in content:
            yield f"{path}.{key}" if path else str(key), str(key)
    elif isinstance(content, list):
        items = ((f"{path}[{place}]", item) for place, item in enumerate(content))
    for place, item in items:
        yield from _strings(item, place)


def _check_string(place: str, text: str, ids: Iterable[str], source: str) -> None:
    held = set(re.findall(r"\w+", text))
    # Searching for every id is slow; one can only stand where each of its words does.
    near = (i for i in ids if held.issuperset(re.findall(r"\w+", i)))
    found = sum(bool(re.search(rf"(?<![\w.]){re.escape(i)}(?!\w|\.\d)", text)) for i in near)
    what = f"{found} row or patient id(s) of the data" if found else ""
    if not found and _PICTURE_NAME.search(text):
        what = "a picture file"
    if what:
        raise ValueError(
            f"{place}: names {what}, which may tell who a patient is; it is not handed on. Take it "
            f"out of {source} and repeat the command, or say it in other words where it is a "
            "number that means something else."
        )


def _unescaped(text: str) -> str:
    """Undo the escapes of Markdown and HTML, behind which an id would not be found."""
    return re.sub(r"\\(?=[\W_])", "", html.unescape(text)).replace("\u200b", "")


def public_run(folder: LoadedRun) -> str:
    """Return `run.json` as text without folders of this machine and counts of small groups.

    Of a group of fewer than ten people, and of the next smallest where it is the only one (see
    `hidden_cells`), the AUC and its interval are kept: the headline is made of them.
    """
    record = copy.deepcopy(folder.record)
    dataset = record.dataset
    for split in SPLITS:
        hidden, small = folder.hidden_groups(split), folder.small_groups(split)
        _hide_counts(dataset.counts.get(split) or {}, hidden)
        if split in MEASURED:
            for entry in (seed for method in record.methods.values() for seed in method.seeds):
                result = entry.result(split)
                _hide_counts(result.groups, hidden)
                result.warnings = _hide_in(result.warnings, small)
        record.warnings = _hide_in(record.warnings, small)
    for totals in (dataset.rows, dataset.n_patients):
        few = [split for split, n in totals.items() if numbers.is_number(n) and 0 < n < FEW]
        totals.update(dict.fromkeys(few, SMALL))
    return json.dumps(without_folders(record.to_json()), indent=1, allow_nan=False) + "\n"


def _hide_counts(
    groups: Mapping[str, GroupCounts | GroupResult], hidden: Mapping[str, str]
) -> None:
    """Hide counts by the rules of the card's tables: of hidden groups, and of a class under ten."""
    for name, row in groups.items():
        shown = numbers.positives(row.n, row.positives)
        if name in hidden:
            row.n = row.positives = hidden[name]
            row.more = dict.fromkeys(row.more)
            if isinstance(row, GroupCounts) and row.n_patients is not None:
                row.n_patients = hidden[name]
        elif SMALL in shown:
            row.positives = shown


def _hide_in(warnings: Sequence[str], small: set[str]) -> list[str]:
    return [numbers.hide_small_counts(text, small) for text in warnings]


def public_config(config: dict[str, Any], base: str | None, revision: str | None) -> str:
    """Return `adapter_config.json` with the base model named by its Hub id, or by none."""
    named = {"base_model_name_or_path": base, "revision": revision if base else None}
    return json.dumps(without_folders(config) | named, indent=2, sort_keys=True) + "\n"


def public_description(folder: LoadedRun, base: str | None) -> ModelDescription:
    """Return what belongs to the adapter, with its base model named by its Hub id and counts of small groups hidden."""
    run = RunFolder(folder.path)
    described = copy.deepcopy(read_description(run.adapter) or describe_run(run))
    if base is not None:
        described.base.id = base
    hidden = folder.hidden_groups("test")
    for name, row in described.groups.items():
        if name in hidden:
            kept: dict[str, Any] = {key: row[key] for key in ("auc", "auc_ci") if key in row}
            described.groups[name] = {"n": hidden[name], "positives": hidden[name], **kept}
    return described


def public_predictions(folder: LoadedRun) -> bytes:
    """Return the predictions as parquet, without ids and without groups whose counts are hidden.

    The rows are sorted by what is published of them, so nothing is left of their order.

    Raises:
        FileNotFoundError: The run has no predictions.
        ValueError: No group may be shown.
    """
    frame = folder.predictions
    if frame.empty:
        raise FileNotFoundError(
            f"--with-predictions needs predictions.parquet in {folder.path}; there is none."
        )
    shown = frame[frame["split"].isin(["validation", "test"])]
    for split in ("validation", "test"):
        hidden = list(folder.hidden_groups(split))
        shown = shown[
            ~(shown["split"].eq(split) & shown[folder.sensitive].astype(str).isin(hidden))
        ]
    if shown.empty:
        raise ValueError(
            "--with-predictions: every group has fewer than ten people, or would tell the number "
            "of one that has, so no row may be shown. Push without the predictions."
        )
    order = ["seed", "split", "score", "label", folder.sensitive]
    buffer = io.BytesIO()
    shown.sort_values(order)[["seed", "split", "label", "score", folder.sensitive]].to_parquet(
        buffer, index=False
    )
    return buffer.getvalue()
