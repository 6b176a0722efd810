"""What is said of a storage that cannot be opened; turns and workers are in test_workers.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairtune_hf.search.storage import open_storage


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
