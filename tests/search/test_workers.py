"""Several workers on one study, in a file and on a PostgreSQL server, with one of them lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pandas as pd
import psutil
import pytest
import sqlalchemy
from optuna.trial import TrialState

from fairtune_hf.run_folder import RunFolder
from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.space import SearchSpace
from fairtune_hf.search.storage import open_storage
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.search.workers import WorkerPool
from fairtune_hf.training import FitArguments


@pytest.fixture
def server() -> Iterator[str]:
    """URL of a new and empty database of the PostgreSQL server that `.ci/postgresql start` started."""
    url = os.environ.get("FAIRTUNE_POSTGRESQL")
    if url is None:
        reason = "set FAIRTUNE_POSTGRESQL to what `.ci/postgresql start DIR` prints"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    name = f"test_{uuid.uuid4().hex[:8]}"
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    yield sqlalchemy.make_url(url).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["file", "server"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty storage: a file, and a database of the server."""
    if request.param == "file":
        return f"sqlite:///{tmp_path}/s.db"
    return str(request.getfixturevalue("server"))


@pytest.mark.slow
def test_eight_may_be_the_first_to_open_a_storage(url: str) -> None:
    together = threading.Barrier(8)

    def open_it(_: int) -> int:
        together.wait()
        return len(open_storage(url).get_all_studies())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(open_it, range(8))) == [0] * 8


WORKER = """
import os, sys
number = os.environ["FAIRTUNE_WORKER"]
print(f"worker {number}, replacement {os.environ.get('FAIRTUNE_REPLACEMENT')}")
sys.exit(3 if number == "1" else 0)
"""


def test_a_pool_says_what_it_does_and_shows_the_words_of_the_worker_that_died(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = SearchStudy(
        StudyPlan(
            RunFolder(tmp_path), SearchSpace(blocks=2), SearchArguments(), FitArguments(epochs=3)
        )
    )
    logs = tmp_path / "workers"
    logs.mkdir()
    (logs / "1.log").write_text("what an earlier search said\n")

    def look_on() -> None:
        with WorkerPool([sys.executable, "-c", WORKER], 2, logs) as pool:
            while True:
                pool.look_after(study.is_done)
                time.sleep(0.02)

    with pytest.raises(RuntimeError, match=r"The last words of worker 1:\nwhat an earlier"):
        look_on()
    first, *others = (logs / "1.log").read_text().splitlines()[1:]
    assert first == "worker 1, replacement None"
    assert others == ["worker 1, replacement 1"] * 3
    assert (logs / "0.log").read_text() == "worker 0, replacement None\n"
    said = capsys.readouterr().err
    assert said.count("Worker 1 ended with exit code 3 and is started again") == 3


CLAIMER = """
import sys
import optuna
from fairtune_hf.search import SearchArguments, SearchSpace, SearchStudy
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.training import FitArguments, RunFolder
optuna.logging.set_verbosity(optuna.logging.ERROR)
folder, url, name, trials = sys.argv[1:5]
study = SearchStudy(StudyPlan(RunFolder(folder), SearchSpace(blocks=2), SearchArguments(trials=int(trials)),
                              FitArguments(epochs=3), name=name, storage=url))
import time
from pathlib import Path
while (decision := study.claim()) != "done":
    if decision == "wait":
        time.sleep(0.1)
        continue
    trial = study.study.ask()
    candidate = study.space.suggest(trial)
    Path(folder, f"working-{sys.argv[5]}").touch()
    while len(list(Path(folder).glob("working-*"))) < 4:  # one that came early could do all the work
        time.sleep(0.01)
    study.study.tell(trial, candidate.mask.count("1") / 6)
    study.end_turn()
"""


@pytest.mark.slow
def test_four_that_claim_as_fast_as_they_can_make_the_exact_total(url: str, tmp_path: Path) -> None:
    name = f"test-{uuid.uuid4().hex[:8]}"
    words = [sys.executable, "-c", CLAIMER, str(tmp_path), url, name, "60"]
    processes = [subprocess.Popen([*words, str(place)]) for place in range(4)]
    try:
        assert [process.wait(600) for process in processes] == [0] * 4
    finally:
        for process in processes:
            process.kill()
    study = optuna.load_study(study_name=name, storage=url)
    states = [t.state for t in study.get_trials(deepcopy=False)]
    assert states == [TrialState.COMPLETE] * 60
    points = [str(sorted(t.params.items())) for t in study.get_trials(deepcopy=False)]
    assert len(set(points)) == 60
    assert len({t.user_attrs["worker"]["pid"] for t in study.trials}) == 4


@pytest.mark.slow
def test_a_turn_on_the_server_falls_open_with_its_holder(server: str, tmp_path: Path) -> None:
    def study() -> SearchStudy:
        space, arguments = SearchSpace(blocks=2), SearchArguments(trials=4)
        folder = RunFolder(tmp_path)
        return SearchStudy(
            StudyPlan(folder, space, arguments, FitArguments(epochs=3), name=name, storage=server)
        )

    name = f"test-{uuid.uuid4().hex[:8]}"
    one = study()
    assert one.claim() == "go"
    held = one._turn._connection  # type: ignore[attr-defined]
    held.connection.dbapi_connection.close()  # as when its process is killed
    two = study()
    assert two.claim() == "go"
    two.end_turn()


@pytest.mark.slow
def test_four_workers_on_a_server_one_killed_make_the_exact_total(
    server: str, folder_flags: list[str], tiny_vit: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    name = f"test-{uuid.uuid4().hex[:8]}"
    # So many epochs that a trial takes about a second, and one is seen at work.
    fit = ["--trials=16", "--epochs=12", "--batch-size=16", "--top-k=2", "--learning-rate-max=0.01"]
    words = [sys.executable, "-m", "fairtune_hf.cli.main", "search", *folder_flags, *fit]
    words += [f"--model={tiny_vit}", f"--storage={server}", f"--study-name={name}"]
    words += ["--workers=4", f"--out={out}"]
    parent = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        victim = kill_one_at_work(parent, server, name)
        _, said = parent.communicate(timeout=400)
    finally:
        parent.kill()  # its workers end with it
    assert parent.returncode == 0, said[-3000:]
    trials = pd.read_csv(out / "trials.csv")
    assert trials["state"].isin(["COMPLETE", "PRUNED"]).sum() == 16
    assert trials["state"].eq("FAIL").sum() == 1  # the victim's, repeated by another
    assert len(trials) == 17
    study = optuna.load_study(study_name=name, storage=server)
    # One more at least, which repeated the victim's trial, however late the others came.
    assert victim in {t.user_attrs["worker"]["pid"] for t in study.trials}
    assert len({t.user_attrs["worker"]["pid"] for t in study.trials}) >= 2
    record = json.loads((out / "run.json").read_text())
    assert record["search"]["completed"] + record["search"]["pruned"] == 16
    assert len(record["search"]["confirmation"]["candidates"]) == 2
    assert said.count("run, 16 trials:") == 1  # one table, the parent's
    assert (out / "best_trial" / "adapter_model.safetensors").is_file()
    for child in record["search"]["confirmation"]["candidates"]:
        assert len(child["values"]) == 2


def kill_one_at_work(parent: subprocess.Popen[str], url: str, name: str) -> int:
    """Kill the worker of a running trial; return its pid."""
    deadline = time.monotonic() + 300
    storage = optuna.storages.RDBStorage(url)  # one, whose connections the server is not short of
    while time.monotonic() < deadline:
        assert parent.poll() is None
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:  # not there yet
            time.sleep(0.5)
            continue
        ended = len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            pid = trial.user_attrs.get("worker", {}).get("pid")
            if ended >= 2 and pid and psutil.pid_exists(pid):
                os.kill(pid, signal.SIGSTOP)  # so that the trial cannot end before the kill
                time.sleep(0.2)
                still = study.get_trials(deepcopy=False)[trial.number].state
                if still == TrialState.RUNNING:
                    os.kill(pid, signal.SIGKILL)
                    return int(pid)
                os.kill(pid, signal.SIGCONT)
        time.sleep(0.02)
    pytest.fail("no worker was seen at work")
