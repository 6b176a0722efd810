"""`fairtune predict`: what may be given, what is written, what is refused and with which exit code."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairtune_hf.cli.main import main
from tests.inference.mixed import own_scores


@pytest.fixture
def predict(run: Path) -> Callable[..., int]:
    return lambda *words: main(["predict", *map(str, words), f"--run={run}", "--device=cpu"])


def test_files_and_folders_are_scored_as_the_run_did(
    predict: Callable[..., int], run: Path, mixed: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    files, right = own_scores(run, mixed)
    _, other = own_scores(run, mixed, seed=1)
    told = dict(zip(map(str, files), right, strict=True))
    frames = {}
    for suffix, read in (
        ("csv", pd.read_csv),
        ("tsv", lambda file: pd.read_csv(file, sep="\t")),
        ("parquet", pd.read_parquet),
    ):
        out = tmp_path / f"scores.{suffix}"
        assert predict(mixed, "--out", out) == 0
        frames[suffix] = read(out).set_index("file")
        scores = frames[suffix].loc[list(told), "score"]
        np.testing.assert_allclose(scores, right, rtol=0, atol=1e-6)
    assert len(frames["csv"]) == 60
    said = capsys.readouterr().err
    assert "Left out, not pictures by their names: metadata.csv" in said
    assert "'ill' is called from 0.5 on" in said
    rows = frames["csv"].loc[list(told)]
    both = np.stack([right, other])
    np.testing.assert_allclose(rows["score_seed_1"], other, rtol=0, atol=1e-6)
    np.testing.assert_allclose(rows["score_mean"], both.mean(axis=0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(rows["score_spread"], both.std(axis=0, ddof=1), atol=1e-6)


def test_json_holds_what_belongs_to_the_model(
    predict: Callable[..., int], mixed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.json"
    # A switch before a file, and files before and after flags.
    assert predict(mixed / "p00.png", "--strict", mixed / "p05.dcm", "--out", out) == 0
    told = json.loads(out.read_text())
    assert [Path(row["file"]).name for row in told["predictions"]] == ["p00.png", "p05.dcm"]
    assert told["model"]["id2label"] == {"0": "well", "1": "ill"}
    assert told["threshold"] == told["model"]["operating_point"]["threshold"] == 0.5
    assert told["model"]["groups"].keys() == {"F", "M"}


def test_a_table_keeps_its_columns_and_is_scored_in_its_order(
    predict: Callable[..., int], run: Path, mixed: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    rows = pd.read_csv(mixed / "metadata.csv").iloc[::-1].rename(columns={"finding": "label"})
    table = tmp_path / "people.csv"
    rows.assign(picture=[mixed / name for name in rows["file_name"]]).to_csv(table, index=False)
    assert predict("--table", table, "--image-column=picture") == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert found["person"].tolist() == rows["person"].tolist()
    assert found["label"].tolist() == rows["label"].tolist()  # the table's own
    assert set(found["predicted_label"]) <= {"ill", "well"}
    files, right = own_scores(run, mixed)
    own = found.set_index("file_name").loc[[file.name for file in files], "score"]
    np.testing.assert_allclose(own, right, rtol=0, atol=1e-6)


def test_what_cannot_be_read_is_listed_and_ends_only_a_strict_run(
    predict: Callable[..., int], mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, cut = tmp_path / "note.png", tmp_path / "cut.jpg"
    bad.write_text("no picture")
    cut.write_bytes((mixed / "p01.jpg").read_bytes()[:3000])
    out = tmp_path / "scores.csv"
    given = [bad, mixed / "p01.jpg", cut, tmp_path / "absent.png"]
    assert predict(*given, "--out", out) == 0
    said = capsys.readouterr().err
    for file in (bad, cut, tmp_path / "absent.png"):
        assert f"Cannot be read: {file} " in said
    assert "3 of 4 pictures cannot be read" in said
    found = pd.read_csv(out)
    assert found["score"].notna().tolist() == [False, True, False, False]
    assert found["error"].notna().tolist() == [True, False, True, True]
    before = out.read_bytes()
    assert predict(*given, "--out", out, "--strict") == 2
    assert "3 of 4 are not" in capsys.readouterr().err.replace("\n", " ")
    assert out.read_bytes() == before
    assert predict(bad) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_bad_input_is_refused_before_the_model_is_loaded(
    run: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(mixed / "p00.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").touch()
    nowhere = ["--run", str(tmp_path / "no" / "run")]
    for words, told in (
        ([picture], "--run: expected the folder of a run, or --model"),
        ([picture, *nowhere, "--model", "a/b"], "not both; got both"),
        (nowhere, "PICTURES: expected files or folders"),
        ([picture, *nowhere, "--out", "scores.xls"], "ends in .csv, .tsv, .parquet, .json"),
        ([str(tmp_path / "empty"), *nowhere], "expected pictures in the folder"),
        (["--table", str(mixed / "metadata.csv"), "--image-column=file", *nowhere], "'file_name'"),
        (["--table", str(tmp_path / "t.csv"), *nowhere], "is not there"),
        ([picture, *nowhere], "there is no folder"),
        ([picture, *nowhere, "--batch-size=0"], "--batch-size: expected 1 or more"),
        ([picture, *nowhere, "--thresold=1"], "--threshold"),
        ([picture, *nowhere, "--device=abacus"], "device: expected cpu"),
        ([picture, *nowhere, f"--out={tmp_path}/a.csv/b.csv"], "may be written to"),
        ([picture, f"--run={mixed}"], "expected the folder of an earlier step"),
    ):
        assert main(["predict", *words]) == 2, words
        assert told in capsys.readouterr().err.replace("\n", " "), words


def test_a_threshold_may_be_given_and_one_seed_alone_has_no_spread(
    run: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = shutil.copytree(run / "adapter", tmp_path / "adapter")
    words = ["predict", "--model", str(alone), "--device=cpu", "--threshold", "0"]
    assert main([*words, str(mixed / "p00.png")]) == 0
    out, said = capsys.readouterr()
    assert list(pd.read_csv(io.StringIO(out)).columns) == ["file", "score", "label", "warnings"]
    assert out.splitlines()[1].split(",")[2] == "ill"
    assert "'ill' is called from 0 on, as was asked" in said
    assert "the refit with seed 0;" in said


def test_pictures_unlike_the_training_pictures_are_counted(
    predict: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        Image.new("RGB", (10, 10), (120, 90, 60)).save(tmp_path / f"{number}.png")
    assert predict(tmp_path, "--out", tmp_path / "scores.csv") == 0
    said = capsys.readouterr().err
    assert "Warning: 3 of 3 pictures are unlike the training pictures: the shorter side in" in said
    words = pd.read_csv(tmp_path / "scores.csv")["warnings"]
    assert words.str.contains("is 10, in training 96 to 480").all()
