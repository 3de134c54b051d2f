"""Comparisons: how far groups of runs differ, and whether by chance; what goes with what.

Conventions are those of ``stabkit.stats``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from stabkit.errors import StabkitError
from stabkit.stats import RESAMPLES, Estimate, Floats, group_of, resampler, wilson


class VarianceTest(NamedTuple):
    """Is ``group`` as spread out as the reference? Raw p values; ``holm`` corrects several."""

    group: str
    levene: float
    brown_forsythe: float


def fisher(failures: int, runs: int, other_failures: int, other_runs: int) -> float:
    """Return the two-sided p of Fisher's exact test that two groups fail equally often."""
    for failed, n in ((failures, runs), (other_failures, other_runs)):
        if not 0 <= failed <= n or n == 0:
            raise StabkitError(f"{failed} failures of {n} runs; expected 0 <= failures <= runs")
    successes = (runs - failures, other_runs - other_failures)
    return float(stats.fisher_exact([[failures, other_failures], successes]).pvalue)


def seeds_to_tell(one: float, other: float, most: int, power: float = 0.8) -> int | None:
    """Return how many runs of each of two groups it takes to tell their failure rates apart.

    That is the least number up to ``most`` at which Fisher's exact test (two-sided, 5 %) finds the
    difference of the rates ``one`` and ``other`` with probability ``power``; None if none does.
    """
    for rate in (one, other):
        if not 0 <= rate <= 1:
            raise StabkitError(f"a failure rate of {rate:g}; expected a share from 0 to 1")
    enough = (n for n in range(2, most + 1) if _power(one, other, n) >= power)
    return next(enough, None)


def _power(one: float, other: float, n: int) -> float:
    """Return how often Fisher's test of two groups of ``n`` runs rejects at 5 %."""
    counts = np.arange(n + 1)
    chances = np.outer(stats.binom.pmf(counts, n, one), stats.binom.pmf(counts, n, other))
    return float((chances * _rejected(n)).sum())


@lru_cache(maxsize=64)
def _rejected(n: int) -> NDArray[np.bool_]:
    """Return which pairs of failure counts (0..n, 0..n) Fisher's test rejects at 5 %."""
    counts = np.arange(n + 1)
    rejected = np.zeros((n + 1, n + 1), dtype=bool)
    for total in range(2 * n + 1):
        first = counts[(counts <= total) & (total - counts <= n)]
        chance = stats.hypergeom.pmf(first, 2 * n, n, total)
        as_rare = chance[None] <= chance[:, None] * (1 + 1e-7)
        rejected[first, total - first] = (as_rare * chance).sum(axis=1) < 0.05
    return rejected


def rate_difference(one: tuple[int, int], other: tuple[int, int]) -> Estimate:
    """Failure rate of ``one`` minus that of ``other``, with Newcombe's interval (1998).

    Each is a pair: failures, runs.
    """
    a, b = wilson(*one), wilson(*other)
    value = a.value - b.value
    low = value - np.hypot(a.value - a.low, b.high - b.value)
    high = value + np.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, float(low), float(high))


def mean_difference(one: Floats, other: Floats) -> Estimate:
    """Mean of ``one`` minus mean of ``other``, with the percentile interval over their runs."""
    rng = resampler()
    means = [rng.choice(runs, size=(RESAMPLES, runs.size)).mean(axis=1) for runs in (one, other)]
    low, high = np.quantile(means[0] - means[1], (0.025, 0.975))
    return Estimate(float(one.mean() - other.mean()), float(low), float(high))


def rank_correlation(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Estimate:
    """Estimate Spearman's rank correlation of two numbers per run, both of shape (runs,).

    The interval is the percentile interval over resampled runs. A number that is the same in all
    runs has no ranks: then the value is NaN, and so are bounds where resamples may be like that.
    """
    one, other = group_of(x), group_of(y)
    if one.shape != other.shape or one.size < 2:
        raise StabkitError(
            f"{one.size} and {other.size} numbers; expected two per run, and two runs or more"
        )
    order = np.lexsort((other, one))  # the order of the runs does not matter
    one, other = one[order], other[order]
    counts = resampler().multinomial(one.size, np.full(one.size, 1 / one.size), size=RESAMPLES)
    found = [_spearman(one, other, part) for part in np.array_split(counts, 10)]  # for memory
    (value,) = _spearman(one, other, np.ones((1, one.size), dtype=np.int64))
    low, high = np.quantile(np.concatenate(found), ((1 - level) / 2, (1 + level) / 2))
    return Estimate(float(value), float(low), float(high))


def _spearman(x: Floats, y: Floats, counts: NDArray[np.int64]) -> Floats:
    """Rank correlation in samples with each run ``counts`` times, shape (samples, runs)."""
    centre = (x.size + 1) / 2
    one, other = (_midranks(values, counts) - centre for values in (x, y))
    spread = np.sqrt((counts * one**2).sum(axis=1) * (counts * other**2).sum(axis=1))
    together, nothing = (counts * one * other).sum(axis=1), np.full(len(counts), np.nan)
    return np.asarray(np.divide(together, spread, out=nothing, where=spread > 0))


def _midranks(values: Floats, counts: NDArray[np.int64]) -> Floats:
    """Ranks of ``values`` in each sample, ties at their mean; no sample is sorted."""
    _, first, group = np.unique(np.sort(values), return_index=True, return_inverse=True)
    order = np.argsort(values, kind="stable")
    sizes = np.add.reduceat(counts[:, order], first, axis=1)
    ranks = np.empty(counts.shape)
    ranks[:, order] = (np.cumsum(sizes, axis=1) - (sizes - 1) / 2)[:, group]
    return ranks


def variance_tests(groups: Mapping[str, ArrayLike], reference: str) -> list[VarianceTest]:
    """Test each group's variance against the reference's: Levene's test and Brown-Forsythe's.

    Levene (1960), the paper's test, measures distances from the group's mean; Brown and Forsythe
    (1974) from its median, which is safer where runs pile up at two levels. Each group has shape
    (runs,), two runs or more.
    """
    if reference not in groups or len(groups) < 2:
        raise StabkitError(f"{reference!r} and another group expected; got {', '.join(groups)}")
    base = group_of(groups[reference])
    others = {name: group_of(values) for name, values in groups.items() if name != reference}
    return [
        VarianceTest(name, *(_levene(base, group, center) for center in ("mean", "median")))
        for name, group in others.items()
    ]


def _levene(one: Floats, other: Floats, center: str) -> float:
    if min(one.size, other.size) < 2:
        raise StabkitError("a group has fewer than two runs, so no variance; run more seeds")
    if np.ptp(one) == 0 and np.ptp(other) == 0:
        return 1.0  # neither varies: nothing speaks for a difference
    with np.errstate(divide="ignore"):  # all distances equal within both groups: p = 0
        p = float(stats.levene(one, other, center=center).pvalue)
    return 1.0 if np.isnan(p) else p


def holm(p_values: ArrayLike) -> Floats:
    """Adjust p values, shape (tests,), by Holm's step-down rule (Holm 1979); order is kept."""
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise StabkitError(f"p values {p_values!r}; expected a list of numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted
