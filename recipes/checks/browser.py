"""Open pages in headless Chromium: console, network, width, screenshots and the printed page.

    python recipes/checks/browser.py runs/demo/report.html --out shots

Every page is opened at 1280 and 390 px, light and dark, and printed to PDF. Prints one line a view and
exits 1 if a page wrote to the console, asked for anything but itself, or is wider than its window.
Needs Debian's `chromium`, or another Chromium named by --chromium; speaks its DevTools protocol over a pipe.
"""

import argparse
import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
_SECONDS = 60


class Browser:
    """A headless Chromium whose DevTools protocol is spoken over two pipes, so that no port is opened."""

    def __init__(self, process: subprocess.Popen[bytes], reader: int, writer: int) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self._number, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send one command and return its result; events that come meanwhile are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") != self._number:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error'].get('message')}")
            else:
                return dict(answer["result"])

    def wait_for(self, method: str) -> None:
        """Read events until one of a kind has come."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        until = time.monotonic() + _SECONDS
        while b"\0" not in self._rest:
            found = os.read(self._reader, 1 << 20)
            if not found or time.monotonic() > until:
                raise RuntimeError(
                    f"Chromium stopped answering (exit code {self._process.poll()})."
                )
            self._rest += found
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))


@contextlib.contextmanager
def open_browser(program: str) -> Iterator[Browser]:
    """Start Chromium with a profile of its own and no name resolution, and end it."""
    to_child, to_browser = os.pipe()
    from_browser, from_child = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}",
            "--no-first-run", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-dev-shm-usage", "--no-sandbox",
        ]  # fmt: skip
        # Chromium reads commands from file descriptor 3 and answers on 4.
        shell = f'exec 3<&{to_child} 4>&{from_child}; exec "$@"'
        process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "browser", *command],
            pass_fds=(to_child, from_child),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        try:
            yield Browser(process, from_browser, to_browser)
        finally:
            process.terminate()
            process.wait(_SECONDS)
            os.close(to_browser)
            os.close(from_browser)


@dataclass
class View:
    """What one opening of a page showed.

    Attributes:
        page: The file.
        width: Of the window, in CSS pixels.
        scheme: light or dark.
        console: Messages of the console, errors and log entries.
        requests: Addresses asked for, the page's own left out.
        overflow: By how many pixels the page is wider than the window.
        height: Of the whole page.
    """

    page: Path
    width: int
    scheme: str
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    overflow: int = 0
    height: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.console and not self.requests and self.overflow <= 0


def look_at(browser: Browser, page: Path, width: int, scheme: str, out: Path | None) -> View:
    """Open a page and note what it did; with `out`, save the whole page as a picture."""
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        browser.call(f"{domain}.enable", session)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", session, features=features)
    device = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.call("Emulation.setDeviceMetricsOverride", session, **device)
    browser.events.clear()
    browser.call("Page.navigate", session, url=page.resolve().as_uri())
    browser.wait_for("Page.loadEventFired")
    sizes = (
        "[document.documentElement.scrollWidth - innerWidth, document.documentElement.scrollHeight]"
    )
    measured = browser.call("Runtime.evaluate", session, expression=sizes, returnByValue=True)
    view = View(page, width, scheme, *_notes(browser.events, page))
    view.overflow, view.height = measured["result"]["value"]
    if out is not None:
        clip = {"x": 0, "y": 0, "width": width, "height": view.height, "scale": 1}
        shot = browser.call(
            "Page.captureScreenshot", session, clip=clip, captureBeyondViewport=True
        )
        name = f"{page.stem}-{width}-{scheme}.png"
        (out / name).write_bytes(base64.b64decode(shot["data"]))
    browser.call("Target.closeTarget", targetId=target)
    return view


def _notes(events: list[dict[str, Any]], page: Path) -> tuple[list[str], list[str]]:
    """Sort what happened into console messages and requests."""
    console, requests = [], []
    for event in events:
        params = event.get("params", {})
        if event.get("method") == "Runtime.consoleAPICalled":
            console.append(str([a.get("value") for a in params["args"]]))
        elif event.get("method") == "Runtime.exceptionThrown":
            console.append(str(params["exceptionDetails"].get("text")))
        elif event.get("method") == "Log.entryAdded":
            console.append(str(params["entry"]["text"]))
        elif event.get("method") == "Page.javascriptDialogOpening":
            console.append(f"dialog: {params['message']}")
        elif event.get("method") == "Network.requestWillBeSent":
            address = str(params["request"]["url"])
            if address != page.resolve().as_uri() and not address.startswith("data:"):
                requests.append(address)
    return console, requests


def print_page(browser: Browser, page: Path, to: Path) -> None:
    """Print a page to PDF as its own print style says."""
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    browser.call("Page.enable", session)
    browser.events.clear()
    browser.call("Page.navigate", session, url=page.resolve().as_uri())
    browser.wait_for("Page.loadEventFired")
    printed = browser.call("Page.printToPDF", session, preferCSSPageSize=True, printBackground=True)
    to.write_bytes(base64.b64decode(printed["data"]))
    browser.call("Target.closeTarget", targetId=target)


def main() -> int:
    """Run the check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="folder for screenshots and PDF")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    options = parser.parse_args()
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    clean = True
    with open_browser(options.chromium) as browser:
        for page in options.pages:
            for width in WIDTHS:
                for scheme in SCHEMES:
                    view = look_at(browser, page, width, scheme, options.out)
                    clean &= view.is_clean
                    print(
                        f"{page.name} {width} px {scheme}: {view.height} px high, console {view.console}, "
                        f"requests {view.requests}, too wide by {max(0, view.overflow)} px"
                    )
            if options.out is not None:
                print_page(browser, page, options.out / f"{page.stem}.pdf")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
