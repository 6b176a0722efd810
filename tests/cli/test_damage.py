"""Damaged files of a run: noticed by whoever reads them, mended by the step that makes them, never pushed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from fairtune_hf.cli.main import main
from fairtune_hf.run_folder import RunFolder

Damage = Callable[[Path], object]


def put_nan(file: Path) -> None:
    tensors = load_file(file)
    name = min(tensors)
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[0] = torch.nan
    save_file(tensors, file)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove_folder(file: Path) -> None:
    shutil.rmtree(file.parent)


DAMAGES: list[tuple[str, Damage]] = [
    ("adapter/adapter_model.safetensors", Path.unlink),
    ("adapter/adapter_model.safetensors", remove_folder),
    ("adapter/adapter_model.safetensors", cut),
    ("adapter/adapter_model.safetensors", lambda file: file.write_bytes(b"")),
    ("adapter/adapter_model.safetensors", put_nan),
    ("adapter/adapter_model.safetensors", flip),
    ("adapter/adapter_config.json", Path.unlink),
    ("adapter/adapter_config.json", cut),
]


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may damage."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def push(tiny_vit: Path) -> list[str]:
    return ["push", "--repo-id=o/n", "--dry-run", "--with-base", f"--base-dir={tiny_vit}"]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def require_same(run: Path, whole: Path) -> None:
    """Compare all that a run has found with another's, without what it cost."""
    for name in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        for part in (".", "controls/full_blocks"):
            assert (run / part / name).read_bytes() == (whole / part / name).read_bytes()
    for part in (".", "controls/full_blocks"):
        found, wanted = (pd.read_parquet(f / part / "predictions.parquet") for f in (run, whole))
        pd.testing.assert_frame_equal(found, wanted)
    records = [json.loads((f / "run.json").read_text()) for f in (run, whole)]
    for record in records:
        for held in (record, *record["methods"].values(), *record["controls"].values()):
            del held["cost"]
    assert records[0] == records[1]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_damaged_adapter_is_not_pushed_nor_used_and_is_mended(
    name: str,
    damage: Damage,
    run: Path,
    finished_run: Path,
    push: list[str],
    folder_flags: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(run / name)
    assert main([*push, f"--run={run}"]) == 2
    words = said(capsys)
    assert f"expected an adapter in {run / 'adapter'}" in words
    assert f"fairtune finetune --run {run}" in words
    assert main(["evaluate", f"--run={run}", *folder_flags, "--allow-overlap"]) == 2
    assert f"expected an adapter in {run / 'adapter'}" in said(capsys)
    assert main(["finetune", f"--run={run}", "--seeds=2"]) == 0
    assert f"The adapter in {run / 'adapter'} is trained again" in said(capsys)
    require_same(run, finished_run)
    assert main(["finetune", f"--run={run}", "--seeds=2"]) == 0
    assert "nothing to do" in said(capsys)
    assert main([*push, f"--run={run}"]) == 0


@pytest.mark.parametrize(("name", "damage"), [DAMAGES[2], DAMAGES[4]])
def test_a_controls_adapter_is_mended_too(
    name: str, damage: Damage, run: Path, finished_run: Path
) -> None:
    damage(run / "controls" / "full_blocks" / name)
    assert main(["finetune", f"--run={run}", "--seeds=2"]) == 0
    require_same(run, finished_run)


@pytest.mark.parametrize("part", [".", "controls/full_blocks"])
@pytest.mark.parametrize("damage", [Path.unlink, cut, lambda file: file.write_bytes(b"")])
def test_damaged_predictions_are_refused_and_made_again(
    part: str,
    damage: Damage,
    run: Path,
    finished_run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(run / part / "predictions.parquet")
    assert main(["evaluate", f"--run={run}"]) == 2
    assert "fairtune finetune --run" in said(capsys)
    assert main(["finetune", f"--run={run}", "--seeds=2"]) == 0
    require_same(run, finished_run)


def test_an_evaluation_that_no_longer_holds_is_dropped(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunFolder(run).editing() as record:
        record.own.seeds[0].test.values["overall_auc"] = 0.123
    (run / "predictions.parquet").unlink()
    assert main(["finetune", f"--run={run}", "--seeds=2"]) == 0
    assert "its earlier evaluation was dropped" in said(capsys)
    assert json.loads((run / "run.json").read_text())["test"] is None


def test_an_adapter_of_an_older_choice_is_not_used_on_other_data_nor_pushed(
    run: Path, push: list[str], folder_flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with RunFolder(run).editing() as record:
        record.choice.mask = "".join("10"[int(bit)] for bit in record.choice.mask)
    for words in (["evaluate", *folder_flags, "--allow-overlap"], push):
        assert main([*words, f"--run={run}"]) == 2
        assert "missing or of another choice" in said(capsys)


def test_an_adapter_of_an_earlier_release_is_looked_at_itself(
    run: Path, push: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its predictions do not note which adapter they are of."""
    frame = pd.read_parquet(run / "predictions.parquet")
    del frame.attrs["adapter"]
    frame.to_parquet(run / "predictions.parquet", index=False)
    assert main([*push, f"--run={run}"]) == 0
    put_nan(run / "adapter" / "adapter_model.safetensors")
    assert main([*push, f"--run={run}"]) == 2
    assert "values that are not finite" in said(capsys)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"choice": []}', "[" * 100_000])
@pytest.mark.parametrize("command", ["finetune", "evaluate", "report", "card", "push"])
def test_a_strange_record_is_bad_input(
    command: str, text: str, run: Path, push: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "run.json").write_text(text)
    words = push if command == "push" else [command]
    assert main([*words, f"--run={run}"]) == 2
    assert f"fairtune search --config {run / 'config.yaml'} --out {run}" in said(capsys)


def test_the_search_that_a_cut_record_advises_writes_it_anew_from_the_study(
    run: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(run / "run.json")
    study = (run / "study.sqlite3").read_bytes()
    assert main(["report", f"--run={run}"]) == 2
    command = said(capsys).split("`fairtune ")[1].split("`")[0]
    assert main(command.split()) == 0
    assert "is damaged and is written anew" in said(capsys)
    assert (run / "study.sqlite3").read_bytes() == study
    found, before = (json.loads((f / "run.json").read_text()) for f in (run, finished_run))
    for part in ("choice", "search", "model", "versions"):
        assert found[part] == before[part]
    for name, entry in found["controls"].items():
        known = {part: held for part, held in entry.items() if held}  # measured it is not
        assert known.items() <= before["controls"][name].items()
        assert known.keys() >= {"mask", "layout", "learning_rate", "epochs"}
    # The refits are those of the choice still: they are measured again and not trained again.
    predictions = (run / "predictions.parquet").read_bytes()
    assert main(["finetune", f"--run={run}", "--seeds=2"]) == 0
    assert (run / "predictions.parquet").read_bytes() == predictions
    assert json.loads((run / "run.json").read_text())["dataset"] == before["dataset"]
    assert main(["finetune", f"--run={run}", "--seeds=2"]) == 0
    assert "nothing to do" in said(capsys)
    assert main(["evaluate", f"--run={run}", "--resamples=200"]) == 0
    assert json.loads((run / "run.json").read_text())["test"] == before["test"]


@pytest.mark.parametrize("command", ["finetune", "evaluate", "report", "card"])
def test_a_search_that_did_not_end_is_said_to_be_unfinished(
    command: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "run.json").unlink()
    assert main([command, f"--run={run}"]) == 2
    words = said(capsys)
    assert f"the one in {run} is not finished (8 of 8 trials have ended)" in words
    assert f"Go on with `fairtune search --config {run / 'config.yaml'} --out {run}`" in words


def test_the_command_that_an_unfinished_search_advises_ends_it(
    run: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "run.json").unlink()
    assert main(["finetune", f"--run={run}"]) == 2
    command = said(capsys).split("Go on with `fairtune ")[1].split("`")[0]
    assert main(command.split()) == 0
    found, before = (json.loads((f / "run.json").read_text()) for f in (run, finished_run))
    assert found["choice"] == before["choice"]


def test_a_comparison_is_told_from_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "methods" / "full").mkdir(parents=True)
    assert main(["report", f"--run={tmp_path}"]) == 2
    assert "holds a comparison. Give one of its methods" in said(capsys)
    assert main(["report", f"--run={tmp_path / 'methods' / 'full'}"]) == 2


def test_test_rows_that_were_scored_are_said_to_be_scored(run: Path) -> None:
    with RunFolder(run).editing() as record:
        record.forget_evaluation()
    assert main(["report", f"--run={run}"]) == 0
    page = (run / "report.html").read_text()
    assert "Test rows are scored and not measured yet" in page
    assert "not read yet" not in page


@pytest.mark.parametrize("command", ["report", "card"])
def test_a_damaged_configuration_is_bad_input(
    command: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "config.yaml").write_text("trials: " + "[" * 20_000)
    assert main([command, f"--run={run}"]) == 2
    assert "nests deeper than 30 levels" in said(capsys)


def test_a_report_goes_where_it_is_asked_to(run: Path, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    assert main(["report", f"--run={run}", f"--out={tmp_path / 'page'}"]) == 0
    assert main(["card", f"--run={run}", f"--out={tmp_path / 'card'}"]) == 0
    assert (tmp_path / "page" / "report.html").is_file()
    assert (tmp_path / "page" / "README.md").read_text() == (
        tmp_path / "card" / "README.md"
    ).read_text()
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_a_dry_run_of_a_push_writes_nothing(run: Path, push: list[str]) -> None:
    (run / "report.html").unlink()
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    assert main([*push, f"--run={run}"]) == 0
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def change_digit(file: Path, after: str = "") -> None:
    """Change the last digit of a file, or the third one after some words: it can still be read."""
    content = bytearray(file.read_bytes())
    digits = [i for i in range(len(content)) if chr(content[i]).isdecimal()]
    place = (
        next(i for i in digits if i > content.index(after.encode()) + 2) if after else digits[-1]
    )
    content[place] ^= 1
    file.write_bytes(content)


def again(run: Path) -> list[str]:
    return ["search", f"--config={run / 'config.yaml'}", f"--out={run}"]


@pytest.mark.parametrize("name", ["trials.csv", "curves.csv"])
def test_a_table_with_a_changed_digit_is_not_shown_and_is_written_anew(
    name: str, run: Path, finished_run: Path, push: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    change_digit(run / name)
    record = (run / "run.json").read_bytes()
    for words in (["report"], ["card"], push):
        assert main([*words, f"--run={run}"]) == 2
        words_said = said(capsys)
        assert f"{run / name} should be a table" in words_said
        assert f"`fairtune search --config {run / 'config.yaml'} --out {run}` writes" in words_said
    assert main(again(run)) == 0
    assert (run / name).read_bytes() == (finished_run / name).read_bytes()
    for part in ("test", "dataset"):
        assert json.loads((run / "run.json").read_text())[part] == json.loads(record)[part]
    assert main(["report", f"--run={run}"]) == 0
    assert main(again(run)) == 0
    assert "nothing to do" in said(capsys)


@pytest.mark.parametrize("where", ["learning_rate", "min_auc", "split_hash"])
def test_a_record_with_a_changed_digit_is_refused_and_the_advice_works(
    where: str, run: Path, push: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads((run / "run.json").read_text())
    change_digit(run / "run.json", f'"{where}": ')
    json.loads((run / "run.json").read_text())  # which is a valid file
    for words in (["finetune"], ["evaluate"], ["report"], ["card"], push):
        assert main([*words, f"--run={run}"]) == 2
    assert main(["report", f"--runs={run}", f"--out={run / 'all'}"]) == 2
    words_said = said(capsys)
    assert "it was damaged or edited" in words_said
    assert main(words_said.split("`fairtune ")[1].split("`")[0].split()) == 0
    for words in (["finetune", "--seeds=2"], ["evaluate", "--resamples=200"]):
        assert main([*words, f"--run={run}"]) == 0
    record = json.loads((run / "run.json").read_text())
    for part in ("choice", "search", "test", "seeds", "comparisons", "verdict"):
        assert record[part] == whole[part]


def test_a_run_of_an_earlier_release_has_no_checksums_and_goes_on(
    run: Path, push: list[str]
) -> None:
    (run / ".checksums.json").unlink()
    for words in (["report"], ["card"], push, ["finetune", "--seeds=2"], ["evaluate"]):
        assert main([*words, f"--run={run}"]) == 0
    change_digit(run / "run.json")  # which evaluate wrote, with its checksum
    assert main(["report", f"--run={run}"]) == 2


def test_a_damaged_record_of_another_data_set_is_made_again(
    run: Path, folder_flags: list[str]
) -> None:
    words = ["evaluate", f"--run={run}", *folder_flags, "--allow-overlap"]
    assert main(words) == 0
    file = next((run / "external").glob("*/run.json"))
    whole = json.loads(file.read_text())
    change_digit(file, '"overall_auc": ')
    assert main(words) == 0
    assert json.loads(file.read_text())["test"] == whole["test"]


@pytest.mark.parametrize("name", ["predictions.parquet", "report.html", "run.json"])
def test_a_folder_in_the_place_of_a_file_is_named_and_left(
    name: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).unlink()
    (run / name).mkdir()
    (run / name / "mine.txt").write_text("kept")
    words = {
        "predictions.parquet": ["finetune", f"--run={run}", "--seeds=2"],
        "report.html": ["report", f"--run={run}"],
        "run.json": again(run),
    }[name]
    assert main(words) == 2
    assert f"expected {run / name} to be a file, and it is a folder" in said(capsys)
    assert (run / name / "mine.txt").read_text() == "kept"
    (run / name).rename(run.parent / "moved")
    assert main(words) == 0


def test_a_finished_search_says_that_its_kept_trial_is_damaged(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(run / "best_trial" / "adapter_model.safetensors")
    assert main(again(run)) == 0
    words = said(capsys)
    assert f"{run / 'best_trial'} cannot be read" in words
    assert "nothing to do" in words
