"""What is spent: over restarts, side by side, and by trials that died."""

from __future__ import annotations

import datetime

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from fairtune_hf.search.arguments import PAPER, SearchArguments, apply_protocol
from fairtune_hf.search.budget import busy_seconds, count_epochs, spent_reason
from fairtune_hf.training import FitArguments

START = datetime.datetime(2026, 1, 1)


def trial(
    start: float, end: float | None, *, state: TrialState = TrialState.COMPLETE, epochs: int = 0
) -> FrozenTrial:
    found = create_trial(
        state=state,
        value=0.5 if state == TrialState.COMPLETE else None,
        user_attrs={"curve": [{"seconds": 10.0 * (i + 1)} for i in range(epochs)]},
    )
    found.datetime_start = START + datetime.timedelta(seconds=start)
    found.datetime_complete = None if end is None else START + datetime.timedelta(seconds=end)
    return found


def test_hours_are_those_in_which_something_ran() -> None:
    side_by_side = [trial(0, 100), trial(50, 150)]
    after_a_night = trial(40_000, 40_100)
    found_dead = trial(200, 39_000, state=TrialState.FAIL, epochs=3)  # buried at the restart
    assert busy_seconds([*side_by_side, after_a_night, found_dead]) == 150 + 100 + 30


def test_limits_are_named_when_they_are_reached() -> None:
    trials = [trial(0, 3600, epochs=5), trial(3600, 5400, epochs=5, state=TrialState.FAIL)]
    assert count_epochs(trials) == 10
    assert spent_reason(SearchArguments(), trials) is None
    assert spent_reason(SearchArguments(trained_epochs=11), trials) is None
    assert spent_reason(SearchArguments(trained_epochs=10), trials) == "10 epochs are trained"
    assert spent_reason(SearchArguments(hours=1.0), trials) == "the 1 hours are over"
    assert spent_reason(SearchArguments(hours=1.1), trials) is None


def test_the_papers_protocol_fills_what_was_not_given() -> None:
    search = apply_protocol(SearchArguments(pruner="none"), "paper", {"pruner"})
    training = apply_protocol(FitArguments(epochs=7), "paper", {"epochs"})
    assert (search.sampler, search.pruner, search.reduction_factor) == ("tpe_univariate", "none", 4)
    assert (training.epochs, training.batch_size) == (7, 512)
    assert training.warmup_fraction * 30 == pytest.approx(10)
    for name in PAPER:
        assert hasattr(search, name) or hasattr(training, name), name
    assert apply_protocol(SearchArguments(), "default", set()) == SearchArguments()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"search_epochs": "3,x"}, "parted by commas"),
        ({"workers": "0"}, "at least 1, or auto"),
        ({"storage": "mysql://x"}, "postgresql://"),
        ({"sampler": "cmaes", "objective": "min_auc,overall_auc"}, "several objectives"),
        ({"top_k_seeds": 1}, "standard error"),
        ({"hours": 0.0}, "more than 0"),
        ({"trained_epochs": -1}, "more than 0"),
        ({"control_trials": -1}, "at least 0"),
        ({"se_multiple": -1.0}, "at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchArguments(**settings)


def test_lengths_are_read_in_rising_order() -> None:
    assert SearchArguments(search_epochs="10, 3,5").epoch_choices() == (3, 5, 10)
