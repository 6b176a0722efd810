"""Visitors of the page in a real Chromium, each with a profile of their own."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

CHROMIUM = shutil.which("chromium")
_ANSWER = "(document.querySelector('#answer .fairtune')?.innerText ?? '')"
_spec = importlib.util.spec_from_file_location(
    "browser_check", Path(__file__).parents[2] / "recipes" / "checks" / "browser.py"
)
check = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = check  # its dataclass looks itself up
_spec.loader.exec_module(check)


class Visitor:
    """One visitor: opens the page, chooses a file, reads the answer."""

    def __init__(self, browser, url: str) -> None:
        self.browser = browser
        context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=context)
        self.session = browser.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        self.wait_for("!!document.querySelector('input[type=file]')")

    def call(self, method: str, **params):
        return self.browser.call(method, self.session, **params)

    def evaluate(self, expression: str):
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait, in the page, until a condition holds."""
        look = f"const look = () => ({condition}) ? done(true) : setTimeout(look, 50); look()"
        while True:
            try:
                self.evaluate(f"new Promise(done => {{ {look} }})")
            except RuntimeError as error:  # asked of the page that was there before
                if "navigat" not in str(error) and "context" not in str(error):
                    raise
            else:
                return

    def choose(self, file: Path) -> str:
        """Choose a file and return the answer's words."""
        before = json.dumps(self.answer())
        document = self.call("DOM.getDocument")["root"]["nodeId"]
        field = self.call("DOM.querySelector", nodeId=document, selector="input[type=file]")
        self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=field["nodeId"])
        self.wait_for(f"{_ANSWER} && {_ANSWER} !== {before}")
        self.wait_for("!!document.querySelector('input[type=file]')")
        return self.answer()

    def answer(self) -> str:
        """Return the words of the answer, empty before there is one."""
        return self.evaluate(_ANSWER)

    def text(self) -> str:
        """Return all words of the page."""
        return self.evaluate("document.body.innerText")

    def events(self, method: str) -> list[dict]:
        """Return what the browser told of this visitor."""
        return [
            event["params"]
            for event in self.browser.events
            if event.get("method") == method and event.get("sessionId") == self.session
        ]
