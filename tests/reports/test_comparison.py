import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.hub.card import card_text
from fairtune_hf.metrics import holm_p_values
from fairtune_hf.reports import format_table, merge_methods, render_comparison
from fairtune_hf.reports.loaded_run import read_run
from fairtune_hf.reports.page import report_text
from fairtune_hf.reports.plain_table import latex_text
from fairtune_hf.run_folder import RunFolder


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


def rows_of(compared, title):
    """The rows of a table of the Markdown page as dictionaries, by method."""
    text = (compared / "comparison.md").read_text().partition(f"{title}\n")[2].partition("## ")[0]
    head, _, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    )
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_averages_and_ranks_are_those_of_the_rows(compared):
    table = pd.read_csv(compared / "comparison.csv")
    wide = table[table["metric"] == "auc_gap"].pivot(
        index="setting", columns="method", values="mean_over_seeds"
    )
    means, ranks = rows_of(compared, "## Means"), rows_of(compared, "## Ranks")
    assert {m: row["AUC gap"] for m, row in means.items()} == {
        m: f"{value:.3f}" for m, value in wide.mean().items()
    }
    assert {m: row["AUC gap"] for m, row in ranks.items()} == {
        m: f"{value:.2f}" for m, value in wide.rank(axis=1).mean().items()
    }
    assert list(means) == list(ranks) == ["fairtune", "full_blocks", "linear_readout"]


def test_differences_are_those_of_the_runs_seen_from_each_control(compared, evaluated):
    run = runs(evaluated)[0]
    table = pd.read_csv(compared / "comparison.csv")
    held = table[(table["attribute"] == "skin_type") & (table["metric"] == "min_auc")]
    assert held["reference"].eq("fairtune").all()
    for item in run["comparisons"]:
        row = held[held["method"] == item["reference"]].iloc[0]
        assert row["difference"] == -item["difference"]
        assert [row["difference_low"], row["difference_high"]] == [-item["ci"][1], -item["ci"][0]]
        assert row["p_value"] == item["p_value"]
    plain = {item["reference"]: item["p_value"] for item in run["comparisons"]}
    holm = held.dropna(subset=["p_holm"]).set_index("method")["p_holm"].to_dict()
    assert holm == pytest.approx(holm_p_values(plain))


def test_earlier_records_and_new_ones_give_the_same_pages(evaluated, nasty, compared, tmp_path):
    """All that is said of a run is the same once its record is written in the present shape."""
    copies = []
    for run in (evaluated, nasty):
        copies.append(Path(shutil.copytree(run, tmp_path / run.name)))
        RunFolder(copies[-1]).write(RunFolder(run).read())
        assert json.loads((copies[-1] / "run.json").read_text())["schema_version"] == 2
        assert report_text(read_run(copies[-1])) == report_text(read_run(run))
        assert card_text(read_run(copies[-1])) == card_text(read_run(run))
        assert format_table(read_run(copies[-1]).record) == format_table(read_run(run).record)
    render_comparison(copies, tmp_path / "out")
    for name in ("comparison.csv", "comparison.md", "comparison.tex"):
        assert (tmp_path / "out" / name).read_text() == (compared / name).read_text()


METHODS = sorted((Path(__file__).parents[2] / "recipes" / "ham10000" / "results").glob("*-age"))


def test_methods_given_one_by_one_and_as_one_comparison_give_the_same_tables(tmp_path):
    render_comparison(METHODS, tmp_path / "one_by_one")
    merged = merge_methods([RunFolder(path).read() for path in METHODS])
    assert (merged.chosen, merged.reference) == (None, "full")
    RunFolder(tmp_path / "merged").write(merged)
    render_comparison([tmp_path / "merged"], tmp_path / "merged")
    for name in ("comparison.csv", "comparison.md", "comparison.tex", "comparison.html"):
        assert (tmp_path / "merged" / name).read_text() == (
            tmp_path / "one_by_one" / name
        ).read_text()
    with pytest.raises(ValueError, match=r"the method full on .* was given twice"):
        merge_methods([merged, RunFolder(METHODS[0].with_name("full-age")).read()])


def test_a_run_and_the_methods_of_a_comparison_stand_on_one_page(evaluated, tmp_path):
    render_comparison([evaluated, *METHODS], tmp_path)
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert table.groupby("setting")["reference"].first().tolist() == ["fairtune", "full"]
    assert set(rows_of(tmp_path, "## Ranks")) == set(table["method"])
    means = rows_of(tmp_path, "## Means")
    assert means["fairtune"]["AUC gap"] != means["lora"]["AUC gap"] == "\u2013"


def test_the_best_of_each_row_is_bold_and_low_gaps_are_best(compared, evaluated):
    run = runs(evaluated)[0]
    parts = {"fairtune": run, **run["controls"]}
    gaps = {name: part["test"]["auc_gap"] for name, part in parts.items()}
    rows = rows_of(compared, ": results")
    bold = {name: row["AUC gap"].startswith("**") for name, row in rows.items()}
    assert bold == {name: gap == min(gaps.values()) for name, gap in gaps.items()}


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
    for part in markdown.split("## ")[1:]:
        lines = [line for line in part.splitlines()[1:] if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "[link](" not in markdown
    with (compared / "comparison.csv").open(newline="") as file:
        assert len({len(row) for row in csv.reader(file)}) == 1


def test_latex_is_balanced_and_escaped(compared):
    text = (compared / "comparison.tex").read_text()
    bare = re.sub(r"\\[{}%&_#$]", "", text)
    assert bare.count("{") == bare.count("}")
    for part in text.split("\\begin{tabular}")[1:]:
        rows = [line for line in part.splitlines() if line.endswith("\\\\")]
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
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
