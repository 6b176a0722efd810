import json
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, roc_auc_score

from fairtune_hf.reports import render_report, scores, svg
from fairtune_hf.reports.loaded_run import read_run
from fairtune_hf.reports.mask_figures import best_masks
from fairtune_hf.reports.masks import mask_grid, preset_masks
from fairtune_hf.reports.page import best_trials, draw_figures
from fairtune_hf.reports.search_figures import pareto_front


@pytest.fixture(scope="module")
def drawn(evaluated):
    return draw_figures(read_run(evaluated))


def test_every_figure_of_an_evaluated_run_is_drawn(drawn):
    assert set(drawn) == {
        "differences", "group_auc", "roc", "reliability", "mask", "mask_frequency",
        "search_history", "learning_curves", "group_curves", "pareto",
    }  # fmt: skip


def test_the_area_under_the_drawn_roc_is_the_auc_of_the_table(drawn, evaluated):
    run = json.loads((evaluated / "run.json").read_text())
    for name, rows in drawn["roc"].data.groupby("group"):
        area = auc(rows["false_positive_rate"], rows["true_positive_rate"])
        assert area == pytest.approx(run["test"]["groups"][name]["auc"], abs=0.005)


def test_bins_hold_every_picture_once_and_their_means(evaluated):
    frame = scores.refit_predictions(read_run(evaluated), "test")
    bins = scores.reliability_points(frame)
    for name, rows in frame.groupby("group"):
        held = bins[bins["group"] == name]
        assert held["n"].sum() == len(rows)
        assert held["n"].min() >= scores.ROWS_PER_BIN
        assert np.average(held["mean_score"], weights=held["n"]) == pytest.approx(
            rows["score"].mean()
        )
        assert (held["low"] <= held["share_positive"]).all()
        assert (held["share_positive"] <= held["high"]).all()


def test_the_reliability_caption_says_what_its_intervals_leave_out(drawn):
    assert "take pictures for independent" in drawn["reliability"].caption


def test_only_the_chosen_refit_is_read(evaluated):
    folder = read_run(evaluated)
    frame = scores.refit_predictions(folder, "test")
    assert len(frame) == folder.record.dataset.rows["test"]
    assert roc_auc_score(frame["label"], frame["score"]) == pytest.approx(
        folder.result("test").value("overall_auc"), abs=1e-12
    )


def test_the_operating_point_by_hand():
    frame = pd.DataFrame(
        {"group": "a", "label": [0, 0, 0, 1, 1], "score": [0.1, 0.5, 0.2, 0.9, 0.4]}
    )
    row = scores.operating_rows(frame, 0.5)[0]
    assert (row.sensitivity, row.specificity) == ("0.50", "0.67")
    assert (row.prevalence, row.called, row.mean_score) == ("0.40", "0.40", "0.42")


@pytest.mark.parametrize(
    ("positive", "n", "expected"),
    [(0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634)), (10, 10, (0.7225, 1.0))],
)
def test_wilson_interval(positive, n, expected):
    assert scores.wilson_interval(positive, n) == pytest.approx(expected, abs=1e-4)


def test_the_front_holds_what_nothing_beats():
    assert pareto_front([1, 2, 3, 2], [3, 2, 1, 1]) == [True, True, True, False]
    assert pareto_front([1, 1], [1, 1]) == [True, True]


def test_the_best_quarter_is_taken_from_completed_trials(evaluated):
    trials = pd.read_csv(evaluated / "trials.csv", dtype={"mask": str})
    done = trials[trials["state"] == "COMPLETE"].sort_values("value", ascending=False)
    assert best_masks(read_run(evaluated)) == done["mask"].head(5).tolist()


def test_the_best_so_far_is_a_completed_trial(evaluated, tmp_path):
    """A pruned trial's last value counts for nothing, however high it is."""
    path = Path(shutil.copytree(evaluated, tmp_path / "run"))
    trials = pd.read_csv(path / "trials.csv", dtype={"mask": str})
    trials.loc[trials["state"] == "PRUNED", "value"] = 0.99
    trials.to_csv(path / "trials.csv", index=False)
    drawn = draw_figures(read_run(path))
    best = trials.loc[trials["state"] == "COMPLETE", "value"].max()
    assert drawn["search_history"].data["best_so_far"].max() == best
    assert not drawn["pareto"].data["value"].eq(0.99).any()
    assert best_masks(read_run(path)) == best_masks(read_run(evaluated))


def test_where_small_is_good_the_best_is_the_smallest(make_run):
    folder = read_run(make_run(directions={"auc_gap": "minimize"}))
    done = folder.trials[folder.trials["state"] == "COMPLETE"].sort_values("value")
    shown = [float(row["value"]) for row in best_trials(folder.trials, folder.objective[1])]
    assert shown == done["value"].head(5).round(3).tolist()
    assert best_masks(folder) == done["mask"].head(5).tolist()
    drawn = draw_figures(folder)
    assert drawn["search_history"].data["best_so_far"].iloc[-1] == done["value"].min()
    for name in ("search_history", "learning_curves", "pareto"):
        assert "AUC gap (lower is better), validation" in drawn[name].drawing
        assert "min-group" not in drawn[name].drawing.lower()
    points = drawn["pareto"].data
    beaten = [
        ((points["overall_auc"] >= x) & (points["value"] < y)).any()
        for x, y in zip(points["overall_auc"], points["value"], strict=True)
    ]
    assert (points["on_front"] == ~pd.Series(beaten, index=points.index)).all()


def test_the_front_of_several_objectives_is_of_the_first_two(make_run):
    path = make_run(directions={"min_auc": "maximize", "auc_gap": "minimize"})
    trials = pd.read_csv(path / "trials.csv", dtype={"mask": str})
    done = trials["state"] == "COMPLETE"
    trials.loc[done, "auc_gap"] = np.linspace(0.2, 0.1, done.sum())
    trials.to_csv(path / "trials.csv", index=False)
    figure = draw_figures(read_run(path))["pareto"]
    assert figure.title == "AUC gap against min-group AUC"
    assert list(figure.data.columns[:3]) == ["number", "auc_gap", "value"]
    assert figure.data.loc[figure.data["auc_gap"].idxmin(), "on_front"]
    assert not figure.data.loc[figure.data["auc_gap"].idxmax(), "on_front"]


def test_a_search_for_overall_auc_is_set_against_the_gap(make_run):
    figure = draw_figures(read_run(make_run(directions={"overall_auc": "maximize"})))["pareto"]
    assert figure.title == "AUC gap against overall AUC"


def test_mask_frequency_counts(drawn, evaluated):
    masks = best_masks(read_run(evaluated))
    expected = np.mean([[int(bit) for bit in mask] for mask in masks], axis=0)
    assert drawn["mask_frequency"].data["share"].to_numpy() == pytest.approx(expected)


BLOCK4 = [f"blocks.{b}.{p}" for b in range(2) for p in ("norm1", "attention", "norm2", "mlp")]


def test_a_grid_follows_the_names():
    grid = mask_grid("10010110", BLOCK4)
    assert grid.blocks == 2
    assert grid.parts == ("norm1", "attention", "norm2", "mlp")
    assert grid.cells[(3, 0)]
    assert not grid.cells[(3, 1)]
    assert grid.cells[(1, 1)]
    assert mask_grid("10", BLOCK4) is None
    assert mask_grid("", []) is None
    assert mask_grid("1", ["somewhere else"]) is None


def test_presets_of_a_layout():
    assert preset_masks(BLOCK4) == {
        "none": "00000000",
        "attention": "01000100",
        "layernorm": "10101010",
        "mlp": "00010001",
        "full_blocks": "11111111",
    }
    assert preset_masks(["blocks.0.attention"]) == {"none": "0", "attention": "1"}


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-0.02, 0.05, [-0.02, 0.0, 0.02, 0.04])],
)
def test_ticks_are_round(low, high, ticks):
    assert svg.nice_ticks(low, high) == pytest.approx(ticks)
    assert svg.nice_ticks(1.0, 1.0) == [1.0]


def test_text_and_attributes_are_escaped():
    drawing = svg.element("text", "<b>", class_='a"b')
    assert drawing == '<text class="a&#34;b">&lt;b&gt;</text>'


def test_lines_pass_over_what_is_undefined():
    axes = svg.Axes((0, 2), (0, 1))
    line = axes.line([0, 1, 2], [0, float("nan"), 1], "line")
    assert line.count(",") == 2


def test_curves_of_a_small_group_are_not_drawn(nasty):
    path = nasty / "curves.csv"
    curves = pd.read_csv(path).rename(columns={"auc_light": "auc_tiny"})
    curves.to_csv(path, index=False)
    figure = draw_figures(read_run(nasty))["group_curves"]
    assert "auc_tiny" not in figure.data
    assert "auc_dark" in figure.data


def test_a_large_run_is_quick_and_small(make_run):
    """A hundred trials and twenty thousand predictions: 20 s on one core and 5 MB are the limits."""
    groups = {"light": (1900, 1.9), "medium": (1000, 1.6), "dark": (434, 1.0)}
    path = make_run(groups=groups, trials=100)
    assert len(pd.read_parquet(path / "predictions.parquet")) >= 20_000
    start = time.process_time()
    page = render_report(path)
    assert time.process_time() - start < 20
    assert page.stat().st_size < 5_000_000


def test_a_second_rendering_is_the_same(evaluated, tmp_path):
    path = Path(shutil.copytree(evaluated, tmp_path / "again"))
    assert render_report(path).read_bytes() == render_report(evaluated).read_bytes()
