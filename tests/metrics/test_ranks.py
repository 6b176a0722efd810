"""The published averages and ranks, from the paper's own tables as printed."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from fairtune_hf.metrics import average_ranks, average_scores, rank_methods, round_half_up

HIGHER = {"overall_auc": True, "min_auc": True}


@pytest.fixture(scope="session")
def paper_tables():
    root = os.environ.get("FAIRTUNE_DATA")
    if root is None:
        pytest.skip("FAIRTUNE_DATA is not set: the paper's tables are beside the data")
    folder = Path(root).parent / "spec" / "paper_tables"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    return {name: pd.read_csv(folder / f"table{name}.csv") for name in (1, 3, 4, 6)}


def settings_by_method(table, metric):
    rows = table[(table.metric == metric) & (table.dataset != "AVERAGE")]
    return rows.pivot_table(
        index=["dataset", "attribute"], columns="method", values="value", sort=False
    )


def published(table, metric, what):
    rows = table[
        (table.dataset == "AVERAGE") & (table.attribute == what) & (table.metric == metric)
    ]
    return rows.set_index("method")["value"]


@pytest.mark.parametrize(("number", "count"), [(1, 24), (3, 40), (4, 30)])
def test_published_averages(paper_tables, number, count):
    table = paper_tables[number]
    checked = 0
    for metric in table.metric.unique():
        got = average_scores(settings_by_method(table, metric))
        for method, value in published(table, metric, "AVG_SCORE").items():
            assert round_half_up(got[method]) == value, (metric, method)
            checked += 1
    assert checked == count


# How many published ranks a tie rule gives, counted by hand. Tables 1 and 3 share
# the first three columns.
RANKS = [
    (3, "overall_auc", "average", 8), (3, "overall_auc", "competition", 6),
    (3, "eoddsd", "competition", 8),
    (3, "eoddsd", "average", 4),
    (3, "dpd", "competition", 8),
    (3, "dpd", "average", 6),
    (4, "overall_auc", "average", 6), (4, "overall_auc", "competition", 6),
    (4, "min_auc", "competition", 5), (4, "gap_auc", "competition", 5),
    (4, "eoddsd", "competition", 6),
    (4, "dpd", "average", 6),
    (6, "overall_auc", "competition", 4), (6, "min_auc", "average", 4),
    (6, "gap_auc", "competition", 4),
]  # fmt: skip


@pytest.mark.parametrize(("number", "metric", "ties", "count"), RANKS)
def test_published_ranks(paper_tables, number, metric, ties, count):
    table = paper_tables[number]
    scores = settings_by_method(table, metric)
    got = average_ranks(scores, higher_is_better=HIGHER.get(metric, False), ties=ties)
    want = published(table, metric, "AVG_RANK")
    assert len(want) > 0
    assert sum(round_half_up(got[method]) == value for method, value in want.items()) == count


@pytest.mark.parametrize("number", [1, 3, 4, 6])
def test_published_ranks_lie_between_best_and_worst_place(paper_tables, number):
    table = paper_tables[number]
    for metric in table.metric.unique():
        scores = settings_by_method(table, metric)
        better = HIGHER.get(metric, False)
        low = average_ranks(scores, higher_is_better=better, ties="competition")
        high = average_ranks(scores, higher_is_better=better, ties="worst")
        for method, value in published(table, metric, "AVG_RANK").items():
            assert low[method] - 0.051 <= value <= high[method] + 0.051


@pytest.mark.parametrize(("ties", "scipy_name"), [("average", "average"), ("competition", "min")])
def test_ranks_equal_scipy(ties, scipy_name):
    values = np.random.default_rng(0).integers(0, 4, (30, 6)).astype(float)
    frame = pd.DataFrame(values, columns=list("abcdef"))
    got = rank_methods(frame, higher_is_better=True, ties=ties)
    want = np.apply_along_axis(rankdata, 1, -values, method=scipy_name)
    assert (got.to_numpy() == want).all()
    low = rank_methods(frame, higher_is_better=False, ties=ties)
    assert (low.to_numpy() == np.apply_along_axis(rankdata, 1, values, method=scipy_name)).all()


def test_missing_score_has_no_rank():
    frame = pd.DataFrame({"a": [0.9, np.nan], "b": [0.8, 0.7]})
    assert rank_methods(frame, higher_is_better=True)["a"].isna().tolist() == [False, True]
    assert average_ranks(frame, higher_is_better=True).to_dict() == {"a": 1.0, "b": 1.5}


def test_bad_input():
    with pytest.raises(ValueError, match="Did you mean 'competition'"):
        rank_methods(pd.DataFrame({"a": [1.0]}), higher_is_better=True, ties="competitive")
    with pytest.raises(ValueError, match="one column per method"):
        average_scores(pd.DataFrame())


@pytest.mark.parametrize(("value", "want"), [
    (0.25, 0.3), (0.35, 0.4), (-0.25, -0.3), (76.149999999999, 76.2), (76.1499, 76.1), (3.0, 3.0),
])  # fmt: skip
def test_half_up(value, want):
    assert round_half_up(value) == want
    assert np.isnan(round_half_up(float("nan")))
