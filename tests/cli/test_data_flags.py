"""Which data a command reads: the set that was named, in the folder that was meant."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from fairtune_hf.cli.main import main

COLUMNS = [
    "--label-column=diagnosis", "--sensitive-column=sex", "--patient-column=person",
]  # fmt: skip


def words_of(captured: str) -> str:
    return " ".join(captured.split())


@pytest.mark.parametrize(
    "command",
    [
        ["search", "--trials=1", "--epochs=1"],
        ["finetune", "--mask=none", "--learning-rate=0.01", "--epochs=1"],
        ["compare", "--trials=1", "--epochs=1"],
        ["prepare"],
        ["profile", "--steps=1"],
    ],
    ids=lambda words: words[0],
)
def test_a_folder_without_the_name_of_a_set_is_refused(
    command: list[str], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if command[0] == "profile" else [f"--out={tmp_path / 'out'}"]
    assert main([*command, f"--data-root={pictures}", *out]) == 2
    assert "--dataset: expected the name of the data set" in words_of(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--data-root=x", "--label-column=x", "--positive-label=x"])
def test_flags_of_another_set_without_its_name_are_refused(
    finished_run: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", f"--run={finished_run}", flag]) == 2
    assert "--dataset" in capsys.readouterr().err


def test_a_prepared_folder_says_what_it_is(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "--dataset=folder", f"--data-root={pictures}", *COLUMNS, "--image-size=32"]
    assert main([*words, "--split-column=part", f"--out={tmp_path / 'p'}"]) == 0
    words = ["prepare", f"--data-root={tmp_path / 'p'}", "--image-size=32"]
    assert main([*words, f"--out={tmp_path / 'q'}"]) == 2
    assert "is prepared already" in words_of(capsys.readouterr().err)
    assert not (tmp_path / "q").exists()
    assert main([*words, f"--out={tmp_path / 'q'}", "--metadata-only"]) == 0
    assert "was prepared from the data set folder" in capsys.readouterr().err
    tables = [pd.read_csv(tmp_path / name / "table.csv") for name in "pq"]
    pd.testing.assert_frame_equal(*tables)


def test_a_relative_folder_of_a_config_lies_beside_the_config(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "dataset": "folder", "data_root": pictures.name, "label_column": "diagnosis",
        "sensitive_column": "sex", "patient_column": "person", "metadata_only": True,
    }  # fmt: skip
    config = pictures.parent / "mine.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["prepare", f"--config={config}", f"--out={tmp_path / 'p'}"]) == 0
    assert len(pd.read_csv(tmp_path / "p" / "table.csv")) == 180
    # The command line's own is from where it is typed.
    assert main(["prepare", f"--config={config}", "--data-root=nowhere", "--out=x"]) == 2


def evaluate(run: Path, root: Path, *more: str) -> int:
    return main(
        [
            "evaluate", f"--run={run}", "--dataset=folder", f"--data-root={root}", "--resamples=50",
            "--allow-overlap", *COLUMNS, *more,
        ]
    )  # fmt: skip


def rewrite(root: Path, **changes: object) -> None:
    rows = pd.read_csv(root / "metadata.csv").assign(**changes)
    rows.to_csv(root / "metadata.csv", index=False)


def found_auc(run: Path, root: Path) -> float:
    record = json.loads((run / "external" / f"folder-{root.name}" / "run.json").read_text())
    return float(record["test"]["overall_auc"])


def diagnosis(root: Path, names: dict[str, str]) -> pd.Series:
    return pd.read_csv(root / "metadata.csv")["diagnosis"].map(names)


def test_another_sets_labels_are_turned_as_the_run_has_them(
    finished_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's label 1 is "sick"; "mole" and "zebra" tell nothing."""
    assert evaluate(finished_run, pictures) == 0
    right = found_auc(finished_run, pictures)
    assert right > 0.6
    rewrite(pictures, diagnosis=diagnosis(pictures, {"sick": "mole", "benign": "zebra"}))
    other = pictures.rename(pictures.parent / "other")
    assert evaluate(finished_run, other) == 2
    said = words_of(capsys.readouterr().err)
    assert "expected the label names of the run, 'benign' for 0 and 'sick' for 1" in said
    assert "'mole' and 'zebra'" in said
    assert evaluate(finished_run, other, "--positive-label=mole") == 0
    assert found_auc(finished_run, other) == pytest.approx(right, abs=1e-6)
    turned = other.rename(pictures.parent / "turned")
    assert evaluate(finished_run, turned, "--positive-label=zebra") == 0
    assert found_auc(finished_run, turned) == pytest.approx(1 - right, abs=1e-6)
    assert "wholly below one half" in words_of(capsys.readouterr().out)


def test_the_runs_own_words_cannot_be_turned_round(
    finished_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(finished_run, pictures, "--positive-label=benign") == 2
    assert "'sick', which is label 1 in the run" in words_of(capsys.readouterr().err)


def test_what_stands_behind_external_numbers_is_printed(
    finished_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = pictures.rename(pictures.parent / "few")
    rows = pd.read_csv(few / "metadata.csv").groupby(["diagnosis", "sex"]).head(3)
    rows.assign(person=range(len(rows))).to_csv(few / "metadata.csv", index=False)
    assert evaluate(finished_run, few) == 0
    said = words_of(capsys.readouterr().out)
    record = json.loads((finished_run / "external" / "folder-few" / "run.json").read_text())
    assert record["test"]["min_auc_ci"] is None
    assert "too few for an interval, so none is given for its AUC" in said
    assert all(words_of(warning) in said for warning in record["test"]["warnings"])


def test_an_external_set_of_test_rows_alone_is_scored(finished_run: Path, pictures: Path) -> None:
    rewrite(pictures, part="test")
    assert evaluate(finished_run, pictures, "--split-column=part") == 0
