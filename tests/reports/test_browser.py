"""The pages in a real browser: no console message, no request, no page wider than its window."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from fairtune_hf.reports import render_comparison, render_report

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: run .ci/chromium"),
]

_spec = importlib.util.spec_from_file_location(
    "browser_check", Path(__file__).parents[2] / "recipes" / "checks" / "browser.py"
)
check = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = check  # its dataclass looks itself up
_spec.loader.exec_module(check)


@pytest.fixture(scope="module")
def browser():
    with check.open_browser(CHROMIUM) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(evaluated, searched, nasty, tmp_path_factory):
    compared = render_comparison([evaluated, nasty], tmp_path_factory.mktemp("compared"))
    rendered = {"evaluated": evaluated, "searched": searched, "nasty": nasty}
    return {"comparison": compared} | {n: render_report(run) for n, run in rendered.items()}


@pytest.mark.parametrize("scheme", check.SCHEMES)
@pytest.mark.parametrize("width", check.WIDTHS)
@pytest.mark.parametrize("name", ["evaluated", "searched", "nasty", "comparison"])
def test_a_page_opens_quietly(browser, pages, name, width, scheme):
    view = check.look_at(browser, pages[name], width, scheme, None)
    assert view.console == []
    assert view.requests == []
    assert view.overflow <= 0
    assert view.height > 900


def test_dark_is_dark_and_paper_is_white(browser, pages, tmp_path):
    def brightness(scheme):
        from PIL import Image

        check.look_at(browser, pages["evaluated"], 390, scheme, tmp_path)
        with Image.open(tmp_path / f"report-390-{scheme}.png") as shot:
            return shot.convert("L").getpixel((2, 2))

    assert brightness("light") > 240
    assert brightness("dark") < 40
    check.print_page(browser, pages["evaluated"], tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_the_check_finds_what_it_looks_for(browser, tmp_path):
    page = tmp_path / "loud.html"
    page.write_text(
        "<!doctype html><body><script>console.error('heard')</script>"
        "<img src='http://example.org/x.png'><div style='width:3000px'>wide</div>"
    )
    view = check.look_at(browser, page, 1280, "light", None)
    assert any("heard" in line for line in view.console)
    assert view.requests == ["http://example.org/x.png"]
    assert view.overflow > 1000
    assert not view.is_clean
