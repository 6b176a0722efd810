"""Flags, YAML and help."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from fairtune_hf.cli import search
from fairtune_hf.cli.main import COMMANDS, main
from fairtune_hf.cli.recipes import list_recipes


def parse(*arguments: str) -> dict:
    parts, _ = search.PARSER.parse(arguments)
    return {k: v for part in parts for k, v in dataclasses.asdict(part).items()}


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "trials: 7\nlearning-rate-max: 2e-3\nepochs: 3\nmodel: null\ntraining_arguments: {max_grad_norm: 2}\n"
    )
    found = parse(f"--config={recipe}", "--epochs", "9")
    assert found["trials"] == 7
    assert found["epochs"] == 9
    assert found["learning_rate_max"] == 2e-3  # a number although YAML 1.1 reads text
    assert found["batch_size"] == 32
    assert found["model"] is None
    assert found["training_arguments"] == '{"max_grad_norm": 2}'


def test_an_unknown_flag_is_named_once_and_without_its_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["search", "--trails", "3"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("fairtune search:") == 1
    assert "unknown flag: --trails (did you mean --trials?). Run" in said


def test_wrong_values_in_a_file_are_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("pruner: no\n")
    with pytest.raises(ValueError, match="invalid choice: 'False'"):
        parse(f"--config={recipe}")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_screen_and_shows_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*([command] if command else []), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 110
    assert any("Example" in line and "fairtune" in line for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_named_by_help_and_explained_by_help_all(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {}
    for flag in ("--help", "--help-all"):
        assert main([command, flag]) == 0
        shown[flag] = capsys.readouterr().out
    parser = importlib.import_module(f"fairtune_hf.cli.{command}").PARSER
    for part in parser.parts:
        if part.__name__ == "DataOptions" or part in parser.unlisted:
            continue
        for field in dataclasses.fields(part):
            flag = f"--{field.name.replace('_', '-')}"
            assert re.search(rf"{flag}\b", shown["--help"]), flag
            line = next(x for x in shown["--help-all"].splitlines() if x.split()[:1] == [flag])
            assert line.split(maxsplit=1)[1].split()[0] == field.metadata["help"].split()[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_field_has_one_help_text(command: str) -> None:
    parser = importlib.import_module(f"fairtune_hf.cli.{command}").PARSER
    for part in parser.parts:
        for field in dataclasses.fields(part):
            assert field.metadata["help"].endswith("."), field.name


def test_recipes_are_listed_with_their_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list_recipes()) > 0
    assert any("demo" in line and "search.yaml  Demo:" in line for line in lines)
