import json
import shutil
from pathlib import Path

import pytest

from fairtune_hf.reports import tables
from fairtune_hf.reports.loaded_run import read_run


def changed(run, tmp_path, change):
    """Copy a run, let `change` edit its record, and read it."""
    path = Path(shutil.copytree(run, tmp_path / "run"))
    record = json.loads((path / "run.json").read_text())
    change(record)
    (path / "run.json").write_text(json.dumps(record))
    return read_run(path)


def test_methods_show_value_interval_and_seeds(evaluated):
    folder = read_run(evaluated)
    rows = tables.method_rows(folder.record, "test")
    assert [row.key for row in rows] == ["fairtune", "full_blocks", "linear_readout"]
    cell = rows[0].cells[list(tables.METRICS).index("min_auc")]
    run = json.loads((evaluated / "run.json").read_text())
    test, seeds = run["test"], [seed["test"]["min_auc"] for seed in run["seeds"]]
    assert cell.value == f"{test['min_auc']:.3f}"
    assert cell.interval == "{:.3f} to {:.3f}".format(*test["min_auc_ci"])
    low, high = min(seeds), max(seeds)
    assert cell.seeds == f"{sum(seeds) / 3:.3f} ({low:.3f}\u2013{high:.3f})"
    assert rows[2].detail == "0 of 36 parts trained\nrate 0.0003"


def test_groups_follow_the_order_of_the_data_set(evaluated):
    names = [row.name for row in tables.group_rows(read_run(evaluated), "test")]
    assert names == ["light", "medium", "dark"]


def test_people_are_counted_not_pictures(evaluated, tmp_path):
    """Twelve pictures of six patients are a group of six."""
    folder = read_run(evaluated)
    dark = folder.predictions["skin_type"].eq("dark")
    few = folder.predictions["patient"].rank(method="dense").mod(6).where(dark)
    patients = folder.predictions["patient"].mask(dark, few.fillna(0).astype("int64"))
    path = Path(shutil.copytree(evaluated, tmp_path / "run"))
    folder.predictions.assign(patient=patients).to_parquet(path / "predictions.parquet")
    rows = {row.name: row for row in tables.group_rows(read_run(path), "test")}
    dark, medium, light = rows["dark"], rows["medium"], rows["light"]
    assert (dark.people, dark.n, dark.positives) == ("<10", "<10", "<10")
    auc = folder.result("test").groups["dark"].auc
    assert dark.cells[0].value == f"{auc:.3f}", "the headline is made of it"
    assert {medium.people, medium.n, medium.positives} == {"not shown"}, "else the total tells"
    assert light.n == "240"


def test_data_counts_by_group(evaluated, tmp_path):
    counts = {
        "train": {
            "light": {"n": 500, "positives": 200, "n_patients": 300},
            "medium": {"n": 90, "positives": 40, "n_patients": 50},
            "dark": {"n": 30, "positives": 12, "n_patients": 9},
        }
    }
    folder = changed(evaluated, tmp_path, lambda r: r["dataset"].update(counts=counts))
    rows = dict(tables.data_rows(folder))
    test = folder.result("test").groups
    assert rows["light"][0] == "500 (200)"
    assert rows["dark"][0] == "<10"
    assert rows["medium"][0] == "not shown"
    assert rows["medium"][2] == f"{test['medium'].n} ({test['medium'].positives})"


def test_a_searched_run_has_the_group_counts_of_its_data_set_alone(searched, tmp_path):
    assert [name for name, _ in tables.data_rows(read_run(searched))] == ["light", "medium", "dark"]
    folder = changed(searched, tmp_path, lambda record: record["dataset"].pop("counts"))
    assert tables.data_rows(folder) == []


def test_what_reproduces_is_listed_without_folders(evaluated, tmp_path):
    def change(record):
        record["model"]["id"] = "/home/someone/models/my_vit"
        record["dataset"]["options"]["splits_file"] = "~/private/splits.csv"

    rows = dict(tables.reproduce_rows(changed(evaluated, tmp_path, change)))
    assert rows["Base model"] == "my_vit"
    assert rows["Data option: splits_file"] == "splits.csv"
    assert rows["Choice: schedule"] == "cosine"
    assert rows["Version: torch"] == "2.15.0"
    assert not any(name.startswith("Choice: bit names") for name in rows)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("/home/a/b.csv", "b.csv"),
        ("read '/home/a/b.csv' twice", "read 'b.csv' twice"),
        ("C:\\Users\\me\\b.csv", "b.csv"),
        ("~/x/y", "y"),
        ("org/name", "org/name"),
        ("https://host/a/b", "https://host/a/b"),
        ("1/2", "1/2"),
        ({"a": ["/x/y/z"], "b": 3}, {"a": ["z"], "b": 3}),
    ],
)
def test_folders_are_cut_off(words, shown):
    assert tables.without_folders(words) == shown


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ("google/vit-base-patch16-224", True),
        ("resnet", True),
        ("/home/x/vit", False),
        ("./vit", False),
        ("a/b/c", False),
        ("~/vit", False),
        ("a b/c", False),
        ("", False),
    ],
)
def test_hub_ids(identity, expected):
    assert tables.is_hub_id(identity) is expected
