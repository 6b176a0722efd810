"""What other steps record of cost and importance is shown, and nothing where they did not."""

import json

import pandas as pd
import pytest

from fairtune_hf.hub.card import card_text
from fairtune_hf.reports import render_report
from fairtune_hf.reports.cost import cost_rows, importance_figure
from fairtune_hf.reports.loaded_run import read_run

SEARCH = {
    "seconds": 7200.0, "images": 1_843_200, "images_per_second": 256.0, "device": "GPU <X>",
    "peak_flops": 7e14, "share_of_peak": 0.4321,
    "by_part": {"data": 1.0, "forward": 3.0, "backward": 6.0, "optimizer": 0.0, "other": None},
}  # fmt: skip
REFIT = dict.fromkeys(SEARCH) | {"seconds": 12.5, "images": 64}


def add(path, *, cost=None, importance=None, random_mask=False):
    run = json.loads((path / "run.json").read_text())
    if cost is not None:
        run["cost"] = cost
    run["search"]["importance"] = importance
    if random_mask:
        control = run["controls"]["full_blocks"]
        run["controls"]["random_mask"] = control | {"mask": "10" * 18}
        run["comparisons"].append(run["comparisons"][0] | {"reference": "random_mask"})
    (path / "run.json").write_text(json.dumps(run))
    return path


def importance(names):
    bits = [
        {"name": name, "effect": 0.001 * (i - 10), "low": 0.001 * (i - 12), "high": 0.001 * (i - 8)}
        for i, name in enumerate(names)
    ]
    return {"method": "ridge", "trials": 40, "bits": bits}


def test_cost_of_each_step(make_run):
    path = add(make_run(), cost={"search": SEARCH, "refit": REFIT})
    search, refit = cost_rows(read_run(path))
    assert search.cells == ("2.0 h", "1\u202f843\u202f200", "256", "43.2\u202f%", "GPU <X>")
    assert search.parts.startswith("data 10\u202f%, forward 30\u202f%, backward 60\u202f%")
    assert "other" not in search.parts
    assert refit.cells == ("12 s", "64", "\u2013", "\u2013", "\u2013")
    assert refit.parts == ""
    html = render_report(path).read_text()
    assert '<section id="cost">' in html
    assert "GPU &lt;X&gt;" in html
    card = card_text(read_run(path))
    assert "- Search, cost: time 2.0 h, training pictures" in card
    assert "GPU <X>" not in card


@pytest.mark.parametrize("cost", [None, {}, {"search": None, "refit": None}, "free"])
def test_no_cost_no_section(make_run, cost):
    path = add(make_run(), cost=cost)
    assert 'id="cost"' not in render_report(path).read_text()


def test_importance_shows_the_largest_effects(make_run):
    path = make_run()
    names = json.loads((path / "run.json").read_text())["choice"]["bit_names"]
    figure = importance_figure(read_run(add(path, importance=importance(names))))
    assert "12 parts of 36" in figure.caption
    assert "31 of 36 intervals leave out 0" in figure.caption  # all but those of i from 8 to 12
    assert figure.drawing.count("<circle") == 12
    assert names[-1] in figure.drawing
    assert names[10] not in figure.drawing
    render_report(path)
    assert len(pd.read_csv(path / "figures" / "importance.csv")) == 36


@pytest.mark.parametrize("found", [None, {}, {"bits": []}, {"bits": [{"name": "a"}]}])
def test_no_importance_no_figure(make_run, found):
    path = add(make_run(), importance=found)
    assert importance_figure(read_run(path)) is None
    assert "figure-importance" not in render_report(path).read_text()


def test_a_random_mask_is_a_control_like_the_others(make_run):
    html = render_report(add(make_run(), random_mask=True)).read_text()
    assert "A random mask" in html
    assert "a random mask (" in html.split('class="verdict"')[1].split("</p>")[0]
