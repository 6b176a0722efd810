"""What is refused before a model is loaded, and what the page's address is."""

from __future__ import annotations

import os
import socket
from importlib import util
from pathlib import Path

import pytest

from fairtune_hf.cli.main import main
from fairtune_hf.serve import server


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ([], "--run, --model: expected one of them, the model to serve; got neither"),
        (["--run=x", "--model=y"], "got both"),
        (["--run=x", "--port=70000"], "--port: expected 0 to 65535, got 70000"),
        (["--run=x", "--port=-1"], "--port: expected 0 to 65535, got -1"),
        (["--run=x", "--max-upload-mb=0"], "--max-upload-mb: expected more than 0"),
        (["--run=x", "--max-upload-mb=nan"], "--max-upload-mb"),
        (["--run=x", "--host=no.such.name.invalid"], "no.such.name.invalid:7860 is not"),
        (["--run=x", "--host=198.51.100.7"], "an address of this machine that is free"),
    ],
)
def test_bad_input_is_said_before_a_model_is_looked_for(flags, why, capsys):
    assert main(["serve", *flags]) == 2
    assert why in capsys.readouterr().err


def test_a_port_that_is_taken_is_bad_input(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--run=x", f"--port={port}"]) == 2
    assert f"127.0.0.1:{port} is not" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_bad_input(tmp_path, capsys):
    pytest.importorskip("gradio")
    assert main(["serve", f"--run={tmp_path}", "--port=0"]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "gradio" else found(name))
    assert main(["serve", "--run=x"]) == 2
    assert "'fairtune_hf[serve]'" in capsys.readouterr().err


def test_only_this_machine_is_let_in_unless_another_address_is_said():
    with server.bind(server.HOST, 0) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"
    assert "this machine alone" in server._who_can("127.0.0.1")
    assert "this machine alone" in server._who_can("::1")
    for address in ("0.0.0.0", "::", "192.0.2.1"):
        assert "without a password" in server._who_can(address)


def test_gradios_own_folder_is_private_and_goes_with_the_page(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with server._private_folder():
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder != tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path)
