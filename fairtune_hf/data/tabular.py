"""Read CSV, TSV, Excel, JSON lines and Parquet tables as people keep them: as text, with their quirks taken off.

Everything is read as strings (a blank is missing), so that no id loses its zeros and no label its
spelling; the readers convert what they need. Knows no data set.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

MISSING = ["", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "null", "NULL", "#N/A"]
EXCEL = (".xlsx", ".xlsm")


def read_table(path: Path, *, header: int | None = 0) -> pd.DataFrame:
    """Read a table as text columns; separated text, an Excel sheet, JSON lines or Parquet.

    Comma, semicolon or tab separate. A byte-order mark, Windows line ends, UTF-16 and Latin-1 text are accepted.

    Raises:
        FileNotFoundError: if `path` is not a file.
        ValueError: if the file cannot be read as a table or holds no row.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the table {path} was expected and is not there. Check the path.")
    try:
        frame = _read_any(path, header)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error, OSError) as error:
        raise ValueError(
            f"{path} was expected to be a table (CSV, TSV, XLSX, JSONL or Parquet) and could not be read: {error}. "
            "Export it again as comma separated UTF-8 text."
        ) from error
    if header is not None:
        frame.columns = pd.Index([str(c).strip() for c in frame.columns])
    if frame.empty:
        raise ValueError(f"{path} was expected to hold rows and has none. Give the complete table.")
    return frame


def _read_any(path: Path, header: int | None) -> pd.DataFrame:
    suffix = path.suffix.lower()
    if suffix in EXCEL:
        return _read_excel(path, header)
    if suffix == ".jsonl":
        return as_text(pd.DataFrame(_json_lines(path)))
    if suffix == ".parquet":
        return as_text(read_parquet(path))
    return _read_text(path, header)


def find_table(root: Path, names: Iterable[str]) -> Path | None:
    """Return the first of `names` that is a file in `root`, compared without case."""
    if not root.is_dir():
        return None
    present = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_file()}
    for name in names:
        if name.lower() in present:
            return present[name.lower()]
    return None


def safe_relative(name: str) -> str | None:
    """Return `name` as a relative path with forward slashes, or None if it leaves its folder.

    The name alone counts: a link in the folder is followed wherever it leads (see `links`).
    """
    cleaned = name.strip().replace("\\", "/")
    if not cleaned or "\0" in cleaned or cleaned[0] == "/" or cleaned[1:2] == ":":
        return None
    return None if ".." in cleaned.split("/") else cleaned


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Return typed columns as the text that a CSV file of them holds; missing values stay missing.

    A whole number is written without a point also where the column has missing values, so that
    one group has one name in every file.
    """
    text = frame.convert_dtypes(convert_string=False)
    for name in text.columns:
        values = text[name].astype(object)
        missing = values.map(lambda v: v is None or v is pd.NA or (isinstance(v, float) and v != v))
        words = values.map(str).str.strip()
        text[name] = words.where(~missing.astype(bool) & ~words.isin(MISSING), None).astype(object)
    return text


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file; whole numbers stay whole beside missing ones.

    Raises:
        OSError: if it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return arrow_frame(pq.read_table(path))
    except pa.ArrowInvalid as error:
        raise OSError(str(error)) from error


def arrow_frame(table: Any) -> pd.DataFrame:
    """Return an Arrow table as a frame whose whole numbers stay whole beside missing ones."""
    import pyarrow as pa

    whole = {pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()}
    kinds = {kind: pd.Int64Dtype() for kind in whole} | {pa.bool_(): pd.BooleanDtype()}
    frame: pd.DataFrame = table.to_pandas(types_mapper=kinds.get, ignore_metadata=True)
    return frame


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_decode(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise OSError(f"line {number} is no JSON object ({error})") from error
        if not isinstance(row, dict):
            raise OSError(f"line {number} is no JSON object but {type(row).__name__}")
        rows.append(row)
    return rows


def _read_excel(path: Path, header: int | None) -> pd.DataFrame:
    try:
        import openpyxl  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{path.name} is an Excel file and the package openpyxl, which reads it, is not "
            "installed. Run pip install 'fairtune_hf[tables]', or save the sheet as CSV."
        ) from error
    try:
        frame = pd.read_excel(path, header=header, dtype=str, na_values=MISSING)
    except (KeyError, ValueError) as error:
        raise OSError(str(error)) from error
    except Exception as error:
        if type(error).__name__ not in ("BadZipFile", "InvalidFileException"):
            raise
        raise OSError(f"not an Excel workbook ({error})") from error
    return frame.dropna(how="all")


def _read_text(path: Path, header: int | None) -> pd.DataFrame:
    text = _decode(path)
    first = text.split("\n", 1)[0]
    separator = max("\t,;", key=first.count)
    return pd.read_csv(
        io.StringIO(text),
        sep=separator,
        header=header,
        dtype=str,
        keep_default_na=False,
        na_values=MISSING,
        skip_blank_lines=True,
    )


def _decode(path: Path) -> str:
    raw = path.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", errors="replace")
    if b"\0" in raw[:4096]:
        raise OSError("it holds binary data")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
