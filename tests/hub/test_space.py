"""The template of a Space: its front matter is one, its libraries are ours, and its program serves a model."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement

from fairtune_hf.hub import template_folder

SPACE = template_folder() / "space"
ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_the_front_matter_is_that_of_a_space():
    card = SpaceCard.load(SPACE / "README.md")
    assert card.data.sdk == "gradio"
    assert (SPACE / card.data.app_file).is_file()
    gradio = Requirement(EXTRAS["serve"][0])
    assert gradio.name == "gradio"
    assert gradio.specifier.contains(card.data.sdk_version)
    locked = re.search(r"^gradio==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert card.data.sdk_version == locked[1]
    assert len(card.data.short_description) <= 60, "the Hub takes no longer one"


def test_its_libraries_are_extras_that_there_are():
    lines = (SPACE / "requirements.txt").read_text().splitlines()
    (wanted,) = (Requirement(line) for line in lines if not line.startswith("#"))
    assert wanted.name == "fairtune_hf"
    assert {"serve", "dicom"} <= wanted.extras <= set(EXTRAS)


@pytest.mark.slow
def test_its_program_serves_the_model_that_it_is_told(finished_run):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = {"FAIRTUNE_MODEL": str(finished_run), "FAIRTUNE_HOST": "127.0.0.1"}
    with subprocess.Popen(
        [sys.executable, "-u", str(SPACE / "app.py")],
        env=os.environ | told | {"FAIRTUNE_PORT": str(port)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert f":{port} " in process.stdout.readline()
        finally:
            process.terminate()
