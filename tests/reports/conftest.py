"""Run folders for the tests of reports, written once a session."""

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("fake_run", Path(__file__).with_name("fake_run.py"))
fake_run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_run)

NASTY = {
    "<script>alert(1)</script>": (120, 1.9),
    "\"quoted\" & 'single' | `code` [link](http://x.org)": (100, 1.5),
    "tiny": (8, 1.0),
}


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory):
    return fake_run.write_fake_run(tmp_path_factory.mktemp("runs") / "evaluated")


@pytest.fixture(scope="session")
def searched(tmp_path_factory):
    return fake_run.write_fake_run(tmp_path_factory.mktemp("runs") / "searched", stage="searched")


@pytest.fixture(scope="session")
def nasty(tmp_path_factory):
    """A run with hostile group names, attribute and data set, and a group of eight pictures."""
    path = tmp_path_factory.mktemp("runs") / "nasty"
    return fake_run.write_fake_run(
        path, groups=NASTY, sensitive='sex" onload="x', name="<img src=x onerror=alert(2)>"
    )


@pytest.fixture
def make_run(tmp_path):
    """Write a run's folder of its own, to be changed by the test."""

    def make(folder="run", **options):
        return fake_run.write_fake_run(tmp_path / folder, **options)

    return make
