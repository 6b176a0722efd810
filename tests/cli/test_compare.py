"""`fairtune compare`: names, the report from run.json alone, failures as rows, resumption."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pandas as pd
import pytest

from fairtune_hf.baselines import METHODS, Method, method_spec
from fairtune_hf.cli.main import main
from fairtune_hf.data import ImageTable
from fairtune_hf.reports.comparison_tables import COMPARED
from fairtune_hf.search import SearchArguments, SearchStudy
from fairtune_hf.search.methods import MethodRun
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.training import FairTrainer, FitArguments, RunFolder, load_backbone
from tests.conftest import draw_folder, name_columns

BUDGET = ["--trials=2", "--epochs=2", "--seeds=2", "--batch-size=32", "--resamples=100"]
RATES = ["--pruner=none", "--learning-rate-min=0.001", "--learning-rate-max=0.03"]


@pytest.fixture(scope="module")
def flags(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of 120 patients, so that intervals and tests stand on enough people."""
    pictures = draw_folder(tmp_path_factory.mktemp("larger") / "set", patients=120)
    return [*name_columns(pictures), f"--model={tiny_vit}", *BUDGET, *RATES]


@pytest.fixture(scope="module")
def compared(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "out"
    methods = ["--methods", "linear_readout", "full", "groupdro+fairtune_attention"]
    assert main(["compare", *flags, *methods, f"--out={out}"]) == 0
    return out


def table(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "comparison.csv")


def has_both_calls(out: Path, method: str) -> bool:
    """Whether a method calls some test rows positive and some not, at the threshold one half."""
    frame = pd.read_parquet(out / "methods" / method / "predictions.parquet")
    calls = frame.loc[frame["split"] == "test", "score"] >= 0.5
    return calls.nunique() == 2


def by_number(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "trials.csv").set_index("number")


def test_methods_are_listed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--list-methods"]) == 0
    assert capsys.readouterr().out == "\n".join(METHODS) + "\n"


def test_every_method_is_a_row_with_intervals_and_is_tested(compared: Path) -> None:
    found = table(compared)
    overall = found[found["metric"] == "overall_auc"].set_index("method")
    assert list(overall.index) == ["full", "linear_readout", "groupdro+fairtune_attention"]
    assert overall[["value", "low", "high", "mean_over_seeds"]].notna().all(axis=None)
    assert overall["difference"].isna().tolist() == [True, False, False]
    tested = overall["p_value"].dropna()
    low, high = sorted(tested)
    expected = {low: min(1.0, 2 * low), high: max(min(1.0, 2 * low), high)}
    adjusted = overall.loc[tested.index, "p_holm"]
    assert adjusted.tolist() == pytest.approx([expected[p] for p in tested])


def test_the_run_says_what_was_done(compared: Path) -> None:
    run = json.loads(
        (compared / "methods" / "groupdro+fairtune_attention" / "run.json").read_text()
    )
    assert run["method"]["tunes"] == ["learning_rate", "step_size", "weight_decay", "mask"]
    assert set(run["choice"]["hyperparameters"]) == {"step_size", "weight_decay"}
    assert len(run["choice"]["mask"]) == 2
    assert (run["search"]["completed"], run["search"]["trained_epochs"]) == (2, 4)
    full = json.loads((compared / "methods" / "full" / "run.json").read_text())
    assert full["choice"]["train_also"] == ["everything_else"]
    assert full["choice"]["preset"] == "full"


def test_refit_trains_the_choice_with_all_it_trains(compared: Path) -> None:
    config = json.loads(
        (compared / "methods" / "full" / "adapter" / "adapter_config.json").read_text()
    )
    assert config["train_also"] == ["everything_else"]
    assert config["mask"]["mlp"] == "11"


def test_report_is_rebuilt_from_run_json_alone(compared: Path, tmp_path: Path) -> None:
    """Whatever order the folders are given in, the methods stand in that of --list-methods."""
    copies = []
    for folder in sorted((compared / "methods").iterdir()):
        copies.append(tmp_path / folder.name)
        copies[-1].mkdir()
        shutil.copy(folder / "run.json", copies[-1])
    assert main(["report", "--runs", *map(str, copies), f"--out={tmp_path / 'again'}"]) == 0
    for name in ("comparison.csv", "comparison.md", "comparison.tex", "comparison.html"):
        assert (tmp_path / "again" / name).read_text() == (compared / name).read_text()


def test_a_comparison_has_a_record_of_its_own(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((compared / "run.json").read_text())
    assert list(record["methods"]) == ["full", "linear_readout", "groupdro+fairtune_attention"]
    assert (record["schema_version"], record["reference"], record["chosen"]) == (2, "full", None)
    for name, method in record["methods"].items():
        own = json.loads((compared / "methods" / name / "run.json").read_text())
        assert method == own["methods"][name]
        assert own["test"] == method["seeds"][0]["test"]
    corrected = {
        (item["method"], item["metric"]): item["p_value_holm"] for item in record["comparisons"]
    }
    found = table(compared).dropna(subset=["p_holm"])
    for row in found.itertuples():
        assert corrected[row.method, row.metric] == row.p_holm
    assert main(["report", f"--run={compared}", f"--out={tmp_path / 'again'}"]) == 0
    for name in ("comparison.csv", "comparison.md", "comparison.tex", "comparison.html"):
        assert (tmp_path / "again" / name).read_text() == (compared / name).read_text()
    for command in ("finetune", "evaluate", "card"):
        capsys.readouterr()
        assert main([command, f"--run={compared}"]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "holds a comparison. Give one of its methods" in said, command


def test_done_is_done(compared: Path, flags: list[str]) -> None:
    study = compared / "methods" / "full" / "study.sqlite3"
    before = study.read_bytes()
    methods = ["--methods", "linear_readout", "full", "groupdro+fairtune_attention"]
    shown = (compared / "comparison.csv").read_text()
    records = {file: file.read_text() for file in compared.glob("methods/*/run.json")}
    assert main(["compare", *flags, *methods, "--workers=auto", f"--out={compared}"]) == 0
    assert study.read_bytes() == before
    assert {file: file.read_text() for file in records} == records
    assert (compared / "comparison.csv").read_text() == shown


@pytest.fixture(scope="module")
def gaps(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that judges by a metric of which the smallest value is the best."""
    out = tmp_path_factory.mktemp("gaps") / "out"
    words = ["--methods", "linear_readout", "--objective=auc_gap", "--trials=4", "--epochs=1"]
    assert main(["compare", *flags, *words, "--seeds=1", f"--out={out}"]) == 0
    return out


def test_of_gaps_the_lowest_is_chosen_and_called_so(gaps: Path) -> None:
    folder = gaps / "methods" / "linear_readout"
    record, trials = json.loads((folder / "run.json").read_text()), by_number(folder)
    assert trials["value"].nunique() > 1
    assert (trials["value"] == trials["auc_gap"]).all()
    assert record["choice"]["trial"] == trials["value"].idxmin()
    assert record["choice"]["selected_by"] == "lowest validation auc_gap of 4 complete trials"
    assert record["search"]["best_value"] == trials["value"].min()
    assert record["search"]["directions"] == {"auc_gap": "minimize"}


def test_pages_list_the_lowest_gap_first(gaps: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(gaps / "methods" / "linear_readout", tmp_path / "method"))
    assert main(["report", f"--run={folder}"]) == 0
    page = (folder / "report.html").read_text()
    assert "by validation AUC gap (lower is better)" in page
    listed = [int(n) for n in re.findall(r">Trial (\d+)<", page)]
    values = by_number(folder)["value"]
    assert sorted(listed) == list(values.index)
    assert values[listed].is_monotonic_increasing
    history = pd.read_csv(folder / "figures" / "search_history.csv")
    assert history["best_so_far"].tolist() == values.cummin().tolist()


def test_in_the_ranks_of_a_comparison_the_smallest_gap_is_the_first(compared: Path) -> None:
    found = table(compared)
    gap = found[found["metric"] == "auc_gap"].set_index("method")["mean_over_seeds"]
    lines = (compared / "comparison.md").read_text().partition("## Ranks")[2].splitlines()
    head, *rows = ([c.strip() for c in line.split("|")[1:-1]] for line in lines if "|" in line)
    ranks = {row[0]: row[head.index("AUC gap")] for row in rows[1:]}
    assert ranks == {name: f"{place:.2f}" for name, place in gap.rank().items()}


DAMAGES = [
    ("trials.csv", lambda content: content[: len(content) // 2]),
    ("trials.csv", lambda content: content[:-3]),
    ("trials.csv", lambda content: b"".join(content.splitlines(keepends=True)[:-1])),
    ("curves.csv", lambda content: content[: len(content) // 2]),
    ("curves.csv", lambda content: content[:-3]),
    ("curves.csv", lambda content: b"".join(content.splitlines(keepends=True)[:-1])),
    ("curves.csv", lambda content: b""),
    ("predictions.parquet", lambda content: b""),
    ("run.json", lambda content: content[: len(content) // 2]),
    ("run.json", lambda content: content.replace(b'"learning_rate": 0.0', b'"learning_rate": 0.1')),
    ("trials.csv", lambda content: content.replace(b"0.", b"1.", 1)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_damaged_method_is_made_again_and_the_others_are_left(
    name: str,
    damage: Callable[[bytes], bytes],
    compared: Path,
    flags: list[str],
    tmp_path: Path,
) -> None:
    out = Path(shutil.copytree(compared, tmp_path / "out"))
    broken = out / "methods" / "linear_readout" / name
    whole = broken.read_bytes()
    broken.write_bytes(damage(whole))
    assert broken.read_bytes() != whole
    left = stamps(out, "full", "groupdro+fairtune_attention")
    methods = ["--methods", "linear_readout", "full", "groupdro+fairtune_attention"]
    assert main(["compare", *flags, *methods, f"--out={out}"]) == 0
    if broken.suffix == ".csv":
        assert broken.read_bytes() == whole
    assert table(out).equals(table(compared))
    assert stamps(out, "full", "groupdro+fairtune_attention") == left


def stamps(out: Path, *methods: str) -> dict[Path, int]:
    """When the files of trained methods were written."""
    names = ("trials.csv", "curves.csv", "predictions.parquet", "adapter/adapter_model.safetensors")
    files = [out / "methods" / method / name for method in methods for name in names]
    return {file: file.stat().st_mtime_ns for file in files}


def test_another_configuration_in_the_folder_is_bad_input(
    compared: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *flags, "--epochs=3", f"--out={compared}"]) == 2
    assert "epochs was 2, now 3" in capsys.readouterr().err.replace("\n", " ")


def test_a_method_that_failed_is_a_row_that_says_why(flags: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    methods = ["--methods", "full", "fscl"]
    one = [*flags, "--epochs=1", "--trials=1", "--seeds=1"]
    assert main(["compare", *one, *methods, f"--out={out}"]) == 0
    lines = (out / "comparison.md").read_text().splitlines()
    row = next(line for line in lines if line.startswith("| fscl |"))
    assert "failed: ValueError: epochs: expected at least 2 for the two stages" in row
    found = table(out)
    full = found[found["method"] == "full"]
    assert full[full["metric"].str.contains("auc")]["value"].notna().all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--methods", "fairtun"], "Did you mean fairtune"),
        (["--layout", "attention"], "unknown flag: --layout"),
        (["--search-fraction", "0"], "--search-fraction: expected a share in (0, 1]"),
        (["--workers", "0"], "--workers: expected a number of at least 1, or auto"),
        (["--workers", "some"], "--workers: expected a number of at least 1, or auto"),
        (["--seeds", "0"], "--seeds: expected at least 1"),
    ],
)
def test_bad_input_is_named_and_nothing_written(
    flags: list[str],
    given: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", *flags, *given, f"--out={tmp_path / 'out'}"]) == 2
    assert words in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_two_processes_on_one_training_are_bad_input(
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["compare", *flags, f"--out={tmp_path / 'out'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--workers: expected no accelerate launch" in said
    assert "fairtune compare --workers auto" in said


def test_a_method_that_another_process_trains_is_waited_for(
    compared: Path, flags: list[str], tmp_path: Path
) -> None:
    out = shutil.copytree(compared, tmp_path / "out")
    words = ["compare", *flags, "--seeds=3", "--methods", "full", f"--out={out}"]
    reads, writes = os.pipe()
    with (out / "methods" / "full" / "claim").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        pid = os.fork()
        if pid == 0:
            os.close(file.fileno())  # the lock is the parent's
            os.dup2(writes, 2)
            sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
            os._exit(main(words))
        os.close(writes)
        said = ""
        while "Another process trains full; this one waits for its end." not in said:
            new = os.read(reads, 4096)
            assert new, said
            said += new.decode()
    with os.fdopen(reads) as rest:
        rest.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    record = json.loads((out / "methods" / "full" / "run.json").read_text())
    assert {entry["seed"] for entry in record["seeds"]} == {0, 1, 2}


def test_seconds_of_search_leave_out_the_night_after_a_kill(tiny_vit: Path, tmp_path: Path) -> None:
    run = MethodRun(
        spec=method_spec("full"),
        backbone=load_backbone(tiny_vit),
        folder=RunFolder(tmp_path),
        search=SearchArguments(trials=2, presets=False, top_k=0),
        training=FitArguments(epochs=2),
    )
    study = SearchStudy(StudyPlan(run.folder, run.space, run.search, FitArguments(epochs=2)))
    curve = [{"epoch": 1, "value": 0.5, "seconds": 7.0}]
    killed = optuna.trial.create_trial(
        state=optuna.trial.TrialState.FAIL, user_attrs={"curve": curve}
    )
    killed.datetime_complete = datetime.datetime.now()
    killed.datetime_start = killed.datetime_complete - datetime.timedelta(hours=9)
    study.study.add_trial(killed)
    assert run._describe_search(study, Method()).seconds == 7.0


def test_a_study_and_its_earlier_stages_share_the_pictures_and_compile_alike(
    search_table: ImageTable, tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[FairTrainer] = []
    start = FairTrainer.__init__

    def note(trainer: FairTrainer, **arguments: object) -> None:
        start(trainer, **arguments)
        made.append(trainer)

    monkeypatch.setattr(FairTrainer, "__init__", note)
    run = MethodRun(
        spec=method_spec("fscl"),
        backbone=load_backbone(tiny_vit),
        folder=RunFolder(tmp_path),
        search=SearchArguments(trials=1, presets=False, top_k=0),
        training=FitArguments(epochs=2, compile="on"),
    )
    run.search_choice(search_table, show_progress=False)
    last, earlier = made
    assert earlier.train_dataset is last.train_dataset
    assert earlier._compile_blocks
    assert last._compile_blocks


@pytest.mark.slow
def test_demo_compares_all_methods_at_one_small_budget(tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = ["--trials=1", "--seeds=1", "--resamples=200", "--workers=2"]
    recipe = Path(__file__).parents[2] / "recipes" / "demo" / "compare.yaml"
    assert main(["compare", f"--config={recipe}", *small, f"--out={out}"]) == 0
    found = table(out)
    assert list(found["method"].unique()) == list(METHODS)
    assert len(found) == len(COMPARED) * len(METHODS)
    assert found["failure"].isna().all()
    known = found[["value", "low", "high"]].notna().all(axis=1)
    assert known[found["metric"].str.contains("auc")].all()
    parity = found["metric"].str.endswith("difference")
    for method, of_method in known[parity].groupby(found["method"]):
        # Nobody called positive, or everybody: there is no call whose equality could be judged.
        assert of_method.eq(has_both_calls(out, str(method))).all(), method
    rest = found[(found["method"] != "full") & (found["metric"] == "min_auc")]
    assert (
        rest[["difference", "difference_low", "difference_high", "p_holm"]].notna().all(axis=None)
    )
