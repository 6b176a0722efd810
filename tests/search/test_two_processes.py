"""One trial over two processes: whatever ends a trial or the search ends it in both, with the right exit code."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = """
import os, signal, sys
from pathlib import Path
import optuna
from fairtune_hf.data import load_dataset_table
from fairtune_hf.search import SearchArguments, SearchSpace, StudyPlan, run_study
from fairtune_hf.training import FairTrainer, FitArguments, RunFolder, Training, load_backbone
from transformers import TrainerCallback

pictures, vit, out = sys.argv[1:4]
rank = int(os.environ["RANK"])
table = load_dataset_table("folder", pictures, image_size=32, label_column="diagnosis", sensitive_column="sex",
                           patient_column="person", split_column="part", cache=False, progress=False,
                           splits=("train", "validation"))
backbone = load_backbone(vit)
training = FitArguments(epochs=4, batch_size=32, training_arguments='{"use_cpu": true, "ddp_backend": "gloo"}')
SETTINGS = {
    "prune": {"trials": 3, "pruner": "median"},
    "stop": {"trials": 4},
    "hours": {"trials": 4, "hours": 1e-6},
    "diverge": {"trials": 2},
    "exception": {"trials": 4},
    "term": {"trials": 10_000},
}

class PruneAtTwo(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return trial.last_step >= 2

class Act(TrainerCallback):
    def __init__(self, trainer, case):
        self.trainer, self.case, self.epochs = trainer, case, 0
    def on_epoch_end(self, args, state, control, **kwargs):
        self.epochs += 1
        trial = self.trainer._trial
        if self.case == "stop" and self.epochs == 6 and isinstance(trial, optuna.Trial):
            trial.study.stop()
        if self.case == "exception" and self.epochs == 6 and rank == 1:
            raise RuntimeError("rank 1 broke")
        if self.case == "diverge" and self.epochs == 5:
            for p in self.trainer.model.parameters():
                p.data.fill_(float("nan"))
        if self.case == "term" and self.epochs == 6:
            Path(out, f"ready-{rank}").touch()
        if self.case == "prune" and isinstance(trial, optuna.Trial):
            trial.study.pruner = PruneAtTwo()

def as_interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, as_interrupt)
try:
    for case in sys.argv[4].split(","):
        def make(**arguments):
            trainer = FairTrainer(**arguments)
            trainer.add_callback(Act(trainer, case))
            return trainer
        plan = StudyPlan(RunFolder(Path(out, case)), SearchSpace(blocks=2), SearchArguments(**SETTINGS[case]), training)
        run_study(plan, Training(table=table, backbone=backbone, arguments=training, make_trainer=make), show_progress=False)
except KeyboardInterrupt:
    sys.exit(130)
"""


def free_port() -> str:
    """A port that no other test process asks for, below those that the system gives away by itself."""
    port = 20_000 + os.getpid() % 10_000
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return str(port)
            except OSError:
                port += 1


@contextmanager
def launch(
    case: str, pictures: Path, vit: Path, out: Path
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start both ranks as torchrun would, each with a log, so that each exit code can be seen."""
    out.mkdir()
    script = out / "script.py"
    script.write_text(SCRIPT)
    shared = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "LOCAL_WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    found = []
    for rank in (0, 1):
        log = (out / f"log-{rank}").open("wb")
        words = [sys.executable, str(script), str(pictures), str(vit), str(out), case]
        environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        found.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
    try:
        yield found
    finally:
        for process in found:
            process.kill()
            process.wait()


def end(processes: list[subprocess.Popen[bytes]], out: Path, timeout: float) -> list[int]:
    try:
        return [process.wait(timeout) for process in processes]
    except subprocess.TimeoutExpired:
        logs = "\n".join((out / f"log-{rank}").read_text()[-2000:] for rank in (0, 1))
        pytest.fail(f"did not end: {[p.poll() for p in processes]}\n{logs}")


def trials(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "trials.csv")


@pytest.mark.slow
def test_both_processes_end_together(pictures: Path, tiny_vit: Path, tmp_path: Path) -> None:
    """Pruned trials, `study.stop()`, the hours and a diverged trial, one search after the other."""
    out = tmp_path / "out"
    with launch("prune,stop,hours,diverge", pictures, tiny_vit, out) as processes:
        assert end(processes, out, 240) == [0, 0], (out / "log-0").read_text()[-3000:]
    pruned = trials(out / "prune")
    assert list(pruned["state"]) == ["PRUNED"] * 3
    assert set(pruned["epochs"]) == {2}
    # It ends with the trial that asked for it.
    assert list(trials(out / "stop")["state"]) == ["COMPLETE"] * 2
    over = trials(out / "hours")
    assert list(over["state"]) == ["FAIL"]  # cut short: repeated if there is more time
    assert list(over["epochs"]) == [1]
    assert "hours are over" in over["reason"][0]
    diverged = trials(out / "diverge")
    assert list(diverged["state"]) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "not numbers" in diverged["reason"][1]


@pytest.mark.slow
def test_an_exception_in_the_second_process_ends_both_with_code_1(
    pictures: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    out = tmp_path / "exception"
    with launch("exception", pictures, tiny_vit, out) as processes:
        assert processes[1].wait(150) == 1
        assert end(processes, out, 15) == [1, 1]
    assert "rank 1 broke" in (out / "log-1").read_text()
    assert trials(out / "exception")["state"][0] == "COMPLETE"


@pytest.mark.slow
def test_sigterm_ends_both_with_code_130(pictures: Path, tiny_vit: Path, tmp_path: Path) -> None:
    out = tmp_path / "term"
    with launch("term", pictures, tiny_vit, out) as processes:
        deadline = time.monotonic() + 150
        while not all((out / f"ready-{rank}").exists() for rank in (0, 1)):
            assert time.monotonic() < deadline
            assert all(p.poll() is None for p in processes), (out / "log-1").read_text()[-2000:]
            time.sleep(0.05)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        assert end(processes, out, 15) == [130, 130]
