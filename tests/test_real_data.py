"""The main job on real chest X-rays, where they are at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fairtune_hf.cli.main import main


@pytest.mark.slow
def test_nih_search_refit_evaluate_report(tmp_path: Path) -> None:
    if not os.environ.get("FAIRTUNE_DATA"):
        pytest.skip("FAIRTUNE_DATA is not set: the real data is not here")
    root = Path(os.environ["FAIRTUNE_DATA"]) / "nih1000_64"
    out = tmp_path / "nih"
    search = ["search", "--dataset=nih_chestxray14", f"--data-root={root}", "--sensitive=sex"]
    assert main([*search, "--trials=4", "--epochs=1", f"--out={out}"]) == 0
    assert main(["finetune", f"--run={out}", "--seeds=2"]) == 0
    assert main(["evaluate", f"--run={out}"]) == 0
    assert main(["report", f"--run={out}"]) == 0
    record = json.loads((out / "run.json").read_text())
    assert sum(record["dataset"]["rows"].values()) == 1000
    assert set(record["test"]["groups"]) == {"M", "F"}
    assert (out / "report.html").stat().st_size > 10_000
