"""Each bad input: the message, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fairtune_hf.cli import search, stored_run
from fairtune_hf.cli.main import main

Damage = Callable[[Path], list[str]]


def base_flags(root: Path) -> dict[str, str]:
    return {
        "dataset": "folder",
        "data-root": str(root),
        "label-column": "diagnosis",
        "sensitive-column": "sex",
        "patient-column": "person",
        "split-column": "part",
    }


def change_table(root: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_csv(root / "metadata.csv")).to_csv(root / "metadata.csv", index=False)


def unknown_dataset(root: Path, flags: dict[str, str]) -> None:
    flags["dataset"] = "ham1000"


def unknown_column(root: Path, flags: dict[str, str]) -> None:
    flags["label-column"] = "diagnosys"


def unknown_attribute(root: Path, flags: dict[str, str]) -> None:
    flags["sensitive"] = "sexx"


def unknown_flag(root: Path, flags: dict[str, str]) -> None:
    flags["trails"] = "3"


def data_folder_absent(root: Path, flags: dict[str, str]) -> None:
    flags["data-root"] = str(root / "nowhere")


def data_folder_empty(root: Path, flags: dict[str, str]) -> None:
    empty = root / "empty"
    empty.mkdir()
    flags["data-root"] = str(empty)


def undecodable_picture(root: Path, flags: dict[str, str]) -> None:
    (root / "p003_1.png").write_bytes(b"this is no picture")


def undecodable_test_picture(root: Path, flags: dict[str, str]) -> None:
    (root / "p059_2.png").write_bytes(b"this is no picture")


def one_class(root: Path, flags: dict[str, str]) -> None:
    change_table(root, lambda t: t.assign(diagnosis="benign"))


def three_classes(root: Path, flags: dict[str, str]) -> None:
    change_table(root, lambda t: t.assign(diagnosis=["a", "b", "c"] * (len(t) // 3)))


def group_with_one_class(root: Path, flags: dict[str, str]) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        women = (table["part"] == "validation") & (table["sex"] == "F")
        table.loc[women, "diagnosis"] = "benign"
        return table

    change_table(root, change)


def empty_split(root: Path, flags: dict[str, str]) -> None:
    change_table(root, lambda t: t[t["part"] != "train"])


def wrong_mask(root: Path, flags: dict[str, str]) -> None:
    flags |= {"mask": "101", "learning-rate": "0.001"}


CASES = [
    ("a unknown dataset", unknown_dataset, ["ham1000", "ham10000"]),
    ("b unknown column", unknown_column, ["diagnosys", "diagnosis"]),
    ("c unknown attribute", unknown_attribute, ["sexx", "sex"]),
    ("d unknown flag", unknown_flag, ["--trails", "did you mean --trials"]),
    ("e data folder absent", data_folder_absent, ["nowhere"]),
    ("f data folder empty", data_folder_empty, ["empty", "metadata.csv"]),
    ("g undecodable picture", undecodable_picture, ["p003_1.png"]),
    ("g undecodable test picture", undecodable_test_picture, ["p059_2.png"]),
    ("h one class", one_class, ["diagnosis", "benign"]),
    ("h three classes", three_classes, ["diagnosis", "a", "b", "c"]),
    ("i group with one class", group_with_one_class, ["F", "validation"]),
    ("j empty split", empty_split, ["train", "empty"]),
    ("l mask of the wrong length", wrong_mask, ["mask", "6", "3"]),
]


@pytest.mark.parametrize(("damage", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_bad_input_is_refused_with_a_message_and_nothing_written(
    damage: Callable[[Path, dict[str, str]], None],
    words: list[str],
    pictures: Path,
    tiny_vit: Path,
    tmp_path: Path,
    own_picture_cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = base_flags(pictures)
    damage(pictures, flags)
    out = tmp_path / "out"

    def files() -> list[Path]:
        return sorted([*tmp_path.rglob("*"), *own_picture_cache.rglob("*")])

    before = files()
    command = "finetune" if "mask" in flags else "search"
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    code = main([command, *arguments, f"--model={tiny_vit}", "--epochs=1", f"--out={out}"])
    message = capsys.readouterr().err
    assert code == 2
    flat = " ".join(message.split())
    for word in words:
        assert word in flat, message
    assert "Traceback" not in message
    assert not out.exists()
    assert files() == before


def test_unknown_yaml_key_is_refused_with_the_closest_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("dataset: demo\nlerning_rate_max: 1.0e-3\n")
    assert main(["search", f"--config={recipe}", f"--out={tmp_path / 'out'}"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "lerning_rate_max (did you mean learning_rate_max?)" in message
    assert not (tmp_path / "out").exists()


def test_folder_of_a_different_run_is_refused_and_left_alone(
    finished_run: Path, pictures: Path, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished_run.rglob("*")}
    flags = [f"--{n}={v}" for n, v in base_flags(pictures).items()]
    code = main(["search", *flags, f"--model={tiny_vit}", "--epochs=5", f"--out={finished_run}"])
    message = " ".join(capsys.readouterr().err.split())
    assert code == 2
    assert "holds a different run" in message
    assert "epochs was 2, now 5" in message
    assert {p: p.stat().st_mtime_ns for p in finished_run.rglob("*")} == before


def test_folder_with_other_files_is_refused(
    pictures: Path, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--{n}={v}" for n, v in base_flags(pictures).items()]
    code = main(["search", *flags, f"--model={tiny_vit}", "--overwrite", f"--out={pictures}"])
    assert code == 2
    assert "holds other files" in " ".join(capsys.readouterr().err.split())
    assert (pictures / "metadata.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serch"], "Did you mean search?"),
        (["search", "--trials=0"], "--trials: expected at least 1, got 0"),
        (["search", "--trials=many"], "invalid int value"),
        (["search", "--objective=auc"], "got 'auc'. Did you mean min_auc?"),
        (["search", "--epochs=0"], "--epochs: expected a whole number of at least 1, got 0"),
        (["search", "--learning-rate-min=1"], "expected 0 < min < max"),
        (["search", '--training-arguments={"max_grad_nrm": 1}'], "Did you mean 'max_grad_norm'?"),
        (["search", '--training-arguments={"seed": 1}'], "decided by the run"),
        (["search", "--training-arguments=3"], "expected a JSON object, got '3'"),
        (["search", "--training-arguments=null"], "expected a JSON object, got 'null'"),
        (["search", '--training-arguments={"max_steps": 9}'], "max_steps is decided by the run"),
        (
            ["search", '--training-arguments={"max_grad_norm": "x"}'],
            'expected a number for max_grad_norm, got "x"',
        ),
        (
            ["search", '--training-arguments={"use_cpu": 1}'],
            "expected true or false for use_cpu, got 1",
        ),
        (
            ["search", '--training-arguments={"optim": "adamm"}'],
            "expected optim among adamw_torch_fused,",
        ),
        (["search", "--config=nowhere.yaml"], "there is no file nowhere.yaml"),
        (["search", "--model=./nowhere"], "there is no folder ./nowhere"),
        (["finetune"], "expected the folder of a search"),
        (["finetune", "--run=nowhere"], "with a run.json in it; nowhere has none"),
        (["finetune", "--run=nowhere", "--epochs=3"], "--epochs: with --run"),
        (["evaluate"], "expected the folder of an earlier step, got none"),
        (["report", "--run=nowhere"], "nowhere has none"),
    ],
)
def test_bad_flags(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = [*arguments, f"--out={tmp_path / 'out'}"] if arguments[0] == "search" else arguments
    assert main(arguments) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_search_without_refit_cannot_be_evaluated(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_bytes((finished_run / "run.json").read_bytes())
    assert main(["evaluate", f"--run={tmp_path}"]) == 2
    assert "Run `fairtune finetune --run" in " ".join(capsys.readouterr().err.split())


def test_other_data_cannot_be_scored_without_an_adapter(
    finished_run: Path,
    folder_flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And nothing is loaded to find it out."""
    monkeypatch.setattr(stored_run, "load_model", lambda model: pytest.fail("loaded"))
    for name in ("run.json", "config.yaml"):
        (tmp_path / name).write_bytes((finished_run / name).read_bytes())
    assert main(["evaluate", f"--run={tmp_path}", *folder_flags]) == 2
    assert "expected an adapter in" in " ".join(capsys.readouterr().err.split())


def test_a_storage_that_does_not_answer_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def plan(arguments: list[str]) -> Callable[[], None]:
        raise ConnectionError("--storage: expected a database that answers")

    monkeypatch.setattr(search, "plan", plan)
    assert main(["search"]) == 2
    said = capsys.readouterr().err
    assert "fairtune search: --storage: expected a database that answers" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["search", "compare"])
def test_a_bound_of_an_objective_needs_patients_in_validation(
    command: str,
    pictures: Path,
    tiny_vit: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    flags = [f"--{n}={v}" for n, v in base_flags(pictures).items()]
    words = ["--objective=min_auc_lcb", f"--model={tiny_vit}", "--epochs=1", "--trials=1"]
    assert main([command, *flags, *words, f"--out={out}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "at least 5 validation patients with and without the label behind min_auc_lcb" in said
    assert "Choose min_auc itself" in said
    assert not out.exists()


def test_a_layout_with_bits_of_parts_that_the_model_has_not_is_refused(
    pictures: Path, tiny_vit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attention": "attention"}
    pattern = json.dumps({"block": "vit.layers.*", **parts})
    out = tmp_path / "out"
    flags = [f"--{n}={v}" for n, v in base_flags(pictures).items()]
    words = [f"--block-pattern={pattern}", f"--model={tiny_vit}", f"--out={out}"]
    assert main(["search", *flags, *words]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "no parameter for blocks.0.mlp, blocks.1.mlp. Set these bits to 0" in said
    assert not out.exists()
