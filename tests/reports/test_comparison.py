import csv
import json
import re

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.reports import render_comparison
from fairtune_hf.reports.comparison import latex_text


@pytest.fixture(scope="module")
def compared(evaluated, nasty, searched, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared")
    assert render_comparison([evaluated, nasty, searched], out) == out / "comparison.html"
    return out


def runs(*paths):
    return [json.loads((path / "run.json").read_text()) for path in paths]


def test_the_csv_holds_what_the_runs_say(compared, evaluated, nasty):
    table = pd.read_csv(compared / "comparison.csv")
    for run in runs(evaluated, nasty):
        held = table[table["attribute"] == run["dataset"]["sensitive"]]
        for method, part in {"fairtune": run, **run["controls"]}.items():
            row = held[(held["method"] == method) & (held["metric"] == "min_auc")].iloc[0]
            assert row["value"] == pytest.approx(part["test"]["min_auc"], abs=1e-12)
            interval = part["test"]["min_auc_ci"] or [np.nan, np.nan]  # none of a group of eight
            assert [row["low"], row["high"]] == pytest.approx(interval, nan_ok=True)
            means = [seed["test"]["min_auc"] for seed in part["seeds"]]
            assert row["mean_over_seeds"] == pytest.approx(sum(means) / 3)


def test_averages_and_ranks_are_those_of_the_rows(compared):
    table = pd.read_csv(compared / "comparison.csv")
    wide = table[table["metric"] == "auc_gap"].pivot(
        index="setting", columns="method", values="value"
    )
    lines = (compared / "comparison.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if "Mean over 2 settings" in line)
    gap = [cell.strip(" *") for cell in lines[start + 2].split("|")][3:6]
    assert gap == [f"{wide[m].mean():.3f}" for m in ("fairtune", "full_blocks", "linear_readout")]
    rank_start = next(i for i, line in enumerate(lines) if "Mean rank over 2 settings" in line)
    ranks = [cell.strip(" *") for cell in lines[rank_start + 2].split("|")][3:6]
    expected = wide.rank(axis=1).mean()
    assert ranks == [f"{expected[m]:.2f}" for m in ("fairtune", "full_blocks", "linear_readout")]


def test_the_best_of_each_row_is_bold_and_low_gaps_are_best(compared, evaluated):
    run = runs(evaluated)[0]
    gaps = [run["test"]["auc_gap"]] + [c["test"]["auc_gap"] for c in run["controls"].values()]
    line = next(
        line for line in (compared / "comparison.md").read_text().splitlines() if "AUC gap" in line
    )
    bold = [cell.strip().startswith("**") for cell in line.split("|")[3:6]]
    assert bold == [gap == min(gaps) for gap in gaps]


def test_unread_test_rows_are_said(compared, searched):
    html = (compared / "comparison.html").read_text()
    assert f"Left out, test rows not read: {searched.name}" in html
    assert "oasis" not in (compared / "comparison.csv").read_text()


def test_hostile_names_are_inert_everywhere(compared):
    html = (compared / "comparison.html").read_text()
    assert "<img" not in html
    assert "&lt;img" in html
    markdown = (compared / "comparison.md").read_text()
    assert "<" not in markdown
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if "|" in line}
    assert counts == {6}
    with (compared / "comparison.csv").open(newline="") as file:
        assert len({len(row) for row in csv.reader(file)}) == 1


def test_latex_is_balanced_and_escaped(compared):
    text = (compared / "comparison.tex").read_text()
    bare = re.sub(r"\\[{}%&_#$]", "", text)
    assert bare.count("{") == bare.count("}")
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {4}
    assert latex_text("a_b & 50% \\input{x} ~^#$") == (
        "a\\_b \\& 50\\% \\textbackslash{}input\\{x\\} \\textasciitilde{}\\textasciicircum{}\\#\\$"
    )


def test_figures_have_data(compared, evaluated):
    assert {file.name for file in (compared / "figures").glob("*.csv")} == {
        "chosen_masks.csv",
        "setting_differences.csv",
    }
    shares = pd.read_csv(compared / "figures" / "chosen_masks.csv")
    assert shares["share"].between(0, 1).all()
    assert shares["masks"].eq(2).all()


def test_wrong_input_is_named(evaluated, searched, tmp_path):
    with pytest.raises(ValueError, match="given twice"):
        render_comparison([evaluated, evaluated], tmp_path)
    with pytest.raises(ValueError, match="none of the 1 given has a `test` part"):
        render_comparison([searched], tmp_path)
    assert list(tmp_path.iterdir()) == []
