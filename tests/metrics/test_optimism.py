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


def test_calibrated_when_values_and_noise_are_normal():
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(400):
        truth = rng.normal(0.8, 0.02, 60)
        seen = truth + rng.normal(0, 0.03, 60)
        best = seen.argmax()
        errors.append(float(selection_optimism(seen, 0.03)) - (seen[best] - truth[best]))
    assert abs(np.mean(errors)) < 0.003


@pytest.mark.parametrize(("arguments", "match"), [
    (([], 0.1), "at least one completed trial"),
    (([0.5], -1.0), "finite number >= 0"),
])  # fmt: skip
def test_bad_input(arguments, match):
    with pytest.raises(ValueError, match=match):
        selection_optimism(*arguments)
