"""Refits over two processes: one of them writes, the other finds what was written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import MethodRecord

# The first process is slow to write, and the second must not write at all.
SCRIPT = """
import json, os, sys, time
from fairtune_hf.cli.main import main
from fairtune_hf.run_folder import RunFolder

def slow(name):
    write = getattr(RunFolder, name)
    def wait_and_write(*arguments):
        assert os.environ["RANK"] == "0", name
        time.sleep(1)
        return write(*arguments)
    setattr(RunFolder, name, wait_and_write)

for name in ("write", "write_config", "write_predictions", "take_refits_of"):
    slow(name)
for words in json.loads(sys.argv[1]):
    code = main(words)
    if code:
        sys.exit(code)
"""


@pytest.mark.slow
def test_only_the_first_process_writes_and_the_second_finds_it(
    run_in_processes: Callable[..., None],
    finished_run: Path,
    folder_flags: list[str],
    tiny_vit: Path,
    tmp_path: Path,
) -> None:
    by_hand, searched = tmp_path / "by_hand", tmp_path / "searched"
    # A search whose choice is one of its controls, before its refits.
    searched.mkdir()
    shutil.copy(finished_run / "config.yaml", searched)
    record = RunFolder(finished_run).read()
    choice = record.choice
    record.methods = {name: MethodRecord(choice=choice) for name in ("fairtune", "full")}
    RunFolder(searched).write(record)
    fit = ["--epochs=1", "--batch-size=16", "--mask=full_blocks", "--learning-rate=0.001"]
    words = [
        ["finetune", *folder_flags, f"--model={tiny_vit}", *fit, f"--out={by_hand}"],
        ["finetune", f"--run={searched}", "--seeds=2"],
    ]
    run_in_processes(SCRIPT, json.dumps(words), processes=2, ACCELERATE_USE_CPU="1")
    for folder, seeds in ((by_hand, 3), (searched, 2), (searched / "controls" / "full", 2)):
        predictions = pd.read_parquet(folder / "predictions.parquet")
        assert not predictions.duplicated(["seed", "row_id"]).any()
        assert set(predictions["seed"]) == set(range(seeds))
        assert (folder / "adapter" / "adapter_config.json").is_file()
    cost = json.loads((searched / "run.json").read_text())["cost"]["refit"]
    a_seed = choice.epochs * 108  # each row once an epoch, in shares of two
    assert (cost["processes"], cost["images"]) == (2, 2 * a_seed)  # a twin's are not added
    assert not list(tmp_path.rglob("*.partial"))
