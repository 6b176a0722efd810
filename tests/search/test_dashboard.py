"""The study of a run's folder opens in the real optuna-dashboard, with names a person can read."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pandas as pd
import pytest

optuna_dashboard = pytest.importorskip("optuna_dashboard")


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def dashboard(finished_run: Path) -> Iterator[str]:
    """The dashboard's own server on loopback, opened as `optuna-dashboard sqlite:///...` does."""
    app = optuna_dashboard.wsgi(f"sqlite:///{finished_run / 'study.sqlite3'}")
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def ask(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
def test_the_page_opens(dashboard: str) -> None:
    with urllib.request.urlopen(f"{dashboard}/dashboard", timeout=30) as answer:
        assert answer.status == 200
        assert b"<html" in answer.read()


@pytest.mark.slow
def test_the_study_has_readable_names_and_every_trial(dashboard: str, finished_run: Path) -> None:
    studies = ask(f"{dashboard}/api/studies")["study_summaries"]
    study_id = next(s["study_id"] for s in studies if s["study_name"] == "fairtune")
    study = ask(f"{dashboard}/api/studies/{study_id}")
    names = {item["name"] for item in study["union_search_space"]}
    parts = [f"blocks.{b}.{p}" for b in range(2) for p in ("layernorm", "attention", "mlp")]
    assert names == {"learning_rate", *parts}
    trials = pd.read_csv(finished_run / "trials.csv")
    assert [t["number"] for t in study["trials"] if t["state"] != "Waiting"] == trials[
        "number"
    ].tolist()
    shown = {t["number"]: t["values"] for t in study["trials"] if t["state"] == "Complete"}
    complete = trials[trials["state"].eq("COMPLETE")]
    assert {n: v[0] for n, v in shown.items()} == pytest.approx(
        dict(zip(complete["number"], complete["value"], strict=True))
    )
