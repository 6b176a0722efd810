"""Help, mistyped flags and missing ones are answered without PyTorch and what comes with it."""

from __future__ import annotations

import subprocess
import sys

from fairtune_hf.cli.main import COMMANDS

HEAVY = {"torch", "transformers", "peft", "optuna", "accelerate", "datasets", "sklearn"}
WRONG = {
    "serch": "Did you mean search?",
    "search --trails 3": "did you mean --trials?",
    "compare --epoch=3": "did you mean --epochs?",
    "search --trials many": "invalid int value",
    "search --pruner=halving": "invalid choice",
    "search --presets=perhaps": "expected true or false, got 'perhaps'",
    "search --config nowhere.yaml": "there is no file nowhere.yaml",
    "search --dataset ham1000": "Did you mean 'ham10000'?",
    "search --dataset papila": "papila needs --data-root",
    "search --sensitive=sx --dataset=papila --data-root=.": "Did you mean 'sex'?",
    "prepare --dataset=demo --age-treshold=50 --out=x": "did you mean --age-threshold?",
    "prepare --dataset=demo": "--out: expected the folder to prepare into",
    "finetune": "--run: expected the folder of a search",
    "finetune --run=x --epochs=3": "--epochs: with --run",
    "finetune --mask=full_blocks": "--run: expected the folder of a search",
    "evaluate": "--run: expected the folder of an earlier step",
    "report": "--run: expected the folder of an earlier step",
    "report --runs a b": "--out: expected a folder for the comparison",
    "card": "--run: expected the folder of an earlier step",
    "push": "--run: expected the folder of an earlier step",
    "push --run=x": "--repo-id: expected the repository",
    "profile --steps=0": "--steps: expected at least 1",
    "demo --trial=3": "did you mean --trials?",
    "recipes --lst": "--lst",
}


def test_help_and_mistakes_are_answered_without_torch() -> None:
    helps = ["", "--help", "--version", *(f"{name} --help" for name in COMMANDS)]
    code = f"""
import contextlib, io, sys
sys.argv = ["/somewhere/bin/fairtune"]
from fairtune_hf.cli.main import main

def ask(words):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(words.split())
    return code, " ".join(said.getvalue().split())

for words in {helps!r}:
    code, said = ask(words)
    assert said and code == (2 if words == "" else 0), (words, code, said)
    assert not ({HEAVY!r} | {{"pandas"}}) & set(sys.modules), words
for words, expected in {WRONG!r}.items():
    code, said = ask(words)
    assert code == 2 and expected in said, (words, code, said)
    if "objective" not in words:
        assert not ({HEAVY!r} - {{"sklearn"}}) & set(sys.modules), words
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
