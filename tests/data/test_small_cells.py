import doctest
import itertools

import pytest

from fairtune_hf.data import small_cells
from fairtune_hf.data.small_cells import hidden_cells


def test_examples_run():
    assert doctest.testmod(small_cells).failed == 0


@pytest.mark.parametrize(
    ("people", "hidden"),
    [
        ({"a": 10, "b": 200}, {}),
        ({"a": 0, "b": 200}, {}),
        ({"a": 9, "b": 200}, {"a": "<10", "b": "not shown"}),
        ({"a": 9, "b": 200, "c": 0}, {"a": "<10", "b": "not shown"}),
        ({"a": 5, "b": 6, "c": 200}, {"a": "<10", "b": "<10"}),
        ({"a": 1, "b": 1, "c": 200}, {"a": "<10", "b": "<10", "c": "not shown"}),
        ({"a": 9}, {"a": "<10"}),
        ({}, {}),
    ],
)
def test_what_is_hidden(people, hidden):
    assert hidden_cells(people) == hidden


@pytest.mark.parametrize("sizes", [*itertools.product([0, 1, 4, 9, 10, 57], repeat=3)])
def test_no_count_is_the_total_less_what_is_shown(sizes):
    people = dict(zip("abc", sizes, strict=True))
    hidden = hidden_cells(people)
    rest = sum(people.values()) - sum(n for cell, n in people.items() if cell not in hidden)
    if any(n >= 10 for n in sizes) and hidden:
        assert len(hidden) > 1
        assert rest >= 10
