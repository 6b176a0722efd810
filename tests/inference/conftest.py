"""A run on pictures of every size and kind, measured, with the adapter of each seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.inference.mixed import draw_mixed, train_by_hand


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_mixed(tmp_path_factory.mktemp("mixed") / "set")


@pytest.fixture(scope="session")
def run(mixed: Path, tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fairtune_hf.cli.main import main

    out = tmp_path_factory.mktemp("runs") / "run"
    train_by_hand(mixed, tiny_vit, out, "--keep-seeds", seeds=2)
    assert main(["evaluate", f"--run={out}", "--resamples=100"]) == 0
    return out
