"""Luck in the best of many trials."""

import numpy as np
import pytest

from fairtune_hf.metrics import selection_optimism


def test_all_noise_and_no_noise():
    values = np.array([0.6, 0.7, 0.8])
    assert float(selection_optimism(values, 10.0)) == pytest.approx(0.1)
    assert float(selection_optimism(values, 0.0)) == 0.0
    assert float(selection_optimism([0.7], 0.05)) == 0.0


def test_direction_and_missing_values():
    values = np.array([0.1, 0.2, np.nan, 0.3])
    low = selection_optimism(values, 0.05, direction="minimize")
    high = selection_optimism(-values, 0.05)
    assert float(low) == pytest.approx(float(high))
    assert low.expected_value == pytest.approx(-high.expected_value)
    assert low.best_value == 0.1
    assert low.n_trials == 3


NOISE = 0.03


def equal(rng, n):
    return np.zeros(n)


def normal(rng, n):
    return rng.normal(0, NOISE, n)


def wide(rng, n):
    return rng.normal(0, 2 * NOISE, n)


def uniform(rng, n):
    return rng.uniform(-3 * NOISE, 0, n)


def plateau(rng, n):
    return -rng.exponential(2 * NOISE, n)


def partly_failed(rng, n):
    truth = rng.normal(0, 0.7 * NOISE, n)
    return truth - (rng.random(n) < 0.3) * rng.uniform(3, 8, n) * NOISE


def adaptive(rng, n):
    """A search in 5 dimensions that comes back to where it saw good values."""
    points, seen, truth = [], [], []
    for step in range(n):
        point = rng.uniform(-1, 1, 5)
        if step >= 10 and rng.random() < 0.9:
            best = np.argsort(seen)[-max(1, step // 5) :]
            point = np.clip(points[rng.choice(best)] + rng.normal(0, 0.3, 5), -1, 1)
        points.append(point)
        truth.append(-2 * NOISE * (point**2).sum())
        seen.append(truth[-1] + rng.normal(0, NOISE))
    return np.array(truth), np.array(seen)


def search(kind, rng, n):
    if kind is adaptive:
        return adaptive(rng, n)
    truth = kind(rng, n)
    return truth, truth + rng.normal(0, NOISE, n)


def mean_ratio(kind, n, searches, seed=0):
    """Mean estimate over mean true luck of simulated searches."""
    rng = np.random.default_rng(seed)
    luck, estimate = [], []
    for _ in range(searches):
        truth, seen = search(kind, rng, n)
        best = seen.argmax()
        luck.append(seen[best] - truth[best])
        estimate.append(float(selection_optimism(seen, NOISE)))
    return np.mean(estimate) / np.mean(luck)


def test_shared_noise_makes_it_an_upper_estimate_unless_the_correlation_is_told():
    """Noise with correlation 0.8, as of trials judged on the same patients."""
    rng = np.random.default_rng(0)
    luck, blind, told = [], [], []
    for _ in range(400):
        own = rng.normal(0, NOISE * np.sqrt(0.2), 40)
        truth = rng.normal(0, NOISE / 2, 40)
        seen = truth + own + rng.normal(0, NOISE * np.sqrt(0.8))
        luck.append(own[seen.argmax()])
        blind.append(float(selection_optimism(seen, NOISE)))
        told.append(float(selection_optimism(seen, NOISE, correlation=0.8)))
    assert np.mean(blind) > 1.8 * np.mean(luck)
    assert np.mean(told) == pytest.approx(np.mean(luck), rel=0.3)


def test_calibrated_on_simulated_searches():
    assert mean_ratio(equal, 60, 200) == pytest.approx(1.0, abs=0.15)
    assert mean_ratio(normal, 60, 200) == pytest.approx(1.0, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 60, 100])
@pytest.mark.parametrize("kind", [equal, normal, wide, uniform, plateau, partly_failed, adaptive])
def test_calibrated_on_all_kinds_of_searches(kind, n):
    assert mean_ratio(kind, n, 1500) == pytest.approx(1.0, abs=0.2)


def test_the_papers_hundred_trials_on_papila():
    """100 equal masks and a standard error of 2.8 points: about 7 points of luck."""
    values = 0.75 + np.random.default_rng(1).normal(0, 0.028, 100)
    assert float(selection_optimism(values, 0.028)) == pytest.approx(0.07, abs=0.02)


@pytest.mark.parametrize(("arguments", "match"), [
    (([], 0.1), "at least one completed trial"),
    (([0.5], -1.0), "finite number >= 0"),
])  # fmt: skip
def test_bad_input(arguments, match):
    with pytest.raises(ValueError, match=match):
        selection_optimism(*arguments)
