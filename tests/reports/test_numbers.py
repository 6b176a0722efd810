import pytest

from fairtune_hf.reports import numbers


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (1, "<10"), (9, "<10"), (10, "10"), (None, "\u2013")]
)
def test_counts_under_ten_are_hidden(value, shown):
    assert numbers.count(value) == shown


@pytest.mark.parametrize(
    ("n", "positive", "shown"),
    [(100, 40, "40"), (100, 3, "<10"), (100, 95, "all but <10"), (8, 4, "<10"), (100, 100, "100")],
)
def test_both_classes_are_protected(n, positive, shown):
    assert numbers.positives(n, positive) == shown


def test_undefined_numbers_are_a_dash_and_bounds_vanish():
    assert numbers.fraction(None) == numbers.fraction(float("nan")) == "\u2013"
    assert numbers.interval([0.5, None]) == numbers.interval(None) == ""
    assert numbers.fraction(-0.25) == "\u22120.250"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Group tiny has 3 rows, AUC 0.75.", "Group tiny has <10 rows, AUC 0.75."),
        ("Group tiny has 8 rows.", "Group tiny has <10 rows."),
        ("Group tiny: n=7, positives=2", "Group tiny: n=<10, positives=<10"),
        ("Group big has 3 rows.", "Group big has 3 rows."),
        ("The destiny of 3 rows.", "The destiny of 3 rows."),
        ("tiny is 1 of 12 groups and 0.5 of 95", "tiny is <10 of 12 groups and 0.5 of 95"),
    ],
)
def test_warnings_of_small_groups_lose_their_counts(message, shown):
    assert numbers.hide_small_counts(message, {"tiny"}) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(3.25, "3.2 s"), (42, "42 s"), (600, "10 min"), (7200, "2.0 h")]
)
def test_durations(value, shown):
    assert numbers.seconds(value) == shown
