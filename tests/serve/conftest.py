"""A model trained and measured on pictures of every kind."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fairtune_hf.cli.main import main
from fairtune_hf.inference import Predictor, load_predictor
from fairtune_hf.run_folder import RunFolder
from tests.inference.mixed import draw_mixed, train_by_hand


@pytest.fixture(scope="package")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_mixed(tmp_path_factory.mktemp("mixed") / "set")


@pytest.fixture(scope="package")
def run(mixed: Path, tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = train_by_hand(mixed, tiny_vit, tmp_path_factory.mktemp("runs") / "run")
    assert main(["evaluate", f"--run={out}", "--resamples=50"]) == 0
    return out


@pytest.fixture(scope="package")
def predictor(run: Path) -> Predictor:
    return load_predictor(run, device="cpu")


@pytest.fixture(scope="package")
def own_scores(run: Path) -> dict[str, float]:
    """What the run's measurement wrote of a test picture of each kind, by file name."""
    rows: pd.DataFrame = RunFolder(run).read_predictions()
    test = rows[rows["split"] == "test"].drop_duplicates("row_id")
    kinds = {int(name[1:3]) % 6: name for name in test["row_id"]}
    scores = dict(zip(test["row_id"], test["score"], strict=True))
    return {name: scores[name] for name in kinds.values()}
