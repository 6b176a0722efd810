"""The file of a study: made whole before it has its name, and looked at before it is trusted.

Optuna makes its tables in a file one by one, each committed by itself, so a kill or a full disk in between
leaves a file that opens and in which no search can go on. A file that holds no trial yet is made anew;
one that is damaged is refused and left as it is.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import BaseModel

from fairtune_hf.whole_files import flush

_HEADER_BYTES = 100  # a shorter file holds no database
_TIMEOUT_SECONDS = 60.0
_ALEMBIC = "alembic_version"


def path_of(url: str) -> Path | None:
    """Return the file of an SQLite URL; None for a server's."""
    parsed = sqlalchemy.engine.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    return Path(str(parsed.database))


def make_whole(path: Path) -> None:
    """Make the file of a study with all its tables, unless a whole one is there. Call it during a turn.

    Raises:
        ValueError: What is there is damaged, or no database; it is left as it is.
        FileNotFoundError: The folder is not there.
        PermissionError: The file cannot be opened.
    """
    if is_whole(path):
        return
    partial = path.with_name(f".{path.name}.partial")  # one, since the turn is held
    for left in _family(partial):
        left.unlink(missing_ok=True)
    rdb = RDBStorage(f"sqlite:///{partial}", engine_kwargs={"creator": lambda: _make(partial)})
    with rdb.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    rdb.engine.dispose()
    for left in _family(path)[1:]:
        left.unlink(missing_ok=True)  # a log of the old file would be replayed into the new one
    flush(partial)
    partial.replace(path)
    flush(path.parent)


def is_whole(path: Path) -> bool:
    """Whether a file holds a study's tables; False where it is absent or holds no trial and not all tables.

    Raises:
        ValueError: It is damaged, no database, or parted from the log that holds its trials.
        PermissionError: It cannot be opened.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"--storage: expected {path} to be a file, and it is not. {_WAYS_OUT}")
    log = path.with_name(path.name + "-wal")
    if not path.exists() or path.stat().st_size < _HEADER_BYTES:
        # SQLite deletes the log of an empty file without a word when it opens it.
        if log.exists() and log.stat().st_size:
            raise ValueError(
                f"--storage: expected {path} beside its log {log.name}, which holds trials, and it is "
                f"{'empty' if path.exists() else 'not there'}. Restore both together, or move the log away to begin anew."
            )
        return False
    try:
        return _examine(path)
    except sqlite3.OperationalError as error:
        raise PermissionError(
            f"--storage: expected {path} to be a file that can be opened and written, and it is not ({error})."
        ) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error


def _examine(path: Path) -> bool:
    with closing(connect(path)) as connection:
        found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        bytes_per_page = connection.execute("PRAGMA page_size").fetchone()[0]
        if path.stat().st_size % bytes_per_page:
            raise _damaged(path, "it ends in the middle of a page")
        verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _damaged(path, verdict.splitlines()[-1])
        expected = _expected_names()
        if expected <= found:
            return True
        holds_trials = "trials" in found and connection.execute("SELECT 1 FROM trials").fetchone()
        if holds_trials:
            raise _damaged(path, f"{', '.join(sorted(expected - found))} missing")
        tables = {name for name in found if not name.startswith("sqlite_")}
        if not tables <= expected | {_ALEMBIC}:
            raise ValueError(
                f"--storage: expected a new file or one of a study, and {path} is a database of something else "
                f"({', '.join(sorted(tables - expected)[:3])}). Choose another file."
            )
        return False


def _expected_names() -> set[str]:
    """Names of the tables and indexes; without its index a table takes two studies of one name."""
    tables = BaseModel.metadata.tables.values()
    indexes = {str(index.name) for table in tables for index in table.indexes}
    return {table.name for table in tables} | indexes


def connect(path: Path) -> sqlite3.Connection:
    """Connect to a file that is there, for reading."""
    # `rw` never makes a file, and may finish what a killed writer left in a journal. In a folder that is
    # read-only nothing changes, and the memory that readers share cannot be made.
    mode = "mode=rw" if os.access(path.parent, os.W_OK) else "immutable=1"
    address = f"{path.resolve().as_uri()}?{mode}"
    return sqlite3.connect(address, uri=True, timeout=_TIMEOUT_SECONDS)


def _make(path: Path) -> sqlite3.Connection:
    """Connect to a file that is to be made, which is waited for once, at the end."""
    connection = sqlite3.connect(path, timeout=_TIMEOUT_SECONDS, check_same_thread=False)
    connection.execute("PRAGMA synchronous=OFF")
    return connection


def _family(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in ("", "-wal", "-shm", "-journal")]


_WAYS_OUT = "Restore it from a copy, or begin anew: choose another --out, or add --overwrite to delete this run."


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(
        f"--storage: expected {path} to hold a study, and it is damaged ({why}). {_WAYS_OUT}"
    )


def set_aside(path: Path, *others: Path) -> list[Path]:
    """Give a damaged study's file, what belongs to it and its tables other names, `.damaged-N`; return those.

    For a caller that makes the study again by itself and says so.
    """
    there = [left for left in (*_family(path), *others) if left.exists()]
    number = 1
    while any(_damaged_name(left, number).exists() for left in there):
        number += 1
    return [left.rename(_damaged_name(left, number)) for left in there]


def _damaged_name(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged-{number}")
