"""Cost entries: what a trial and a refit leave, and how they add up."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from fairtune_hf.costs import add_costs
from fairtune_hf.training import FitArguments
from fairtune_hf.training.clock import PARTS
from fairtune_hf.training.cost import CostMeter


def entry(**changed: object) -> dict[str, object]:
    cost = {
        "seconds": 10.0,
        "images": 1000,
        "device": "H200",
        "processes": 1,
        "precision": "bf16",
        "compiled": False,
        "peak_memory_gib": 30.0,
        "peak_flops": 8.0e14,
        "operations": 4.0e15,
        "by_part": {"forward": 4.0, "backward": 6.0},
    }
    return {**cost, **changed}


def test_costs_add_up_and_the_rates_follow() -> None:
    more = entry(seconds=30.0, images=2000, operations=8.0e15, peak_memory_gib=40.0)
    found = add_costs([entry(), None, more])
    assert found is not None
    assert found["seconds"] == 40.0
    assert found["images"] == 3000
    assert found["images_per_second"] == 75.0
    assert found["share_of_peak"] == pytest.approx(12.0e15 / 40 / 8.0e14)
    assert found["peak_memory_gib"] == 40.0
    assert found["by_part"] == {"forward": 8.0, "backward": 12.0}


def test_what_differs_between_devices_is_not_invented() -> None:
    found = add_costs([entry(), entry(device="A100", peak_flops=3.0e14, compiled=True)])
    assert found is not None
    assert found["device"] == "H200, A100"
    assert found["peak_flops"] is None
    assert found["share_of_peak"] is None
    assert found["compiled"] is True
    assert add_costs([None]) is None


def test_several_processes_count_all_their_pictures_over_all_their_peaks() -> None:
    meter = CostMeter(torch.device("cpu"), processes=2, settings={"compiled": False})
    meter.count(100, 5.0, training=True)
    meter.count(50, 3.0, training=False)
    found = meter.record()
    assert found["images"] == 200
    assert found["operations"] == 2 * (100 * 5.0 + 50 * 3.0)
    meter.reset()
    assert meter.record()["images"] == 0


def test_the_peak_of_memory_is_the_training_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    device, reset = torch.device("cuda:0"), []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    meter = CostMeter(device)
    assert reset == [device]
    meter.reset()
    assert reset == [device, device]


def test_a_run_records_what_search_and_refits_cost(finished_run: Path) -> None:
    record = json.loads((finished_run / "run.json").read_text())
    trials = pd.read_csv(finished_run / "trials.csv")
    rows = record["dataset"]["rows"]["train"]
    cost = record["cost"]
    assert set(cost) == {"search", "refit"}
    repetitions = pd.read_csv(finished_run / "confirm" / "trials.csv")
    epochs = sum(int(frame["epochs"].sum()) for frame in (trials, repetitions))
    assert cost["search"]["images"] == rows * epochs
    folders = [finished_run, *(finished_run / "controls").iterdir()]
    assert cost["refit"]["images"] % (rows * 2) == 0  # epochs
    assert cost["refit"]["images"] <= rows * 2 * 2 * len(folders)  # seeds; twins are not trained
    for part in cost.values():
        assert set(part["by_part"]) == set(PARTS)
        assert sum(part["by_part"].values()) == pytest.approx(part["seconds"], abs=0.02)
        assert part["precision"] == "fp32"
        assert part["compiled"] is False
    assert "Pictures a second" in (finished_run / "report.html").read_text()


def test_compiling_is_for_long_runs_on_known_models() -> None:
    automatic = FitArguments()
    assert not automatic.compiles(1.0e15)
    assert automatic.compiles(1.0e18)
    assert not automatic.compiles(None)
    assert FitArguments(compile="on").compiles(None)
    assert not FitArguments(compile="off").compiles(1.0e18)
