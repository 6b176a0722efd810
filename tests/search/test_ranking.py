"""The ranking of masks by noisy values: known effects are found, noise is not believed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairtune_hf.search.ranking import (
    draw_masks,
    pick_apart,
    rank_masks,
    split_half_reliability,
    standardise,
)


def some_masks(rng, count=300, bits=36):
    return (rng.random((count, bits)) < rng.choice([0.15, 0.35, 0.5, 0.7], (count, 1))).astype(int)


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_an_effect_of_bits_is_ranked_better_than_by_the_values(noise):
    """Against the truth, which a simulation knows: correlation of estimates and of plain values."""
    ours, plain = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        masks = some_masks(rng)
        truth = standardise(masks @ rng.normal(size=36))
        halves = truth + noise * np.sqrt(2) * rng.normal(size=(2, 10, 300))
        values = truth + noise * rng.normal(size=300)
        found = rank_masks(masks, values, split_half_reliability(*halves))
        ours.append(np.corrcoef(found.estimates, truth)[0, 1])
        plain.append(np.corrcoef(values, truth)[0, 1])
    assert np.mean(ours) > np.mean(plain) + 0.02
    assert np.mean(ours) > (0.9 if noise < 2 else 0.75)


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_reliability_is_the_share_of_the_variance_that_is_no_noise(noise):
    found = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=200)
        halves = truth + noise * np.sqrt(2) * rng.normal(size=(2, 1, 200))
        found.append(split_half_reliability(*halves))
    assert np.mean(found) == pytest.approx(1 / (1 + noise**2), abs=0.03)


def test_of_pure_noise_next_to_nothing_is_kept():
    spreads = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        masks = some_masks(rng)
        halves = rng.normal(size=(2, 20, 300))
        found = rank_masks(masks, rng.normal(size=300), split_half_reliability(*halves))
        assert found.reliability < 0.15
        spreads.append(found.estimates.std())
    assert np.mean(spreads) < 0.35


def test_halves_that_are_not_defined_count_for_nothing():
    nothing = np.full((3, 5), np.nan)
    assert split_half_reliability(nothing, nothing) == 0.0
    one = np.array([[1.0, 2.0, 3.0], [np.nan, 1.0, 2.0]])
    assert split_half_reliability(one, one) == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 8))
def test_picks_lie_apart_and_nothing_better_was_left(seed, count, apart):
    rng = np.random.default_rng(seed)
    masks, estimates = rng.integers(0, 2, (40, 12)), rng.normal(size=40)
    found = pick_apart(masks, estimates, count, apart=apart)
    assert found[0] == estimates.argmax()
    assert len(found) <= count
    for place, other in itertools.pairwise(found):
        assert estimates[place] >= estimates[other]
    for i, place in enumerate(found):
        assert all((masks[place] != masks[other]).sum() >= apart for other in found[:i])
        passed = [k for k in range(40) if estimates[k] > estimates[place] and k not in found[:i]]
        assert all(any((masks[k] != masks[o]).sum() < apart for o in found[:i]) for k in passed)


def test_what_is_ranked_holds_presets_and_runs_of_blocks_once_each():
    masks = draw_masks([[1, 1, 1] * 12, [0, 1, 0] * 12], 36, 3, 300, seed=1)
    assert len(masks) == 300 == len({tuple(mask) for mask in masks})
    rows = {"".join(map(str, mask)) for mask in masks}
    assert "111" * 4 + "000" * 8 in rows
    assert "000" * 8 + "111" * 4 in rows
    assert "010" * 12 in rows
    assert (draw_masks([], 36, 3, 300, seed=1) == draw_masks([], 36, 3, 300, seed=1)).all()
    assert len(draw_masks([], 2, 1, 300, seed=1)) == 3
