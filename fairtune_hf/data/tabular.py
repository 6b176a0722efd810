"""Read CSV, TSV and Excel tables as people keep them: as text, with their quirks taken off.

Everything is read as strings (a blank is missing), so that no id loses its zeros and no label its
spelling; the readers convert what they need. Knows no data set.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

MISSING = ["", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "null", "NULL", "#N/A"]
EXCEL = (".xlsx", ".xlsm")


def read_table(path: Path, *, header: int | None = 0) -> pd.DataFrame:
    """Read a table as text columns; comma, semicolon or tab separated, or an Excel sheet.

    A byte-order mark, Windows line ends, UTF-16 and Latin-1 text are accepted.

    Raises:
        FileNotFoundError: if `path` is not a file.
        ValueError: if the file cannot be read as a table or holds no row.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the table {path} was expected and is not there. Check the path.")
    try:
        frame = (
            _read_excel(path, header) if path.suffix.lower() in EXCEL else _read_text(path, header)
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error, OSError) as error:
        raise ValueError(
            f"{path} was expected to be a table (CSV, TSV or XLSX) and could not be read: {error}. "
            "Export it again as comma separated UTF-8 text."
        ) from error
    if header is not None:
        frame.columns = pd.Index([str(c).strip() for c in frame.columns])
    if frame.empty:
        raise ValueError(f"{path} was expected to hold rows and has none. Give the complete table.")
    return frame


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
    """Return `name` as a relative path with forward slashes, or None if it leaves its folder."""
    cleaned = name.strip().replace("\\", "/")
    if not cleaned or "\0" in cleaned or cleaned[0] == "/" or cleaned[1:2] == ":":
        return None
    return None if ".." in cleaned.split("/") else cleaned


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
