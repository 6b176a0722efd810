"""The command that comes next is shown as it can be typed, and what the last step shows works."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from fairtune_hf.cli.main import main
from fairtune_hf.cli.messages import command_line


def test_a_program_that_no_shell_would_find_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / ".venv" / "bin" / "fairtune"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(program), "demo"])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    found = command_line("predict", "runs/my run", "PICTURE.png")
    assert found == ".venv/bin/fairtune predict --run 'runs/my run' PICTURE.png"
    monkeypatch.setenv("PATH", str(program.parent))
    assert command_line("report", "runs/a") == "fairtune report --run runs/a"


@pytest.mark.slow
def test_two_commands_lead_from_the_demo_to_a_picture_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--trials=2", "--epochs=1", "--seeds=1"]) == 0
    lines = capsys.readouterr().err.partition("Next, a picture of your own:\n")[2].splitlines()
    predict, serve = (shlex.split(line, comments=True) for line in lines)
    assert predict[1:] == ["predict", "--run", "runs/demo", "PICTURE.png"]
    assert serve[1:] == ["serve", "--run", "runs/demo"]
    Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 50).save("PICTURE.png")
    assert main(predict[1:]) == 0
    out, said = capsys.readouterr()
    assert out.splitlines()[0] == "file,score,label,warnings"
    assert out.splitlines()[1].split(",")[2] in ("benign", "malignant")
    assert "AUC by skin_type" in said
    shutil.rmtree("runs")
