"""The evaluate step on drawn predictions: what it writes to run.json, once and again."""

import pytest

from fairtune_hf.hub import render_card
from fairtune_hf.metrics import collapse_flag, compare_predictions, holm_p_values
from fairtune_hf.reports import evaluate_run, render_report
from fairtune_hf.run_folder import RunFolder

RESAMPLES = 100


@pytest.fixture
def folder(make_run):
    """A run with predictions of its own and of two controls."""
    return RunFolder(make_run())


def change(folder, change_table):
    """Change a folder's predictions, which stay marked with the choice they are of."""
    before = folder.read_predictions()
    changed = change_table(before)
    changed.attrs = before.attrs
    folder.write_predictions(changed)


def test_p_values_are_corrected_for_the_controls_of_a_metric(folder):
    record = evaluate_run(folder.path, n_resamples=RESAMPLES)
    assert len(record.comparisons) == 6
    for metric in ("min_auc", "overall_auc", "auc_gap"):
        held = [item for item in record.comparisons if item.metric == metric]
        plain = {item.reference: item.p_value for item in held}
        assert {item.reference: item.p_value_holm for item in held} == holm_p_values(plain)
        assert any(item.p_value_holm > item.p_value for item in held)
    first = record.comparisons[0]
    own, other = folder.read_predictions(), folder.control("full_blocks").read_predictions()
    again = compare_predictions(
        own[own["split"] == "test"],
        other[other["split"] == "test"],
        sensitive="skin_type",
        n_resamples=RESAMPLES,
    )
    assert (first.p_value, first.n_seeds) == (again.p_value, 3)
    assert "tests corrected by Holm for 2 controls" in record.verdict


def test_what_a_comparison_warns_of_is_kept(folder):
    for one in (folder, folder.control("full_blocks"), folder.control("linear_readout")):
        change(one, lambda table: table[table["seed"] == 0])
    record = evaluate_run(folder.path, n_resamples=RESAMPLES)
    words = "Each table has one training seed: the chance of its training is not in the interval."
    for reference in ("full_blocks", "linear_readout"):
        assert f"the chosen mask minus {reference}, test: {words}" in record.warnings
    assert all("warnings" not in item.more for item in record.comparisons)


def test_warnings_of_an_earlier_evaluation_do_not_stay(folder):
    whole = folder.read_predictions()
    change(folder, lambda table: table.drop(columns="patient"))
    before = evaluate_run(folder.path, n_resamples=RESAMPLES).warnings
    assert any("no patient column" in text for text in before)
    change(folder, lambda table: whole)
    after = evaluate_run(folder.path, n_resamples=RESAMPLES).warnings
    assert not any("no patient column" in text for text in after)
    assert "Group 'dark' has few rows: its interval is wide." in after  # of the search
    assert evaluate_run(folder.path, n_resamples=RESAMPLES).warnings == after


def test_constant_scores_are_flagged_in_every_refit(folder):
    change(folder, lambda table: table.assign(score=0.2))
    record = evaluate_run(folder.path, n_resamples=RESAMPLES)
    assert record.own.result("test").values["collapse"] == {
        "collapsed": True,
        "reason": "the scores are constant",
    }
    assert "chosen mask ranked hardly better than chance (collapsed)" in record.verdict
    control = record.methods["full_blocks"].result("test")
    assert control.values["collapse"] is None
    assert collapse_flag(control.value("overall_auc"), control.interval("overall_auc")) is None
    assert folder.read() == record


def test_refits_of_another_choice_are_not_measured(folder):
    with folder.editing() as record:
        record.methods["full_blocks"].choice.learning_rate *= 2  # as after a longer search
    with pytest.raises(FileNotFoundError, match=r"none of this choice.*fairtune finetune"):
        evaluate_run(folder.path, n_resamples=RESAMPLES)


def test_a_test_that_ranks_upside_down_is_said_in_the_record_the_report_and_the_card(folder):
    change(folder, lambda table: table.assign(score=1 - table["score"]))
    record = evaluate_run(folder.path, n_resamples=RESAMPLES)
    low, high = record.own.result("test").interval("overall_auc")
    assert high < 0.5
    words = f"The interval of the overall AUC, {low:.3f} to {high:.3f}, lies wholly below one half"
    assert [w for w in record.warnings if w.startswith(f"the chosen mask, test: {words}")]
    page = render_report(folder.path).read_text(encoding="utf-8")
    card = render_card(folder.path).read_text(encoding="utf-8")
    for text in (page, card):
        assert words in " ".join(text.split())
