"""A run knows what it is of: what changed since it began is refused in words, what may change is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from fairtune_hf.cli.main import main
from fairtune_hf.data import load_dataset_table
from fairtune_hf.search import SearchArguments, search_masks
from fairtune_hf.training import FitArguments, RunFolder, load_backbone
from tests.conftest import draw_folder, name_columns

FIT = ["--epochs=1", "--batch-size=16", "--learning-rate-max=0.01", "--top-k=0"]


class Case:
    """A finished run beside its data and its model, all in one folder that a test may change."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.pictures, self.vit, self.run = home / "pictures", home / "vit", home / "run"

    def move_to(self, place: Path) -> Case:
        moved = Case(Path(shutil.copytree(self.home, place)))
        moved.set(data_root=str(moved.pictures), model=str(moved.vit))
        return moved

    def set(self, **settings: object) -> None:
        config = yaml.safe_load((self.run / "config.yaml").read_text())
        (self.run / "config.yaml").write_text(yaml.safe_dump(config | settings, sort_keys=False))

    def search(self, trials: int, *more: str) -> int:
        words = ["search", *name_columns(self.pictures), f"--model={self.vit}", *FIT]
        return main([*words, f"--trials={trials}", f"--out={self.run}", *more])

    def finetune(self, seeds: int = 1) -> int:
        return main(["finetune", f"--run={self.run}", f"--seeds={seeds}"])

    def evaluate(self, *more: str) -> int:
        return main(["evaluate", f"--run={self.run}", "--resamples=50", *more])

    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.pictures / "metadata.csv")

    def write(self, table: pd.DataFrame) -> None:
        table.to_csv(self.pictures / "metadata.csv", index=False)

    def files(self) -> dict[str, bytes]:
        found = (p for p in self.run.rglob("*") if p.is_file())
        return {str(p.relative_to(self.run)): p.read_bytes() for p in found}


@pytest.fixture(scope="module")
def finished(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    case = Case(tmp_path_factory.mktemp("of") / "home")
    draw_folder(case.pictures)
    shutil.copytree(tiny_vit, case.vit)
    assert case.search(2) == 0
    assert case.finetune() == 0
    assert case.evaluate() == 0
    return case


@pytest.fixture
def case(finished: Case, tmp_path: Path) -> Case:
    return finished.move_to(tmp_path / "home")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.err + captured.out).split())


def flip_labels(case: Case) -> str:
    table = case.table()
    rows = table.index[::3]
    table.loc[rows, "diagnosis"] = table.loc[rows, "diagnosis"].map(
        {"sick": "benign", "benign": "sick"}
    )
    case.write(table)
    return f"the labels of {len(rows)} rows changed"


def drop_rows(case: Case) -> str:
    case.write(case.table().drop(index=[0, 3, 6, 110]))
    return "4 rows gone"


def add_row(case: Case) -> str:
    table = case.table()
    name = table.loc[0, "file_name"]
    Image.open(case.pictures / name).rotate(90).save(case.pictures / "more.png")
    case.write(pd.concat([table, table.iloc[[0]].assign(file_name="more.png")]))
    return "1 row new"


def merge_patients(case: Case) -> str:
    table = case.table()
    table.loc[table["person"] == 2, "person"] = 0
    case.write(table)
    return "the patients of 3 rows changed"


def change_group(case: Case) -> str:
    table = case.table()
    table.loc[table["person"] == 5, "sex"] = "M"
    case.write(table)
    return "the groups of 'sex' of 3 rows changed"


def move_to_test(case: Case) -> str:
    table = case.table()
    table.loc[table["person"] == 3, "part"] = "test"
    case.write(table)
    return "the splits of 3 rows changed"


def swap_pictures(case: Case) -> str:
    one, other = (case.pictures / name for name in case.table()["file_name"].iloc[[0, 179]])
    pixels = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(pixels)
    return "the pictures of 2 rows changed"


def rename_label(case: Case) -> str:
    case.write(case.table().replace({"diagnosis": {"sick": "ill"}}))
    return "label names ['benign', 'ill'], was ['benign', 'sick']"


def turn_round(case: Case) -> str:
    case.write(case.table()[::-1])
    return "the same rows in another order"


def other_weights(case: Case) -> str:
    torch.manual_seed(1)
    file = case.vit / "model.safetensors"
    changed = {k: v + 0.3 * torch.randn_like(v) for k, v in load_file(file).items()}
    save_file(changed, file, metadata={"format": "pt"})
    return "other weights"


def other_mean(case: Case) -> str:
    processor = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.1, 0.2, 0.3]}
    size = {"size": {"height": 32, "width": 32}, "image_std": [0.5, 0.5, 0.5]}
    (case.vit / "preprocessor_config.json").write_text(json.dumps(processor | size))
    return "model image_mean [0.1, 0.2, 0.3], was [0.5, 0.5, 0.5]"


def other_activation(case: Case) -> str:
    file = case.vit / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "hidden_act": "relu"}))
    return "model config.hidden_act relu, was gelu"


CHANGES = [flip_labels, swap_pictures, other_weights]
MORE_CHANGES = [
    drop_rows, add_row, merge_patients, change_group, move_to_test, rename_label, turn_round,
    other_mean, other_activation,
]  # fmt: skip


def slow(case: object) -> object:
    return pytest.param(case, marks=pytest.mark.slow)


@pytest.mark.parametrize("change", [*CHANGES, *map(slow, MORE_CHANGES)])
def test_a_search_or_refit_of_something_else_is_refused_in_words(
    case: Case, change: Callable[[Case], str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = change(case)
    before = case.files()
    steps = {
        "more trials": lambda: case.search(3),
        "a finished search": lambda: case.search(2),
        "more refits": lambda: case.finetune(2),
        "finished refits": lambda: case.finetune(1),
    }
    for name, step in steps.items():
        assert step() == 2, name
        told = said(capsys)
        assert words in told, name
        assert "begin a new run in another folder" in told
    assert case.files() == before


EDITS = {
    "batch_size": 64, "schedule": "constant", "seed": 5, "class_weight": "inverse_share",
    "transforms": "none", "precision": "bf16", "weight_decay": 0.1, "epochs": 2,
    "training_arguments": '{"max_grad_norm": 0.5}', "objective": "overall_auc",
}  # fmt: skip


@pytest.mark.parametrize("name", ["seed", *(slow(name) for name in EDITS if name != "seed")])
def test_an_edited_config_is_refused_by_every_later_step(
    case: Case, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    case.set(**{name: EDITS[name]})
    run = f"--run={case.run}"
    before = case.files()
    for words in (
        ["finetune", run, "--seeds=1"], ["evaluate", run], ["report", run], ["card", run],
        ["push", run, "--repo-id=me/it", "--dry-run"],
        ["evaluate", run, *name_columns(case.pictures)],
    ):  # fmt: skip
        assert main([w for w in words if not w.startswith("--split")]) == 2, words
        assert f"{name} {EDITS[name]}, was " in said(capsys), words
    assert case.files() == before


@pytest.mark.slow
def test_what_may_change_goes_on(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """The fixture has moved data and model already."""
    case.vit = Path(shutil.move(case.vit, case.home / "elsewhere"))
    case.pictures = Path(shutil.move(case.pictures, case.home / "other pictures"))
    assert case.search(2, "--threads=1") == 0
    assert "nothing to do" in said(capsys)
    assert case.search(3, "--images-on=host") == 0
    assert "earlier release" not in said(capsys)
    assert len(pd.read_csv(case.run / "trials.csv")) == 3
    assert case.finetune(1) == 0
    assert case.evaluate() == 0


@pytest.mark.slow
def test_a_prepared_folder_of_the_same_pictures_is_the_same_data(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = case.home / "prepared"
    words = ["prepare", *name_columns(case.pictures), "--image-size=32", f"--out={prepared}"]
    assert main(words) == 0
    case.pictures = prepared
    assert case.search(2) == 0
    assert "nothing to do" in said(capsys)


@pytest.mark.slow
def test_a_run_of_an_earlier_release_goes_on_and_says_so_once(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("identity.json", "identity.parquet"):
        (case.run / name).unlink()
    capsys.readouterr()
    assert main(["evaluate", f"--run={case.run}", "--resamples=50"]) == 0
    assert case.finetune(2) == 0
    assert "a run of an earlier release" in said(capsys)
    assert case.finetune(2) == 0
    assert "earlier release" not in said(capsys)
    words = flip_labels(case)
    assert case.finetune(3) == 2
    assert words in said(capsys)


def test_what_is_kept_names_no_row_and_no_patient(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.read_parquet(case.run / "identity.parquet")
    assert len(rows) == len(case.table())
    assert rows["patient"].nunique() == case.table()["person"].nunique()
    stored = (case.run / "identity.parquet").read_bytes()
    stored += (case.run / "identity.json").read_bytes()
    assert not [n for n in case.table()["file_name"] if n.encode() in stored]
    assert not set(rows["patient"]) & set(range(60))
    capsys.readouterr()
    words = ["push", f"--run={case.run}", "--repo-id=me/it", "--dry-run", "--with-base"]
    assert main([*words, f"--base-dir={case.vit}"]) == 0
    told = said(capsys)
    assert "adapter_model.safetensors" in told
    assert "identity" not in told


def test_a_damaged_identity_is_not_taken_for_none(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    file = case.run / "identity.json"
    whole = file.read_text()
    for text in ("", "[]", whole[: len(whole) // 2], whole.replace('"batch_size": 16', '"batch_size": 8')):  # fmt: skip
        file.write_text(text)
        assert case.finetune(2) == 2
        assert "identity.json to say what the run is of, and it is damaged" in said(capsys)
    file.write_text(whole)
    (case.run / "identity.parquet").write_bytes(b"")
    flip_labels(case)
    assert case.finetune(2) == 2
    assert "other labels" in said(capsys)


@pytest.mark.slow
def test_a_comparison_of_something_else_is_refused(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    out = case.home / "compared"
    words = ["compare", "--methods=linear_readout", *name_columns(case.pictures)]
    words += [f"--model={case.vit}", "--trials=1", "--epochs=1", "--batch-size=16", "--seeds=1"]
    words += ["--resamples=50", f"--out={out}"]
    assert main(words) == 0
    told = flip_labels(case)
    capsys.readouterr()
    assert main(words) == 2
    assert told in said(capsys)


@pytest.mark.slow
def test_another_machine_joins_a_shared_study_with_the_same_data_alone(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = f"--storage=sqlite:///{case.home}/shared.db"
    case.run = case.home / "first"
    assert case.search(1, shared) == 0
    case.run = case.home / "second"
    assert case.search(2, shared) == 0
    assert len(pd.read_csv(case.run / "trials.csv")) == 2
    flip_labels(case)
    case.run = case.home / "third"
    capsys.readouterr()
    assert case.search(3, shared) == 2
    assert "other labels" in said(capsys)
    assert not case.run.exists()


@pytest.mark.slow
def test_overwriting_compares_nothing(case: Case) -> None:
    flip_labels(case)
    assert case.search(1, "--overwrite") == 0
    assert case.search(2) == 0


@pytest.mark.slow
def test_python_callers_are_refused_too(case: Case) -> None:
    def search(**fit: int) -> None:
        table = load_dataset_table(
            "folder", case.pictures, image_size=32, label_column="diagnosis", sensitive_column="sex",
            patient_column="person", split_column="part", splits=("train", "validation"),
            progress=False,
        )  # fmt: skip
        search = SearchArguments(trials=1, top_k=0)
        training = FitArguments(**{"epochs": 1, "batch_size": 16, **fit})
        folder = RunFolder(case.home / "by python")
        search_masks(table, load_backbone(case.vit), folder, search, training)

    search()
    search()
    with pytest.raises(ValueError, match=r"batch_size 32, was 16"):
        search(batch_size=32)
    words = swap_pictures(case)
    with pytest.raises(ValueError, match=words):
        search()


def external_folder(case: Case, seed: int = 7, **columns: object) -> Path:
    root = draw_folder(case.home / "external", seed=seed)
    table = pd.read_csv(root / "metadata.csv").assign(**columns)
    table.to_csv(root / "metadata.csv", index=False)
    return root


def test_an_external_test_on_the_runs_own_rows_is_refused(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other names, other ids, another lossless format: the pixels are what counts."""
    root = external_folder(case)
    own = case.table()
    own = own[own["part"] == "validation"].head(9)
    rows = []
    for number, (name, diagnosis) in enumerate(
        zip(own["file_name"], own["diagnosis"], strict=True)
    ):
        Image.open(case.pictures / name).save(root / f"copy{number}.bmp")
        rows.append((f"copy{number}.bmp", diagnosis, "FM"[number % 2], f"x{number}", "train"))
    table = pd.read_csv(root / "metadata.csv")
    table = pd.concat([table, pd.DataFrame(rows, columns=table.columns)])
    table.to_csv(root / "metadata.csv", index=False)
    assert case.evaluate(*name_columns(root)) == 2
    assert "9 of its pictures are among its training or validation rows" in said(capsys)
    assert not (case.run / "external").exists()
    assert case.evaluate(*name_columns(root), "--allow-overlap") == 0
    told = said(capsys)
    assert "external: folder, NOT INDEPENDENT: 9 of its pictures were in training" in told
    record = json.loads(next((case.run / "external").glob("*/run.json")).read_text())
    assert "NOT INDEPENDENT" in record["dataset"]["external"]


@pytest.mark.slow
def test_test_rows_of_the_run_and_new_pictures_are_no_overlap(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    root = external_folder(case)
    assert case.evaluate(*name_columns(root)) == 0
    told = said(capsys)
    assert "external: folder, groups by sex" in told
    # The persons of both are numbered from 0, which says nothing of a person.
    assert "48 patient ids also stand in the run's training or validation rows" in told


@pytest.mark.slow
def test_patients_that_the_run_has_seen_are_refused(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids of one register, far from counting up; half of them are in both tables."""
    rng = np.random.default_rng(0)
    register = rng.choice(9_000_000, 90, replace=False) + 1_000_000
    own = case.table()
    case.write(own.assign(person=[f"MRN-{register[p]}" for p in own["person"]]))
    case.run = case.home / "again"
    assert case.search(1) == 0
    assert case.finetune() == 0
    root = external_folder(case)
    other = pd.read_csv(root / "metadata.csv")
    other["person"] = [f"MRN-{register[p + 30]}" for p in other["person"]]
    other.to_csv(root / "metadata.csv", index=False)
    capsys.readouterr()
    assert case.evaluate(*name_columns(root)) == 2
    assert "and 18 of its patients are among its training or validation" in said(capsys)
    renamed = other.rename(columns={"person": "subject"})
    renamed.to_csv(root / "metadata.csv", index=False)
    flags = [f.replace("column=person", "column=subject") for f in name_columns(root)]
    assert case.evaluate(*flags) == 0
    assert "patients were not compared" in said(capsys)
