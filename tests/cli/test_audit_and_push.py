"""`evaluate --predictions`, `report --runs`, `card`, `push --dry-run` and `prepare` from the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fairtune_hf.cli.main import main

COLUMNS = ["--label-column=label", "--score-column=score", "--sensitive-column=sex"]


@pytest.fixture
def predictions(finished_run: Path, tmp_path: Path) -> Path:
    frame = pd.read_parquet(finished_run / "predictions.parquet")
    rows = frame[(frame["seed"] == 0) & (frame["split"] == "test")]
    rows[["row_id", "label", "score", "sex", "patient"]].to_csv(tmp_path / "p.csv", index=False)
    return tmp_path / "p.csv"


def test_any_predictions_are_audited(
    predictions: Path, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        *COLUMNS,
        "--patient-column=patient",
        "--resamples=200",
        f"--out={tmp_path / 'a.json'}",
    ]
    assert (
        main(["evaluate", f"--predictions={predictions}", f"--reference={predictions}", *words])
        == 0
    )
    found = json.loads((tmp_path / "a.json").read_text())
    table = pd.read_csv(predictions)
    auc = roc_auc_score(table["label"], table["score"])
    assert found["evaluation"]["overall_auc"] == pytest.approx(auc, abs=1e-12)
    assert all(item["difference"] == 0 for item in found["comparisons"])
    record = json.loads((finished_run / "run.json").read_text())
    assert found["evaluation"]["min_auc"] == pytest.approx(record["test"]["min_auc"], abs=1e-12)
    assert f"{auc:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "flags", "words"),
    [
        (lambda t: t, ["--label-column=label"], "--score-column, --sensitive-column: expected"),
        (lambda t: t.drop(columns="score"), COLUMNS, "score"),
        (lambda t: t.assign(score="high"), COLUMNS, "score"),
        (lambda t: t.assign(label=1), COLUMNS, "class"),
        (lambda t: pd.concat([t, t]), COLUMNS, "row_id"),
    ],
    ids=["missing flags", "missing column", "strings", "one class", "duplicated ids"],
)
def test_bad_tables_are_refused(
    change: object,
    flags: list[str],
    words: str,
    predictions: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(pd.read_csv(predictions)).to_csv(predictions, index=False)  # type: ignore[operator]
    assert main(["evaluate", f"--predictions={predictions}", *flags]) == 2
    message = capsys.readouterr().err
    assert words in " ".join(message.split())
    assert "Traceback" not in message


def test_runs_are_compared_and_cards_written(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", f"--runs={finished_run}", f"--out={tmp_path / 'all'}"]) == 0
    assert (tmp_path / "all" / "comparison.csv").is_file()
    assert main(["card", f"--run={finished_run}"]) == 0
    assert "import fairtune_hf" in (finished_run / "README.md").read_text()
    assert main(["report", f"--runs={finished_run}"]) == 2
    assert "--out: expected a folder" in capsys.readouterr().err


def test_a_dry_run_lists_what_would_be_pushed(
    finished_run: Path, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["push", f"--run={finished_run}", "--dry-run", "--with-base", f"--base-dir={tiny_vit}"]
    assert main([*words, "--repo-id=org/name"]) == 0
    listed = capsys.readouterr().out
    assert "adapter_model.safetensors" in listed
    assert "predictions.parquet" not in listed
    assert main(words) == 2


def test_prepare_metadata_only_gives_the_published_counts(tmp_path: Path) -> None:
    if not os.environ.get("FAIRTUNE_DATA"):
        pytest.skip("FAIRTUNE_DATA is not set: the real metadata is not here")
    root = Path(os.environ["FAIRTUNE_DATA"]) / "metadata"
    words = [
        "--dataset=fitzpatrick17k",
        f"--data-root={root}",
        "--metadata-only",
        f"--out={tmp_path}/f",
    ]
    assert main(["prepare", *words]) == 0
    table = pd.read_csv(tmp_path / "f" / "table.csv")
    assert set(table.columns) == {"row_id", "patient_id", "label", "skin_type", "split"}
    cell = (table["split"] == "train") & (table["skin_type"] == "I-III") & (table["label"] == 1)
    assert int(cell.sum()) == 1312  # Table 9 of the paper
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["table.csv"]


def test_prepare_takes_options_as_flags(pictures: Path, tmp_path: Path) -> None:
    (pictures / "p000_0.png").write_bytes(b"broken")
    words = [
        "prepare", "--dataset=folder", f"--data-root={pictures}", "--label-column=diagnosis",
        "--sensitive-column=sex", "--patient-column=person", "--split-column=part", "--image-size=32",
    ]  # fmt: skip
    assert main([*words, f"--out={tmp_path / 'a'}"]) == 2
    assert not (tmp_path / "a").exists()
    assert main([*words, "--skip-corrupt", f"--out={tmp_path / 'b'}"]) == 0
    assert len(pd.read_csv(tmp_path / "b" / "table.csv")) == 179


def test_another_data_set_is_scored_with_the_adapter(
    finished_run: Path, folder_flags: list[str], pictures: Path, tmp_path: Path
) -> None:
    """On the run's own pictures the test rows get the scores of the refit."""
    flags = [f for f in folder_flags if not f.startswith("--data-root")]
    words = [
        "evaluate",
        f"--run={finished_run}",
        *flags,
        f"--data-root={pictures}",
        "--allow-overlap",
        "--resamples=100",
    ]
    assert main(words) == 0
    where = finished_run / "external" / f"folder-{pictures.name}"
    scored = pd.read_parquet(where / "predictions.parquet").set_index("row_id")
    own = pd.read_parquet(finished_run / "predictions.parquet")
    own = own[own["seed"] == 0].set_index("row_id")
    assert len(scored) == 180
    assert (scored.loc[own.index, "score"] - own["score"]).abs().max() < 1e-5
    found = json.loads((where / "run.json").read_text())["test"]
    assert found["overall_auc"] == pytest.approx(
        roc_auc_score(scored["label"], scored["score"]), abs=1e-12
    )


def test_a_second_data_set_of_the_same_name_does_not_take_the_first_ones_place(
    finished_run: Path, folder_flags: list[str], pictures: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    other = tmp_path / "elsewhere" / pictures.name
    shutil.copytree(pictures, other)
    rows = pd.read_csv(other / "metadata.csv")
    rows.iloc[:-1].to_csv(other / "metadata.csv", index=False)
    flags = [f for f in folder_flags if not f.startswith("--data-root")]
    words = [
        "evaluate", f"--run={finished_run}", *flags, "--resamples=100", "--allow-overlap",
    ]  # fmt: skip
    assert main([*words, f"--data-root={pictures}"]) == 0
    assert main([*words, f"--data-root={other}"]) == 2
    assert "holds the numbers of another data set of the same name" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.slow
def test_an_audit_and_a_page_of_help_need_no_torch(predictions: Path, tmp_path: Path) -> None:
    words = [
        "evaluate", f"--predictions={predictions}", *COLUMNS, "--resamples=100",
        f"--out={tmp_path / 'a.json'}",
    ]  # fmt: skip
    for arguments, done in ((["--help"], "demo"), (words, "audit")):
        code = f"""
import sys
sys.argv = ["/somewhere/bin/fairtune", *{arguments!r}]
from fairtune_hf.cli.main import main
assert main() == 0
assert not {{"torch", "peft"}} & set(sys.modules)
import fairtune_hf
fairtune_hf.FairMaskConfig  # still there for who asks
assert "peft" in sys.modules
"""
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert ended.returncode == 0, (done, ended.stderr[-2000:])
