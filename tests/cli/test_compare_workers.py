"""`fairtune compare --workers`: workers that are lost, that outlive nobody, and the threads they share."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

BUDGET = ["--trials=2", "--epochs=2", "--seeds=2", "--batch-size=32", "--resamples=100"]
RATES = ["--pruner=none", "--learning-rate-min=0.001", "--learning-rate-max=0.03"]


@pytest.fixture(scope="module")
def flags(folder_flags: list[str], tiny_vit: Path) -> list[str]:
    return [*folder_flags, f"--model={tiny_vit}", *BUDGET, *RATES]


def table(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "comparison.csv")


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(flags: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["compare", *flags, "--trials=10000", "--methods", "full", "linear_readout"]
    command = [sys.executable, "-m", "fairtune_hf.cli.main", *words, "--workers=2", f"--out={out}"]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 240
    while len(list(out.glob("methods/*/trials.csv"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    process.kill()
    process.wait()
    try:
        _, alive = psutil.wait_procs(workers, timeout=15)
        assert not alive
    finally:
        for worker in workers:
            if worker.is_running():
                worker.kill()


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_the_threads_are_shared_out(
    flags: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    methods = ["--methods", "full", "linear_readout"]
    words = ["compare", *flags, *methods, "--trials=12", "--epochs=1", "--seeds=1", "--workers=2"]
    command = [sys.executable, "-m", "fairtune_hf.cli.main", *words, f"--out={out}"]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        while not list(out.glob("methods/*/trials.csv")):
            assert parent.poll() is None
            time.sleep(0.05)
        workers = psutil.Process(parent.pid).children()
        threads = [worker.environ()["OMP_NUM_THREADS"] for worker in workers]
        assert threads == [str(max(1, (os.cpu_count() or 1) // 2))] * 2
        # The one that has a method in its hands, which has opened that method's claim.
        claims = [
            [f.path for f in worker.open_files() if f.path.endswith("claim")] for worker in workers
        ]
        victim = next(w for w, held in zip(workers, claims, strict=True) if held)
        victim.kill()
        _, said = parent.communicate(timeout=400)
    finally:
        parent.kill()
    assert parent.returncode == 0, said[-3000:]
    assert re.findall(r"Worker (?:0|1) ended with exit code -9 and is started again", said)
    assert list(table(out)["method"].unique()) == ["full", "linear_readout"]
    assert table(out)["failure"].isna().all()
    for folder in out.glob("methods/*"):
        trials = pd.read_csv(folder / "trials.csv")
        assert trials["state"].isin(["COMPLETE", "PRUNED"]).sum() == 12


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_to_the_same_table(
    flags: list[str], tmp_path: Path
) -> None:
    """Killed as soon as the first study has a finished trial; the other run is spread over two processes."""
    methods = ["--methods", "full", "fscl", "fairtune"]
    command = [sys.executable, "-m", "fairtune_hf.cli.main", "compare", *flags, *methods]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*command, f"--out={killed}"], env=environment)
    while not list(killed.glob("methods/*/trials.csv")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "comparison.csv").exists()
    subprocess.run([*command, f"--out={killed}"], env=environment, check=True)
    subprocess.run([*command, f"--out={whole}", "--workers=2"], env=environment, check=True)
    pd.testing.assert_frame_equal(table(killed), table(whole))
    for name in ("full", "fscl", "fairtune"):
        run = json.loads((killed / "methods" / name / "run.json").read_text())
        assert run["search"]["completed"] == 2
