"""What is said of a storage that cannot be opened, and who is alive; workers are in test_workers.py."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import sqlalchemy

from fairtune_hf.search import storage as storage_module
from fairtune_hf.search.storage import BEAT, Heartbeat, Liveness, open_storage, this_worker


def test_a_file_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        ConnectionError, match=r"absent/s\.db is not in one\. Make the folder first"
    ):
        open_storage(f"sqlite:///{tmp_path}/absent/s.db")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_and_no_password_in_the_message(tmp_path: Path) -> None:
    url = f"postgresql+psycopg2://me:secret@/db?host={tmp_path}"
    with pytest.raises(ConnectionError, match="expected a database that answers") as said:
        open_storage(url)
    assert "secret" not in str(said.value)


@pytest.mark.parametrize(
    "error",
    [optuna.exceptions.StorageInternalError("busy"), sqlalchemy.exc.InterfaceError("", None, ValueError())],
)  # fmt: skip
def test_the_heart_beats_on_after_an_error_of_the_storage(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairtune_hf.search.storage.BEAT_SECONDS", 0.01)
    storage = open_storage(f"sqlite:///{tmp_path}/s.db")
    trial = optuna.create_study(storage=storage).ask()
    write, errors, written = storage.set_trial_user_attr, [error, error], threading.Event()

    def break_twice(*given: Any) -> None:
        if errors:
            raise errors.pop()
        write(*given)
        written.set()

    monkeypatch.setattr(storage, "set_trial_user_attr", break_twice)
    heart = Heartbeat(storage)
    heart.start(trial._trial_id)
    assert written.wait(60)
    heart.stop()
    assert storage.get_trial(trial._trial_id).user_attrs[BEAT] >= 3


def test_what_an_interrupt_does_to_a_query_is_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage: Any = open_storage(f"sqlite:///{tmp_path}/s.db")
    storage._backend.engine.pool.logger.error("Error closing cursor")
    assert not caplog.records


def signed(worker: dict[str, Any], beat: int = 0) -> optuna.trial.FrozenTrial:
    """A running trial of a worker."""
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
    trial.set_user_attr("worker", worker)
    trial.set_user_attr("beat", beat)
    return trial


@pytest.mark.parametrize("step", [-3600, -7, 2, 3600])
def test_a_living_worker_is_alive_whatever_the_clock_is_set_to(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, boot, now = signed(this_worker()), psutil.boot_time(), time.time()
    for module in (psutil, psutil._pslinux):  # what the system says from then on
        monkeypatch.setattr(module, "boot_time", lambda: boot + step)
    monkeypatch.setattr(time, "time", lambda: now + step)
    assert Liveness().is_alive(trial)


def test_a_pid_that_is_another_process_s_by_now_is_no_worker() -> None:
    worker = this_worker()
    assert not Liveness().is_alive(signed(worker | {"start": worker["start"] - 1}))
    assert not Liveness().is_alive(signed(worker | {"pid": 2**22 + 1}))


def test_a_process_whose_name_is_odd_and_one_that_ended_unheard() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "open('/proc/self/comm', 'w').write('a) R 1 (b'); print(1, flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    start, is_zombie = storage_module._look_up(child.pid)
    assert not is_zombie
    # Independent of the parsing: ticks since the start of the machine, by the uptime.
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 <= uptime - start / os.sysconf("SC_CLK_TCK") < 60
    trial = signed(this_worker() | {"pid": child.pid, "start": start})
    assert Liveness().is_alive(trial)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie until it is waited for
    assert not Liveness().is_alive(trial)
    child.wait()
    assert not Liveness().is_alive(trial)


@pytest.mark.parametrize("hidden", [True, False])
def test_who_cannot_be_looked_up_is_watched_by_its_beats(
    hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others' processes under hidepid, and a worker of a release that noted the time of day."""
    worker, now = this_worker(), 1000.0
    monkeypatch.setattr(storage_module.time, "monotonic", lambda: now)
    if hidden:

        def hide(pid: int) -> None:
            raise FileNotFoundError(pid)

        monkeypatch.setattr(storage_module, "_look_up", hide)
    else:
        worker = {"host": worker["host"], "pid": worker["pid"], "started": time.time()}
    liveness = Liveness()
    assert liveness.is_alive(signed(worker, beat=1))
    now += 59
    assert liveness.is_alive(signed(worker, beat=2))
    now += 61
    assert not liveness.is_alive(signed(worker, beat=2))


def test_a_storage_that_only_this_process_would_see_is_refused() -> None:
    from fairtune_hf.search.arguments import SearchArguments

    with pytest.raises(ValueError, match="--storage: expected postgresql"):
        SearchArguments(storage="sqlite:///:memory:")


def test_tables_of_another_optuna_are_refused_in_words(tmp_path: Path) -> None:
    storage: Any = open_storage(f"sqlite:///{tmp_path}/s.db")
    with storage._backend.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = 'v99.0.0'"))
    with pytest.raises(ValueError, match=r"s\.db cannot be used: .*no longer compatible"):
        open_storage(f"sqlite:///{tmp_path}/s.db")
