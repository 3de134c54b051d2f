"""Comparisons against scipy, closed forms and worked examples."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import levene, spearmanr

from stabkit.effects import (
    _rejected,
    _spearman,
    fisher,
    holm,
    mean_difference,
    rank_correlation,
    rate_difference,
    seeds_to_tell,
    variance_tests,
)
from stabkit.errors import StabkitError
from stabkit.stats import RESAMPLES

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("counts", [(1, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(StabkitError, match="failures of"):
        fisher(0, 5, *counts)


def test_fisher_closed_form_and_symmetry() -> None:
    # All of one group and none of the other: 2 of the C(10, 5) equally likely tables.
    assert fisher(5, 5, 0, 5) == pytest.approx(2 / 252)
    assert fisher(3, 25, 14, 25) == pytest.approx(fisher(14, 25, 3, 25))
    assert fisher(4, 20, 5, 25) == pytest.approx(1)


def test_newcombe_s_interval_of_a_worked_example() -> None:
    # Newcombe (1998), table II, column 10: 56 of 70 against 48 of 80.
    found = rate_difference((56, 70), (48, 80))
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    reverse = rate_difference((48, 80), (56, 70))
    assert reverse == pytest.approx((-0.2, -0.3339, -0.0524), abs=5e-5)


@settings(max_examples=40, deadline=None)
@given(p_values)
def test_holm_is_monotone_between_raw_and_bonferroni(p: list[float]) -> None:
    raw, adjusted = np.array(p), holm(p)
    assert np.all(adjusted >= raw)
    assert np.all(adjusted <= np.minimum(1, raw * len(p)) + 1e-15)
    assert np.all(np.diff(adjusted[np.argsort(raw, kind="stable")]) >= 0)


def test_holm_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    with pytest.raises(StabkitError, match="0 to 1"):
        holm([0.1, np.nan])


def test_variance_tests_are_scipys() -> None:
    draws = rng()
    groups = {
        name: draws.normal(0, spread, 25) for name, spread in zip("abc", (1, 2, 8), strict=True)
    }
    tests = variance_tests(groups, "a")
    assert [test.group for test in tests] == ["b", "c"]
    for test in tests:
        pair = groups["a"], groups[test.group]
        assert test.levene == pytest.approx(levene(*pair, center="mean").pvalue)
        assert test.brown_forsythe == pytest.approx(levene(*pair, center="median").pvalue)


def test_variance_tests_of_constant_groups() -> None:
    constant, varied = np.full(5, 0.3), np.linspace(0, 1, 5)
    tests = variance_tests({"a": constant, "b": constant + 0.1, "c": varied}, "a")
    assert tests[0].levene == tests[0].brown_forsythe == 1
    assert tests[1].levene < 0.05
    with pytest.raises(StabkitError, match="fewer than two"):
        variance_tests({"a": varied, "b": [1.0]}, "a")
    with pytest.raises(StabkitError, match="expected"):
        variance_tests({"a": varied}, "a")


def test_rank_correlation_is_spearmans_with_an_interval() -> None:
    draws = rng()
    x = draws.normal(size=60).round(1)  # with ties
    y = -x + draws.normal(size=60)
    found = rank_correlation(x, y)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert -1 <= found.low < found.value < found.high < 0
    assert found == rank_correlation(x, y)
    assert rank_correlation(np.exp(x), y) == found


def test_rank_correlation_of_equal_numbers_is_unknown() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3])).all()
        assert np.isnan(rank_correlation([1, 2, 2], [1, 2, 3]).low)
    with pytest.raises(StabkitError, match="two per run"):
        rank_correlation([1, 2], [1, 2, 3])
    with pytest.raises(StabkitError, match="positions 1"):
        rank_correlation([1, np.nan], [1, 2])


def test_a_run_counted_twice_ranks_as_two_runs() -> None:
    draws = rng()
    x, y = draws.integers(0, 6, 20).astype(float), draws.normal(size=20).round(1)
    counts = draws.multinomial(20, np.full(20, 1 / 20), size=3)
    expected = [spearmanr(np.repeat(x, of), np.repeat(y, of)).statistic for of in counts]
    assert _spearman(x, y, counts) == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_the_rejections_behind_the_power_are_fisher_s(n: int) -> None:
    rejected = _rejected(n)
    for one in range(n + 1):
        for other in range(n + 1):
            assert rejected[one, other] == (fisher(one, n, other, n) < 0.05)


def test_seeds_to_tell_all_from_none_and_like_from_like() -> None:
    # All against none fail for certain: 4 of 4 is the least that Fisher's test rejects (2 / 70).
    assert seeds_to_tell(1.0, 0.0, 10) == 4
    assert seeds_to_tell(0.4, 0.4, 30) is None


def test_seeds_to_tell_gives_the_power_that_sampling_finds() -> None:
    seeds = seeds_to_tell(0.6, 0.1, 40)
    assert seeds is not None and seeds_to_tell(0.1, 0.6, 40) == seeds
    draws = rng().binomial(seeds, [[0.6], [0.1]], (2, 4000))
    found = _rejected(seeds)[draws[0], draws[1]].mean()
    assert 0.77 < found < 0.9


def test_a_rate_that_is_no_share_is_refused() -> None:
    with pytest.raises(StabkitError, match="a failure rate of 60"):
        seeds_to_tell(60, 0.1, 5)


def test_seeds_to_tell_may_be_as_many_as_there_are() -> None:
    assert seeds_to_tell(1.0, 0.0, 4) == 4
    assert seeds_to_tell(1.0, 0.0, 3) is None


def test_mean_difference_has_an_interval_of_95_percent() -> None:
    one, other = rng().normal(1, 1, 40), rng().normal(0, 2, 60)
    value, low, high = mean_difference(one, other)
    assert value == pytest.approx(one.mean() - other.mean())
    half = 1.96 * np.sqrt(one.var() / 40 + other.var() / 60)
    assert (value - low, high - value) == pytest.approx((half, half), rel=0.06)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_rank_correlation_has_the_coverage_that_is_asked_for(level: float) -> None:
    x = rng().normal(size=60)
    y = -x + np.random.default_rng(8).normal(size=60)
    _, low, high = rank_correlation(x, y, level)
    counts = rng().multinomial(60, np.full(60, 1 / 60), size=RESAMPLES)
    found = _spearman(x, y, counts)
    assert np.mean((low <= found) & (found <= high)) == pytest.approx(level, abs=0.02)
