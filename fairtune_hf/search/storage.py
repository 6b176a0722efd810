"""Where a study is kept, how workers take turns at it, and how they tell who is still alive.

One file on one host by default (SQLite), or one PostgreSQL server for many. Optuna hands out trials
without counting them, so the count and the claim of the next trial are made in one turn: under a lock of
the file system, or of the server; both fall open when their holder dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import optuna
import psutil
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial

WORKER, BEAT = "worker", "beat"
BEAT_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # a worker of another host that did not beat for so long is taken for dead


class Turn(Protocol):
    """A lock between workers. Releasing one that is not held does nothing."""

    def acquire(self) -> None: ...  # noqa: D102
    def release(self) -> None: ...  # noqa: D102


class FileTurn:
    """A turn by `flock` on a file beside the study."""

    def __init__(self, path: Path) -> None:
        self._path, self._handle = path, -1

    def acquire(self) -> None:
        """Wait for the turn."""
        if self._handle < 0:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                self._handle = handle
            except BaseException:  # Ctrl-C while waiting, in a notebook that lives on
                os.close(handle)
                raise

    def release(self) -> None:
        """End the turn."""
        if self._handle >= 0:
            os.close(self._handle)  # the lock goes with it
            self._handle = -1


class ServerTurn:
    """A turn by a PostgreSQL advisory lock, held by a connection of its own."""

    def __init__(self, engine: sqlalchemy.engine.Engine, name: str) -> None:
        self._engine, self._connection = engine, None
        digest = hashlib.sha256(name.encode()).digest()[:8]
        self._key = int.from_bytes(digest, "big", signed=True)

    def acquire(self) -> None:
        """Wait for the turn."""
        if self._connection is None:
            connection: Any = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            query = sqlalchemy.text("SELECT pg_advisory_lock(:key)")
            try:
                connection.execute(query, {"key": self._key})
                self._connection = connection
            except BaseException:
                connection.invalidate()  # back in the pool it might hold the lock for ever
                connection.close()
                raise

    def release(self) -> None:
        """End the turn."""
        connection, self._connection = self._connection, None
        if connection is not None:
            query = sqlalchemy.text("SELECT pg_advisory_unlock(:key)")
            connection.execute(query, {"key": self._key})
            connection.close()


def open_storage(url: str) -> BaseStorage:
    """Open an SQLite or PostgreSQL storage.

    Raises:
        ConnectionError: The server cannot be reached.
    """
    # It logs, with its traceback, what Ctrl-C in the middle of a query does to a cursor; what fails is raised anyway.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    is_file = url.startswith("sqlite")
    # Busy workers wait for each other instead of failing; a dropped connection is noticed and made anew.
    engine = {"connect_args": {"timeout": 60}} if is_file else {"pool_pre_ping": True}
    try:
        with _alone(url):
            rdb = RDBStorage(url, engine_kwargs=engine)
    except sqlalchemy.exc.OperationalError as error:
        raise ConnectionError(
            f"--storage: expected a database that answers, and {_without_password(url)} does not "
            f"({str(error.orig).strip()}). Is the server running, and may this machine connect?"
        ) from error
    except FileNotFoundError as error:
        raise ConnectionError(
            f"--storage: expected a file in a folder that is there, and {url} is not in one. Make the folder first."
        ) from error
    except ImportError as error:
        raise ConnectionError(
            f"--storage: PostgreSQL needs a driver ({error}). Install `fairtune_hf[postgresql]`."
        ) from error
    if is_file:
        # Commits go to a log that is synced at checkpoints: a killed process loses nothing, and the forty
        # commits of a trial cost milliseconds instead of forty waits for the disk.
        sqlalchemy.event.listen(rdb.engine, "connect", _relax)
        rdb.engine.dispose()
    return optuna.storages.get_storage(rdb)


@contextmanager
def _alone(url: str) -> Iterator[None]:
    """Open one at a time: Optuna asks whether its tables are there and then makes them, each in a step of its own."""
    # An engine is nothing before it connects, which it does for a server alone.
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
    turn = _turn_of(url, engine, "tables")
    turn.acquire()
    try:
        yield
    finally:
        turn.release()


def _relax(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _without_password(url: str) -> str:
    return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)


def open_turn(url: str, storage: BaseStorage, study_name: str) -> Turn:
    """Return the lock of one study."""
    backend: Any = getattr(storage, "_backend", storage)  # get_storage wraps it in a cache
    return _turn_of(url, backend.engine, f"study {study_name}")


def _turn_of(url: str, engine: sqlalchemy.engine.Engine, what: str) -> Turn:
    if url.startswith("sqlite"):
        # One for all that is in the file: it is held for milliseconds.
        return FileTurn(Path(f"{sqlalchemy.engine.make_url(url).database}.lock"))
    return ServerTurn(engine, f"fairtune {what}")


def this_worker() -> dict[str, Any]:
    """Name this process so that another on the same host can see whether it lives."""
    return {
        "host": _host(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def _host() -> str:
    """A digest of the running system and its process namespace: the same means that pids can be compared."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        names = f"{boot}{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116
    except OSError:  # no /proc: macOS
        names = f"{os.uname().nodename}{round(psutil.boot_time())}"
    return hashlib.sha256(names.encode()).hexdigest()[:16]


class Liveness:
    """Tells whether the worker of a running trial is alive.

    On this host its process is looked up. Of other hosts the beats are watched: a count that stands
    still for a minute of this host's own clock, so clocks need not agree.
    """

    def __init__(self) -> None:
        self._here = _host()
        self._seen: dict[int, tuple[int, float]] = {}

    def is_alive(self, trial: FrozenTrial) -> bool:
        """Whether a trial in state RUNNING is being worked on. Ask during a turn.

        A claim and its worker's name are written in one turn, so a trial without one has lost its worker in between.
        """
        worker = trial.user_attrs.get(WORKER)
        if worker is None:
            return False
        if worker["host"] == self._here:
            return _runs(worker["pid"], worker["started"])
        beat = trial.user_attrs.get(BEAT, 0)
        last, since = self._seen.get(trial.number, (-1, 0.0))
        if beat != last:
            self._seen[trial.number] = (beat, time.monotonic())
            return True
        return time.monotonic() - since < SILENCE_SECONDS


def _runs(pid: int, started: float) -> bool:
    """Whether this very process runs; a pid may have been given to another since."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 1.0
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Heartbeat:
    """Counts up in a trial's attributes while it runs, for workers on other hosts."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, trial_id: int) -> None:
        """Beat for a trial until `stop`."""
        self.stop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(trial_id, self._stop), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the beating and wait for the last one."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _beat(self, trial_id: int, stop: threading.Event) -> None:
        count = 0
        while not stop.wait(BEAT_SECONDS):
            count += 1
            try:
                self._storage.set_trial_user_attr(trial_id, BEAT, count)
            except optuna.exceptions.UpdateFinishedTrialError:
                return  # the trial ended between two beats
            except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError):
                continue  # a busy file, a server that restarts: the training need not know, and the next beat may do
