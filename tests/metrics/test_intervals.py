"""Bootstrap intervals and DeLong against SciPy and counting by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from fairtune_hf.metrics import bootstrap_interval, delong_auc, delong_difference
from fairtune_hf.metrics.bootstrap import bootstrap_p_value, critical_value
from fairtune_hf.metrics.checks import group_codes
from fairtune_hf.metrics.resampling import leave_out, patient_design


def draws_of_mean(data, n=200_000):
    rng = np.random.default_rng(1)
    return data[rng.integers(0, data.size, (n, data.size))].mean(axis=1)


@pytest.mark.parametrize(("ours", "theirs"), [("percentile", "percentile"), ("bca", "BCa")])
def test_against_scipy(ours, theirs):
    data = np.random.default_rng(0).exponential(size=40)
    want = stats.bootstrap(
        (data,), np.mean, n_resamples=200_000, method=theirs, rng=np.random.default_rng(2)
    ).confidence_interval
    jackknife = (data.sum() - data) / (data.size - 1)
    got = bootstrap_interval(
        draws_of_mean(data), method=ours, estimate=data.mean(), jackknife=jackknife
    )
    assert got == pytest.approx(tuple(want), abs=0.01)
    plain = bootstrap_interval(draws_of_mean(data))
    if ours == "bca":
        assert got[1] > plain[1] + 0.02  # the skew of the exponential, far above the tolerance


def test_widening_is_student_t():
    assert critical_value(0.95, 10) == pytest.approx(math.sqrt(10 / 9) * 2.2622, abs=1e-3)
    assert critical_value(0.9) == pytest.approx(1.6449, abs=1e-4)
    assert math.isnan(critical_value(0.95, 1))
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        critical_value(95)


def test_no_interval_without_draws_or_patients():
    assert all(map(math.isnan, bootstrap_interval(np.array([np.nan, np.nan]))))
    assert all(map(math.isnan, bootstrap_interval(np.arange(10.0), n_patients=1)))
    with pytest.raises(ValueError, match="needs the estimate"):
        bootstrap_interval(np.arange(10.0), method="bca")


@pytest.mark.parametrize("n_patients", [5, 20, math.inf])
def test_p_value_meets_the_interval_at_five_percent(n_patients):
    base = np.random.default_rng(0).normal(size=200_000)
    shift = critical_value(0.95, n_patients)
    assert bootstrap_p_value(base + shift, n_patients) == pytest.approx(0.05, abs=0.003)
    low, _ = bootstrap_interval(base + shift, n_patients=n_patients)
    assert low == pytest.approx(0.0, abs=0.05)


def test_leave_out_is_the_jackknife():
    labels = np.array([0, 1, 0, 1, 0, 0])
    design = patient_design(labels, group_codes(list("aabbbb"), 6), [0, 0, 1, 2, 3, 4])
    blocks = np.concatenate(list(leave_out(design)))
    assert blocks.shape == (5, 5)
    assert (blocks.sum(axis=0) == 4).all()
    assert (blocks.sum(axis=1) == 4).all()
    few = np.concatenate(list(leave_out(design, max_blocks=2)))
    assert few.shape == (2, 5)
    assert (few.sum(axis=0) == 1).all()


def by_hand(labels, scores):
    """DeLong's components, from the pairs."""
    x, y = scores[labels == 1], scores[labels == 0]
    psi = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    return psi.mean(), psi.mean(axis=1), psi.mean(axis=0)


@pytest.mark.parametrize("seed", range(5))
def test_delong_by_hand(seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], [45, 20]))
    first = np.round(rng.normal(size=65) + labels, 1)
    second = np.round(first + rng.normal(size=65), 1)
    auc, v10, v01 = by_hand(labels, first)
    got = delong_auc(labels, first)
    assert got.value == pytest.approx(auc, abs=1e-12)
    assert got.standard_error**2 == pytest.approx(v10.var(ddof=1) / 20 + v01.var(ddof=1) / 45)
    other, w10, w01 = by_hand(labels, second)
    pair = delong_difference(labels, first, second)
    assert pair.value == pytest.approx(auc - other, abs=1e-12)
    variance = (v10 - w10).var(ddof=1) / 20 + (v01 - w01).var(ddof=1) / 45
    assert pair.standard_error**2 == pytest.approx(variance)
    z = (auc - other) / math.sqrt(variance)
    assert pair.p_value == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert got.ci[0] < auc < got.ci[1] <= 1.0


def test_delong_where_nothing_can_be_said():
    perfect = delong_auc([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    assert perfect.value == 1.0
    assert all(map(math.isnan, perfect.ci))
    single = delong_auc([0, 0, 1], [0.1, 0.3, 0.2])
    assert single.value == 0.5
    assert math.isnan(single.standard_error)
    constant = delong_auc([0, 0, 1, 1], [0.5] * 4)
    assert (constant.value, constant.standard_error, constant.p_value) == (0.5, 0.0, 1.0)
    same = delong_difference([0, 0, 1, 1], [0.1, 0.3, 0.2, 0.4], [0.1, 0.3, 0.2, 0.4])
    assert (same.value, same.p_value) == (0.0, 1.0)
    with pytest.raises(ValueError, match="got 0 positive of 3"):
        delong_auc([0, 0, 0], [0.1, 0.2, 0.3])
