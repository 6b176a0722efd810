"""The file of a study: half-made, cut, emptied, copied without its log, replaced; and what its tables say of it."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from safetensors.numpy import save

from fairtune_hf.run_folder import RunFolder
from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.space import SearchSpace
from fairtune_hf.search.storage import open_storage
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.search.trial_tables import are_whole
from fairtune_hf.training import FitArguments

SPACE = SearchSpace(blocks=2)


@pytest.fixture(autouse=True)
def quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def open_study(path: Path) -> SearchStudy:
    return SearchStudy(StudyPlan(RunFolder(path), SPACE, SearchArguments(), FitArguments(epochs=3)))


def train(study: SearchStudy, trials: int) -> None:
    for number in range(trials):
        assert study.claim() == "go"
        trial = study.study.ask()
        SPACE.suggest(trial)
        for epoch in range(3):
            row = {"epoch": epoch + 1, "values": [0.5], "overall_auc": 0.5, "loss": 1.0}
            study.judge(trial, epoch + 1, True, row)
        study.study.tell(trial, 0.5 + number / 100)
        study.end_turn()
    study.write_tables()


def close(study: SearchStudy) -> None:
    study.storage._backend.engine.dispose()  # type: ignore[attr-defined]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a search of three trials that nobody has open."""
    study = open_study(tmp_path / "run")
    train(study, 3)
    close(study)
    return tmp_path / "run"


def statements(path: Path) -> list[str]:
    """What Optuna commits one by one when it makes its tables."""
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
        return [sql for (sql,) in found]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 13])
def test_a_file_that_was_left_half_made_is_made_again(count: int, tmp_path: Path) -> None:
    optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/whole.db")
    with sqlite3.connect(tmp_path / "s.db") as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for sql in statements(tmp_path / "whole.db")[:count]:
            connection.execute(sql)
            connection.commit()
    connection.close()
    for _ in range(2):  # without its index a table takes the same name twice
        storage = open_storage(f"sqlite:///{tmp_path}/s.db")
        study = optuna.create_study(storage=storage, study_name="one", load_if_exists=True)
        study.tell(study.ask(), 0.5)
    assert len(storage.get_all_studies()) == 1
    assert set(statements(tmp_path / "s.db")) == set(statements(tmp_path / "whole.db"))


FULL_DISK = """
import os, resource, sys
from pathlib import Path
from fairtune_hf.search.storage import open_storage
folder = Path(sys.argv[1])
for size in range(0, 140_000, 10_000):
    file = folder / f"{size}.db"
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            open_storage(f"sqlite:///{file}")
        except Exception:
            os._exit(7)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(size, code, file.exists())
"""


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_size_leaves_a_whole_file_or_none(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], check=True, capture_output=True, text=True
    ).stdout
    found = [line.split() for line in said.splitlines()]
    assert {code for _, code, _ in found} == {"0", "7"}  # some had room enough
    assert all((code == "0") == (exists == "True") for _, code, exists in found), said
    for size, *_ in found:
        storage = open_storage(f"sqlite:///{tmp_path}/{size}.db")
        for _ in range(2):
            optuna.create_study(storage=storage, study_name="one", load_if_exists=True)
        assert len(storage.get_all_studies()) == 1


@pytest.mark.parametrize("share", [0.001, 0.3, 0.5, 0.9, 0.99999])
def test_a_file_that_was_cut_is_refused_and_left_as_it_is(share: float, run: Path) -> None:
    file = run / "study.sqlite3"
    cut = file.read_bytes()[: int(share * file.stat().st_size)]
    file.write_bytes(cut)
    with pytest.raises(ValueError, match=r"study\.sqlite3 to hold a study, and it is damaged"):
        open_study(run)
    assert file.read_bytes() == cut


def test_what_is_no_study_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("my own notes\n" * 100)
    with pytest.raises(ValueError, match="damaged"):
        open_storage(f"sqlite:///{tmp_path}/notes.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(ValueError, match="to be a file, and it is not"):
        open_storage(f"sqlite:///{tmp_path}/folder.db")
    with sqlite3.connect(tmp_path / "patients.db") as connection:
        connection.execute("CREATE TABLE patients (name TEXT)")
    with pytest.raises(ValueError, match=r"database of something else \(patients\)"):
        open_storage(f"sqlite:///{tmp_path}/patients.db")
    assert [row[0] for row in statements_of_names(tmp_path / "patients.db")] == ["patients"]


def statements_of_names(path: Path) -> list[tuple[str]]:
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT name FROM sqlite_master").fetchall()


def test_an_empty_file_is_not_trained_again_over_the_trials_that_its_table_lists(run: Path) -> None:
    (run / "study.sqlite3").write_bytes(b"")
    before = (run / "trials.csv").read_bytes()
    with pytest.raises(
        ValueError, match=r"trials\.csv lists 3 finished trials that .* does not hold"
    ):
        open_study(run)
    assert (run / "trials.csv").read_bytes() == before
    (run / "trials.csv").unlink()  # as the message says
    assert open_study(run).finished() == 0


def test_an_empty_file_beside_the_log_that_holds_its_trials_is_refused(tmp_path: Path) -> None:
    study = open_study(tmp_path)  # held open, so that there is a log
    study.study.ask()
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "study.sqlite3-wal", tmp_path / "copy")
    size = (tmp_path / "copy" / "study.sqlite3-wal").stat().st_size
    assert size > 0
    (tmp_path / "copy" / "study.sqlite3").touch()
    with pytest.raises(ValueError, match=r"beside its log study\.sqlite3-wal, which holds trials"):
        open_study(tmp_path / "copy")
    assert (tmp_path / "copy" / "study.sqlite3-wal").stat().st_size == size


def test_a_copy_without_the_log_holds_what_the_table_lists(tmp_path: Path) -> None:
    study = open_study(tmp_path / "run")
    train(study, 3)  # and is still open
    (tmp_path / "copy").mkdir()
    for name in ("study.sqlite3", "trials.csv", "curves.csv"):
        shutil.copy(tmp_path / "run" / name, tmp_path / "copy")
    assert open_study(tmp_path / "copy").finished() == 3
    close(study)


def test_an_earlier_copy_is_refused_and_says_how_many_it_lacks(tmp_path: Path) -> None:
    study = open_study(tmp_path / "run")
    train(study, 2)
    shutil.copytree(tmp_path / "run", tmp_path / "early")
    train(study, 3)
    close(study)
    shutil.copy(tmp_path / "run" / "trials.csv", tmp_path / "early")
    with pytest.raises(ValueError, match="lists 3 finished trials that"):
        open_study(tmp_path / "early")


STRAY = [b"number,state\n0,\rCOM\rPLETE\n", b'number,state\n"' + b"x" * 140_000]


@pytest.mark.parametrize(
    "damage", [*STRAY, b"", b"\x00\xff\x00", b"number,state\n0,COM", b"a,b\n1,2\n"]
)
def test_damaged_tables_are_known_and_written_anew(damage: bytes, run: Path) -> None:
    from fairtune_hf.search.soundness import check_study

    whole = {name: (run / name).read_bytes() for name in ("trials.csv", "curves.csv")}
    assert check_study(RunFolder(run), SearchArguments())
    for name in whole:
        (run / name).write_bytes(damage)
        assert not check_study(RunFolder(run), SearchArguments())
        open_study(run).write_tables()
        assert (run / name).read_bytes() == whole[name]


@pytest.mark.parametrize("name", ["trials.csv", "curves.csv"])
def test_a_short_table_is_known(name: str, run: Path) -> None:
    from fairtune_hf.search.soundness import check_study

    lines = (run / name).read_text().splitlines(keepends=True)
    (run / name).write_text("".join(lines[:-1]))
    assert not check_study(RunFolder(run), SearchArguments())
    (run / name).unlink()
    assert not check_study(RunFolder(run), SearchArguments())
    assert sorted(p.name for p in run.iterdir() if p.name.startswith("study")) == [
        "study.sqlite3",
        "study.sqlite3.lock",
    ]


def test_a_table_that_tells_nothing_is_not_replaced_by_an_empty_study(run: Path) -> None:
    (run / ".checksums.json").unlink()  # as in a run of an earlier release
    (run / "study.sqlite3").unlink()
    (run / "trials.csv").write_bytes(b"\x00\xff")
    with pytest.raises(ValueError, match="what was trained is not known"):
        open_study(run)
    assert (run / "trials.csv").read_bytes() == b"\x00\xff"


def test_a_study_in_a_folder_that_is_read_only_is_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairtune_hf.search.soundness import check_study

    real = os.access  # as root finds on a disk that is mounted so
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    before = sorted(run.iterdir())
    assert check_study(RunFolder(run), SearchArguments())
    assert sorted(run.iterdir()) == before


def test_another_storage_is_refused_where_the_table_lists_trials(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lists 3 finished trials that sqlite:///.*other\.db"):
        SearchStudy(StudyPlan(RunFolder(run), SPACE, SearchArguments(), FitArguments(epochs=3), storage=f"sqlite:///{tmp_path}/other.db"))  # fmt: skip
    assert len(pd.read_csv(run / "trials.csv")) == 3


@pytest.mark.parametrize("content", [b"", b"no database" * 500])
def test_a_method_of_a_comparison_sets_a_damaged_study_aside_and_begins_anew(
    content: bytes, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fairtune_hf.search.soundness import set_aside_if_damaged

    set_aside_if_damaged(RunFolder(run))
    assert open_study(run).finished() == 3  # nothing is wrong yet
    table = (run / "trials.csv").read_bytes()
    for number in (1, 2):
        for end in ("", "-wal", "-shm"):
            (run / f"study.sqlite3{end}").unlink(missing_ok=True)
        (run / "study.sqlite3").write_bytes(content)
        (run / "trials.csv").write_bytes(table)
        set_aside_if_damaged(RunFolder(run))
        assert "begins anew" in capsys.readouterr().err
        assert (run / f"study.sqlite3.damaged-{number}").read_bytes() == content
        assert (run / f"trials.csv.damaged-{number}").read_bytes() == table
        study = open_study(run)
        assert study.finished() == 0
        close(study)


PARTS = {
    "value": struct.pack(">d", 0.51),  # as SQLite keeps it
    "epoch": b'"loss": 1.0',
    "overall_auc": b'"overall_auc": 0.5',
}


@pytest.mark.parametrize("part", PARTS)
def test_a_flipped_bit_in_a_page_of_the_study_is_refused_and_nothing_is_written(
    part: str, run: Path
) -> None:
    file = run / "study.sqlite3"
    content = bytearray(file.read_bytes())
    place = content.rindex(PARTS[part]) + len(PARTS[part]) - 1
    content[place] ^= 1
    file.write_bytes(content)
    before = {p: p.read_bytes() for p in run.iterdir() if p.suffix in (".csv", ".json")}
    from fairtune_hf.search.soundness import check_study

    for look in (open_study, lambda path: check_study(RunFolder(path), SearchArguments())):
        with pytest.raises(
            ValueError, match=r"is damaged: of its finished trials, [123] .* other than"
        ):
            look(run)
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize("name", ["trials.csv", "curves.csv"])
def test_a_changed_digit_in_a_table_is_written_anew(name: str, run: Path) -> None:
    whole, study = (run / name).read_bytes(), open_study(run)
    for place in [i for i, byte in enumerate(whole) if chr(byte).isdecimal()]:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (run / name).write_bytes(damaged)
        assert not are_whole(study.folder, study.trials())
    study.write_tables()
    assert (run / name).read_bytes() == whole
    assert are_whole(study.folder, study.trials())


def test_a_search_that_goes_on_keeps_what_it_noted_of_its_trials(run: Path) -> None:
    """Trials that ended are noted for good; those that ended since are added, also by an older release's table."""
    train(open_study(run), 2)
    assert open_study(run).finished() == 5
    (run / ".checksums.json").unlink()
    study = open_study(run)
    assert study.finished() == 5
    study.write_tables()
    assert open_study(run).finished() == 5


def test_a_flipped_bit_in_the_kept_trial_makes_it_absent(tmp_path: Path) -> None:
    from fairtune_hf.checksums import digest_of, write_noted
    from fairtune_hf.search.best import why_unreadable

    kept = tmp_path / "best_trial"
    scores = io.BytesIO()
    np.save(scores, np.linspace(0, 1, 9))
    write_noted(
        kept,
        {"trial.json": '{"number": 1, "value": 0.5, "params": {}}', "adapter_config.json": "{}"},
        **{
            "scores.npy": [digest_of(scores.getvalue())],
            "adapter_model.safetensors": [digest_of(weights := save({"w": np.zeros(2)}))],
        },
    )
    (kept / "scores.npy").write_bytes(scores.getvalue())
    (kept / "adapter_model.safetensors").write_bytes(weights)
    assert why_unreadable(tmp_path) is None
    for name in ("trial.json", "scores.npy", "adapter_model.safetensors"):
        whole = (kept / name).read_bytes()
        damaged = bytearray(whole)
        damaged[-20 if name == "trial.json" else -1] ^= 1  # the value: 0.5 becomes 0.4
        (kept / name).write_bytes(damaged)
        assert "damaged or edited" in str(why_unreadable(tmp_path))
        (kept / name).write_bytes(whole)
