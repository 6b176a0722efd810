"""Twenty SIGKILLs at random moments, each followed by the same command: nothing lost, nothing counted twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

# The commands are run in forks of a process that has imported everything: a kill hits the search, not the imports.
DRIVER = """
import json, os, random, signal, sqlite3, sys, time
import torch
import fairtune_hf.cli.search, fairtune_hf.search.run
from fairtune_hf.cli.main import main

torch.set_num_threads(1)
words, out, kills = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
generator = random.Random(0)

def states():  # of the trials that were begun, in the order of their numbers
    try:
        with sqlite3.connect(f"file:{out}/study.sqlite3?mode=ro", uri=True, timeout=30) as database:
            found = database.execute(
                "select state from trials join studies using (study_id) where study_name = 'fairtune' "
                "and state != 'WAITING' order by number"
            )
            return [state for state, in found]
    except sqlite3.OperationalError:  # no study yet
        return []

def runs(pid):
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

def wait_for(pid, count, seconds=300.0):  # until so many trials were begun, or for so long
    end = time.monotonic() + seconds
    while len(states()) < count and time.monotonic() < end and runs(pid):
        time.sleep(0.002)

def stop_within_a_trial(pid, before):  # so that the trial cannot end before the kill
    while runs(pid):
        wait_for(pid, before + 1)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.01)
        if len(states()) > before and states()[-1] == "RUNNING":
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.002)

def begin():
    pid = os.fork()
    if pid == 0:
        os._exit(main(words))
    return pid

for kill in range(kills):
    before = len(states())
    pid = begin()
    if kill % 2 == 0:  # within a trial
        stop_within_a_trial(pid, before)
    elif kill % 4 == 1:  # from the first moment on, while the study is opened and cleaned
        wait_for(pid, before + 2, generator.uniform(0, 1.5))
    else:  # within a trial, or between two; a fast machine shall not be done before the last kill
        wait_for(pid, before + 1)
        wait_for(pid, before + 3, generator.uniform(0, 0.3))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        sys.exit(f"the search was done after {kill} kills")
_, status = os.waitpid(begin(), 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def search(words: list[str], out: Path, kills: int) -> pd.DataFrame:
    words = ["search", *words, f"--out={out}"]
    subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(words), str(out), str(kills)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return pd.read_csv(out / "trials.csv", dtype={"mask": str})


@pytest.mark.slow
def test_twenty_kills_of_a_search_of_thirty_trials(
    folder_flags: list[str], tiny_vit: Path, tmp_path: Path
) -> None:
    fit = ["--trials=30", "--epochs=3", "--batch-size=16", "--learning-rate-max=0.01", "--top-k=0"]
    words = [*folder_flags, f"--model={tiny_vit}", *fit]
    whole = search(words, tmp_path / "whole", 0)
    killed = search(words, tmp_path / "killed", 20)

    done = killed[killed["state"].isin(["COMPLETE", "PRUNED"])]
    assert len(done) == len(whole) == 30
    assert not killed["state"].eq("RUNNING").any()
    assert killed["state"].eq("FAIL").sum() >= 10  # each second kill hit a trial
    point = ["mask", "learning_rate"]
    assert not done.duplicated(point).any()
    # The same ten start-up points, and the same value wherever the same point was trained.
    first = set(map(tuple, whole.sort_values("number")[point].head(10).to_numpy()))
    assert first <= set(map(tuple, done[point].to_numpy()))
    both = done.merge(whole, on=point, suffixes=("", "_whole"))
    both = both[both["state"].eq("COMPLETE") & both["state_whole"].eq("COMPLETE")]
    assert len(both) >= 6  # the presets at least: they are never pruned, whatever ran before them
    pd.testing.assert_series_equal(both["value"], both["value_whole"], check_names=False)
    # The best adapter is the best complete trial's, and nothing half-written is left of the kills.
    kept = json.loads((tmp_path / "killed" / "best_trial" / "trial.json").read_text())
    assert kept["value"] == done[done["state"].eq("COMPLETE")]["value"].max()
    assert not list((tmp_path / "killed").glob("best_trial.*.partial"))
