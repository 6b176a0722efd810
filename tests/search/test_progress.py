"""The table a search writes while it runs: a line a finished trial, aligned, no bar in a log."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from fairtune_hf.run_folder import RunFolder
from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.progress import Progress
from fairtune_hf.search.space import SearchSpace
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.training import FitArguments

NAMES = [f"blocks.{i}.{part}" for i in range(2) for part in ("layernorm", "attention", "mlp")]


@pytest.fixture
def study(tmp_path: Path) -> SearchStudy:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    arguments = SearchArguments(trials=9, presets=False)
    return SearchStudy(
        StudyPlan(RunFolder(tmp_path), SearchSpace(blocks=2), arguments, FitArguments(epochs=3))
    )


def train(study: SearchStudy, value: float | None, *, pruned: bool = False) -> None:
    """Run one trial: complete, pruned after its first epoch, or failed with a reason."""
    assert study.claim() == "go"
    trial = study.study.ask()
    for index, name in enumerate(NAMES):
        trial.suggest_categorical(name, [index % 2])
    trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True)
    if value is None:
        trial.set_user_attr("reason", "FloatingPointError: the training diverged")
        study.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    for epoch in range(1, 2 if pruned else 4):
        study.judge(trial, epoch, epoch == 3, {"epoch": epoch, "value": value, "values": [value]})
    if pruned:
        study.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    else:
        study.study.tell(trial, value)


def test_a_line_a_trial_with_the_best_so_far(
    study: SearchStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(study, show=True)
    train(study, 0.71)
    progress.refresh()
    progress.refresh()  # nothing new: nothing written
    train(study, 0.64, pruned=True)
    train(study, None)
    progress.refresh()
    progress.close()
    out, said = capsys.readouterr()
    assert out == ""
    assert "\r" not in said
    title, head, *lines = said.splitlines()
    assert title == f"{study.folder.path.name}, 9 trials:"
    assert head.split()[:5] == ["done", "trial", "state", "min_auc", "best"]
    cells = [line.split() for line in lines]
    assert [c[1:5] for c in cells] == [
        ["0", "complete", "0.7100", "0.7100"],
        ["1", "pruned", "0.6400", "0.7100"],
        ["2", "failed", "-", "0.7100"],
    ]
    assert [c[0] for c in cells] == ["1/9", "2/9", "2/9"]
    assert [c[6:8] for c in cells] == [["3/6", "3"], ["3/6", "1"], ["3/6", "0"]]
    assert lines[0].endswith("  sampled")
    assert lines[2].endswith("FloatingPointError: the training diverged")
    columns = {line.index(line.split()[3]) + len(line.split()[3]) for line in (head, *lines)}
    assert len(columns) == 1  # the values end below each other


def test_trials_of_before_are_counted_and_not_written_again(
    study: SearchStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    train(study, 0.8)
    progress = Progress(study, show=True)
    train(study, 0.7)
    progress.refresh()
    _, _, line = capsys.readouterr().err.splitlines()
    assert line.split()[:5] == ["2/9", "1", "complete", "0.7000", "0.8000"]


@pytest.mark.parametrize("hidden", [True, False])
def test_helpers_say_nothing(
    study: SearchStudy, capsys: pytest.CaptureFixture[str], hidden: bool
) -> None:
    progress = Progress(study if hidden else None, show=not hidden)
    train(study, 0.7)
    progress.refresh()
    progress.close()
    assert capsys.readouterr().err == ""
