"""Commands that are started together on one folder: one claims it, equals join it, costs are counted once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fairtune_hf.cli.main import main

# All in forks of one process that has imported everything, so that they do start together.
TOGETHER = """
import contextlib, io, json, os, sys
import torch
import fairtune_hf.cli.search, fairtune_hf.cli.finetune
from fairtune_hf.cli.main import main
torch.set_num_threads(1)
children = []
for words in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = main(words)
        print(json.dumps([os.getpid(), said.getvalue()]), flush=True)
        os._exit(code)
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
print(json.dumps([codes, children]))
"""


def start_together(*commands: list[str]) -> tuple[list[int], list[str]]:
    found = subprocess.run(
        [sys.executable, "-c", TOGETHER, json.dumps(commands)],
        check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout  # fmt: skip
    *lines, last = [json.loads(line) for line in found.splitlines() if line.startswith("[")]
    codes, children = last
    said = dict(lines)
    return codes, [said[pid] for pid in children]


def search_words(flags: list[str], vit: Path, out: Path, **given: object) -> list[str]:
    fit = {
        "trials": 2,
        "epochs": 2,
        "batch-size": 16,
        "learning-rate-max": 0.01,
        "top-k": 0,
    } | given
    return [
        "search",
        *flags,
        f"--model={vit}",
        f"--out={out}",
        *(f"--{k}={v}" for k, v in fit.items()),
    ]


@pytest.mark.slow
def test_two_different_searches_on_a_new_folder_one_claims_it(
    folder_flags: list[str], tiny_vit: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    codes, said = start_together(
        search_words(folder_flags, tiny_vit, out),
        search_words(folder_flags, tiny_vit, out, epochs=4),
    )
    assert sorted(codes) == [0, 2]
    refused = said[codes.index(2)].replace("\n", " ")
    assert "holds a different run (epochs was" in refused
    assert "Traceback" not in refused
    epochs = pd.read_csv(out / "trials.csv")["epochs"]
    assert set(epochs) == {4 if codes[0] == 2 else 2}


@pytest.mark.slow
def test_two_equal_searches_on_a_new_folder_share_the_trials(
    folder_flags: list[str], tiny_vit: Path, tmp_path: Path
) -> None:
    words = search_words(folder_flags, tiny_vit, tmp_path / "run")
    codes, _ = start_together(words, words)
    assert codes == [0, 0]
    assert pd.read_csv(tmp_path / "run" / "trials.csv")["state"].tolist() == ["COMPLETE"] * 2


@pytest.mark.slow
def test_two_equal_refits_cost_once(
    folder_flags: list[str], tiny_vit: Path, tmp_path: Path
) -> None:
    one, twice = tmp_path / "one", tmp_path / "twice"
    assert main(search_words(folder_flags, tiny_vit, one)) == 0
    shutil.copytree(one, twice)
    assert main(["finetune", f"--run={one}", "--seeds=1"]) == 0
    words = ["finetune", f"--run={twice}", "--seeds=1"]
    codes, said = start_together(words, words)
    assert codes == [0, 0]
    assert sum("this one waits for its end" in words for words in said) == 1
    cost, expected = (
        json.loads((run / "run.json").read_text())["cost"]["refit"] for run in (twice, one)
    )
    assert cost["images"] == expected["images"]


def test_a_command_that_was_killed_before_its_claim_leaves_a_folder_that_can_be_used(
    folder_flags: list[str], tiny_vit: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml.lock").touch()
    (out / ".config.yaml.12345.partial").write_text("dataset: fol")
    assert main(search_words(folder_flags, tiny_vit, out)) == 0


@pytest.mark.slow
def test_a_run_that_somebody_works_on_is_not_overwritten(
    folder_flags: list[str], tiny_vit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fairtune_hf.turn import FileTurn

    out = tmp_path / "run"
    words = search_words(folder_flags, tiny_vit, out)
    assert main(words) == 0
    before = (out / "trials.csv").read_bytes()
    at_work = FileTurn(out / "config.yaml.lock")
    at_work.share()
    assert main([*words, "--overwrite"]) == 2
    assert "another process works in" in capsys.readouterr().err.replace("\n", " ")
    assert (out / "trials.csv").read_bytes() == before
    at_work.release()
    assert main([*words, "--overwrite"]) == 0
