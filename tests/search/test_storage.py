"""What is said of a storage that cannot be opened; turns and workers are in test_workers.py."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from fairtune_hf.search.storage import BEAT, Heartbeat, open_storage


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
