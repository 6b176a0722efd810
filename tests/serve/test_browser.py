"""The page as a visitor has it: `fairtune serve` in a process of its own, and a real Chromium before it."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

pytest.importorskip("gradio")

from tests.serve.visitor import CHROMIUM, Visitor, check

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: run .ci/chromium"),
]
# Says every address that the process connects to.
WATCHED = """
import sys
sys.addaudithook(lambda name, given: name == "socket.connect" and print("connects to", given[1], flush=True))
from fairtune_hf.cli.main import main
sys.exit(main())
"""


class Served:
    """A running `fairtune serve`, its temporary folder and what it printed."""

    def __init__(self, run: Path, folder: Path) -> None:
        self.folder, self.out = folder / "tmp", folder / "out.txt"
        self.folder.mkdir()
        command = ["serve", f"--run={run}", "--port=0", "--device=cpu"]
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WATCHED, *command],
                env=os.environ | {"TMPDIR": str(self.folder)},
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
            )
        lines = iter(self.process.stdout.readline, "")
        line = next(line for line in lines if line.startswith("Serving"))
        self.url = re.search(r"http://127\.0\.0\.1:\d+", line)[0]

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def end(self) -> str:
        self.process.send_signal(signal.SIGINT)
        said, _ = self.process.communicate(timeout=60)
        return said


def ask_for(url: str, path: str) -> str:
    """Ask for the score of a path as a program could, in the form in which the page names an upload."""
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    asked = {"data": [file], "fn_index": 0, "session_hash": "program"}
    httpx.post(f"{url}/gradio_api/queue/join", json=asked, timeout=60).raise_for_status()
    return httpx.get(f"{url}/gradio_api/queue/data?session_hash=program", timeout=60).text


@pytest.fixture(scope="module")
def served(run, tmp_path_factory):
    page = Served(run, tmp_path_factory.mktemp("served"))
    yield page
    page.process.kill()
    page.process.wait()


@pytest.fixture(scope="module")
def browser():
    with check.open_browser(CHROMIUM) as opened:
        yield opened


def test_a_page_is_visited(served, browser, mixed, own_scores, tmp_path):
    """One story, as the page takes long to start: answers, refusals, another visitor, the end."""
    first = Visitor(browser, served.url)
    assert "Not a medical device" in first.text()
    assert first.answer() == ""
    for name, right in own_scores.items():
        words = first.choose(mixed / name)
        assert name in words
        assert f"Score {right:.4f}: {'ill' if right >= 0.5 else 'well'}" in words

    text = tmp_path / "notes.txt"
    text.write_text("hello\n")
    assert "notes.txt is not a picture" in first.choose(text)
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(200_000_000)
    assert "larger than 50 MB" in first.choose(large)
    assert "Score" not in first.answer()
    hostile = tmp_path / "<img src=x onerror=alert(1)> ${alert(2)} {{value}}.png"
    hostile.write_bytes((mixed / "p06.png").read_bytes())
    assert hostile.name in first.choose(hostile)

    second = Visitor(browser, served.url)
    assert second.answer() == ""
    pages = [httpx.get(f"{served.url}{path}", timeout=60).text for path in ("/config", "")]
    told = second.text() + "".join(pages)
    assert not any(name in told for name in [*own_scores, "notes.txt", hostile.name])

    for visitor in (first, second):
        addresses = [e["request"]["url"] for e in visitor.events("Network.requestWillBeSent")]
        elsewhere = [a for a in addresses if not a.startswith((served.url, "data:", "blob:"))]
        assert len(addresses) > 10
        assert elsewhere == []
        failed = visitor.events("Network.loadingFailed")
        assert [e for e in failed if e["errorText"] != "net::ERR_ABORTED"] == []  # the page's own
        assert visitor.events("Page.javascriptDialogOpening") == []
        assert [e["entry"]["text"] for e in visitor.events("Log.entryAdded")] == []

    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        there = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/x.png"
        for path in (there, "/etc/hostname", str(mixed / "p06.png"), "0" * 32):
            assert "That picture is not here any more" in ask_for(served.url, path)

    assert served.files() == []
    modes = {stat.S_IMODE(p.stat().st_mode) for p in served.folder.glob("fairtune-serve-*")}
    assert modes == {0o700}
    said = served.end()
    assert "No picture was kept" in said
    assert "connects to" not in said
    assert served.process.returncode == 0
    assert list(served.folder.glob("fairtune-serve-*")) == []
    assert served.files() == []
    printed = served.out.read_text()
    assert not any(name in printed for name in [*own_scores, "notes.txt", "large.png"])
