"""Where a study is kept, how workers take turns at it, and how they tell who is still alive.

One file on one host by default (SQLite), or one PostgreSQL server for many. Optuna hands out trials
without counting them, so the count and the claim of the next trial are made in one turn: under a lock of
the file system, or of the server; both fall open when their holder dies.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import optuna
import psutil
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from fairtune_hf.search.study_file import connect, is_whole, make_whole, path_of
from fairtune_hf.turn import FileTurn
from fairtune_hf.whole_files import is_running

WORKER, BEAT = "worker", "beat"
BEAT_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # a worker of another host that did not beat for so long is taken for dead


class Turn(Protocol):
    """A lock between workers. Releasing one that is not held does nothing."""

    def acquire(self) -> None: ...  # noqa: D102
    def release(self) -> None: ...  # noqa: D102


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
        ConnectionError: The server cannot be reached, or the file's folder is not there.
        ValueError: The file is damaged, or the tables are of another Optuna.
        PermissionError: The file cannot be written.
    """
    # It logs, with its traceback, what Ctrl-C in the middle of a query does to a cursor; what fails is raised anyway.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    file = path_of(url)
    # Busy workers wait for each other instead of failing; a dropped connection is noticed and made anew.
    engine = {"connect_args": {"timeout": 60}} if file else {"pool_pre_ping": True}
    try:
        with _alone(url):
            if file:
                make_whole(file)
            rdb = RDBStorage(url, engine_kwargs=engine)
    except sqlalchemy.exc.OperationalError as error:
        raise ConnectionError(
            f"--storage: expected a database that answers, and {without_password(url)} does not "
            f"({str(error.orig).strip()}). {_ADVICE[file is not None]}"
        ) from error
    except FileNotFoundError as error:
        raise ConnectionError(
            f"--storage: expected a file in a folder that is there, and {url} is not in one. Make the folder first."
        ) from error
    except ImportError as error:
        raise ConnectionError(
            f"--storage: PostgreSQL needs a driver ({error}). Install `fairtune_hf[postgresql]`."
        ) from error
    except RuntimeError as error:  # Optuna's word for tables of another release
        raise ValueError(f"--storage: {without_password(url)} cannot be used: {error}") from error
    if file:
        # Commits go to a log that is synced at checkpoints: a killed process loses nothing, and the forty
        # commits of a trial cost milliseconds instead of forty waits for the disk.
        sqlalchemy.event.listen(rdb.engine, "connect", _relax)
        rdb.engine.dispose()
    return optuna.storages.get_storage(rdb)


_ADVICE = {
    False: "Is the server running, and may this machine connect?",
    True: "Is the file another program's, or on a file system without locks?",
}


@contextmanager
def told_apart(url: str) -> Iterator[None]:
    """Say what Optuna and SQLAlchemy say of a file that may not be written as the system would.

    Raises:
        PermissionError: The study cannot be written.
    """
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        said = str(_innermost(error)).lower()
        if "readonly database" in said or "read-only transaction" in said:
            where = path_of(url) or without_password(url)
            raise PermissionError(errno.EACCES, "The study is read-only", str(where)) from error
        raise


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return getattr(error, "orig", None) or error


def read_trials(url: str, study_name: str) -> list[FrozenTrial]:
    """Read a study's trials, but those that wait; none where there is no study. A file is not made for it.

    Raises:
        ValueError: The file is damaged.
        ConnectionError: The server cannot be reached.
    """
    file = path_of(url)
    if file is None:
        storage = open_storage(url)
    elif is_whole(file):
        options = {"creator": lambda: connect(file)}
        storage = RDBStorage(url, engine_kwargs=options, skip_table_creation=True)
    else:
        return []
    try:
        study_id = storage.get_study_id_from_name(study_name)
        trials = storage.get_all_trials(study_id, deepcopy=False)
    except KeyError:
        return []
    finally:
        _backend(storage).engine.dispose()  # else a file's log and shared memory stay
    return [trial for trial in trials if trial.state != TrialState.WAITING]


def make_durable(storage: BaseStorage) -> None:
    """Bring what is committed from the log of an SQLite file into the file, and both to the disk.

    So what a table tells is in the file itself: a power cut cannot take it, nor a copy without the log.
    """
    engine = _backend(storage).engine
    if engine.dialect.name == "sqlite":
        # What others read is left in the log until the next time.
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")


def _backend(storage: BaseStorage) -> Any:
    return getattr(storage, "_backend", storage)  # get_storage wraps it in a cache


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


def without_password(url: str) -> str:
    """Return a URL as it may be shown."""
    return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)


def open_turn(url: str, storage: BaseStorage, study_name: str) -> Turn:
    """Return the lock of one study."""
    return _turn_of(url, _backend(storage).engine, f"study {study_name}")


def _turn_of(url: str, engine: sqlalchemy.engine.Engine, what: str) -> Turn:
    if url.startswith("sqlite"):
        # One for all that is in the file: it is held for milliseconds.
        return FileTurn(Path(f"{sqlalchemy.engine.make_url(url).database}.lock"))
    return ServerTurn(engine, f"fairtune {what}")


def this_worker() -> dict[str, Any]:
    """Name this process so that another on the same host can see whether it lives."""
    return {"host": _host(), "pid": os.getpid(), "start": _look_up(os.getpid())[0]}


def _host() -> str:
    """A digest of the running system and its namespaces: the same means that processes can be looked up.

    Namespaces of processes and of time because pids and starts are told relative to them, the name because
    machines that were copied while they ran share all the rest. Whoever differs is watched by its beats.
    """
    names = [os.uname().nodename]
    try:
        names.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        names += [str(os.stat(f"/proc/self/ns/{kind}").st_ino) for kind in ("pid", "time")]  # noqa: PTH116
    except OSError:  # macOS, old kernels, sandboxes
        names.append(str(uuid.getnode()))
    return hashlib.sha256("".join(names).encode()).hexdigest()[:16]


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
        runs = None
        if worker["host"] == self._here:
            runs = _runs(worker["pid"], worker.get("start"))
        return self._beats(trial) if runs is None else runs

    def _beats(self, trial: FrozenTrial) -> bool:
        beat = trial.user_attrs.get(BEAT, 0)
        last, since = self._seen.get(trial.number, (-1, 0.0))
        if beat != last:
            self._seen[trial.number] = (beat, time.monotonic())
            return True
        return time.monotonic() - since < SILENCE_SECONDS


def _runs(pid: int, start: float | None) -> bool | None:
    """Whether this very process runs; None where that cannot be seen.

    A pid may have been given to another process since, which began later.
    """
    try:
        found, is_zombie = _look_up(pid)
    except (psutil.Error, OSError):
        return None if is_running(pid) else False  # others' processes may be hidden
    if start is None:  # signed by a release that noted the time of day
        return None
    return found == start and not is_zombie


def _look_up(pid: int) -> tuple[float, bool]:
    """When a process began, by a clock that nobody sets, and whether it is a zombie.

    In ticks since the machine was started; where there is no /proc, what the system noted then and does not change.
    """
    if not Path("/proc/self/stat").is_file():
        process = psutil.Process(pid)
        return process.create_time(), process.status() == psutil.STATUS_ZOMBIE
    # The name, in brackets, may hold anything. After it come the state and, 19 further, the start (proc_pid_stat(5)).
    line = Path(f"/proc/{pid}/stat").read_bytes()
    fields = line[line.rindex(b")") + 2 :].split()
    return int(fields[19]), fields[0] in (b"Z", b"X")


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
