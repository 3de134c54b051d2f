"""Statistics of many runs: arrays in, numbers out (``stabkit.tables`` applies them to run tables).

Conventions, for every function here. A *group* is one array of shape ``(runs,)``: one number per
run, that is per seed. Rates, scores and MCC are shares (0..1 or -1..1), never percent. The
standard deviation is the sample's (divided by n - 1): the seeds are a sample of all seeds.
Intervals have 95 % coverage unless ``level`` says otherwise. What resamples takes the
``numpy.random.Generator`` it draws from, so that equal generators give equal intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from stabkit.errors import StabkitError

RESAMPLES = 9_999

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A number with the bounds of its interval; the bounds are NaN where none can be given."""

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """Return for example ``12.0 (4.2 to 30.0)``, or the number alone without bounds."""
        value, low, high = (100 * number for number in self)
        if np.isnan(value):
            return "none"
        return f"{value:.1f}" if np.isnan(low) else f"{value:.1f} ({low:.1f} to {high:.1f})"


@dataclass(frozen=True)
class Description:
    """One group of runs. ``std_successful`` leaves the failed runs out (NaN below two runs)."""

    runs: int
    failures: int
    failure_rate: Estimate
    std: Estimate
    std_successful: Estimate
    mean: Estimate
    median: Estimate
    min: float
    max: float


class PointStability(NamedTuple):
    """How often seeds disagree about a point, and how far their accuracies spread (section 7.1).

    ``per_point`` is the mean over points of the variance over seeds, E_x[Var_s 1(f_s(x) = y)];
    ``of_mean`` the variance over seeds of the mean over points, Var_s(E_x[1(f_s(x) = y)]), which
    is the accuracy's. Both are NaN below two runs.
    """

    per_point: Estimate
    of_mean: Estimate


class VarianceTest(NamedTuple):
    """Is ``group`` as spread out as ``reference``? p values raw and after Holm's correction."""

    group: str
    reference: str
    levene: float
    brown_forsythe: float
    levene_holm: float
    brown_forsythe_holm: float


def wilson(failures: int, runs: int, level: float = 0.95) -> Estimate:
    """Share of failed runs with Wilson's score interval (Wilson 1927), good at small n and at 0."""
    if not 0 <= failures <= runs or runs == 0:
        raise StabkitError(f"{failures} failures of {runs} runs; expected 0 <= failures <= runs")
    test = stats.binomtest(failures, runs)
    low, high = test.proportion_ci(confidence_level=level, method="wilson")
    return Estimate(failures / runs, min(float(low), failures / runs), float(high))


def fisher(failures: int, runs: int, other_failures: int, other_runs: int) -> float:
    """Return the two-sided p of Fisher's exact test that two groups fail equally often."""
    for failed, n in ((failures, runs), (other_failures, other_runs)):
        if not 0 <= failed <= n or n == 0:
            raise StabkitError(f"{failed} failures of {n} runs; expected 0 <= failures <= runs")
    successes = (runs - failures, other_runs - other_failures)
    return float(stats.fisher_exact([[failures, other_failures], successes]).pvalue)


def bootstrap(
    values: ArrayLike,
    statistic: Callable[..., Any],
    rng: np.random.Generator,
    level: float = 0.95,
) -> Estimate:
    """Estimate ``statistic`` of one group, ``values`` of shape (runs,), by resampling its runs.

    ``statistic`` takes an array and an ``axis``. The interval is the percentile interval: scores
    of unstable runs have two peaks, and there, at 25 runs, the BCa interval covers the std less
    often and is undefined for many a median. Bounds are NaN below two runs.
    """
    group = _group(values)
    value = float(statistic(group, axis=0)) if group.size else np.nan
    if group.size < 2:
        return Estimate(value, np.nan, np.nan)
    if np.ptp(group) == 0:
        return Estimate(value, value, value)
    low, high = stats.bootstrap(
        (group,),
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=rng,
    ).confidence_interval
    return Estimate(value, float(low), float(high))


def describe(scores: ArrayLike, failed: ArrayLike, rng: np.random.Generator) -> Description:
    """Describe one group from its ``scores`` and ``failed`` verdicts, both of shape (runs,).

    The largest score has no interval, because the bootstrap is inconsistent for extremes: no
    resample exceeds the largest run seen.
    """
    group, failures = _group(scores), np.asarray(failed, dtype=bool)
    if group.shape != failures.shape or group.size == 0:
        raise StabkitError(
            f"{group.size} scores and {failures.size} verdicts; expected one of each per run, "
            "and at least one run"
        )
    return Description(
        runs=group.size,
        failures=int(failures.sum()),
        failure_rate=wilson(int(failures.sum()), group.size),
        std=bootstrap(group, sample_std, rng),
        std_successful=bootstrap(group[~failures], sample_std, rng),
        mean=bootstrap(group, np.mean, rng),
        median=bootstrap(group, np.median, rng),
        min=float(group.min()),
        max=float(group.max()),
    )


def sample_std(values: Floats, axis: int = 0) -> Any:
    """Sample standard deviation along ``axis`` (divided by n - 1); NaN below two runs."""
    if values.shape[axis] < 2:
        return np.nan
    return np.std(values, axis=axis, ddof=1)


def point_stability(
    correct: ArrayLike, rng: np.random.Generator, level: float = 0.95
) -> PointStability:
    """Estimate both variances of section 7.1 from ``correct``, shape (runs, points): true or false.

    Resampled are the runs. A resample holds some of them twice, which lowers its variance by
    (n - 1) / n on average, so the resampled variances are scaled back before their percentiles
    are taken. Raises StabkitError for another shape or other values.
    """
    right = np.asarray(correct)
    if right.ndim != 2 or right.size == 0 or not np.isin(right, (0, 1)).all():
        raise StabkitError(
            f"an array of shape {right.shape}; expected (runs, points), each cell true or false"
        )
    runs = len(right)
    if runs < 2:
        return PointStability(Estimate(np.nan, np.nan, np.nan), Estimate(np.nan, np.nan, np.nan))
    weights = rng.multinomial(runs, np.full(runs, 1 / runs), size=RESAMPLES) / runs
    everyone, unbiased = np.full((1, runs), 1 / runs), runs / (runs - 1)
    ends = (1 - level) / 2, (1 + level) / 2
    estimates = []
    for columns in (right.astype(np.float64), right.mean(axis=1, keepdims=True)):
        (value,) = unbiased * _mean_variance(everyone, columns)
        low, high = np.quantile(unbiased**2 * _mean_variance(weights, columns), ends)
        estimates.append(Estimate(float(value), float(low), float(high)))
    return PointStability(*estimates)


def _mean_variance(weights: Floats, columns: Floats) -> Floats:
    """Mean over columns of the variance over runs (divided by n), for each row of weights."""
    centred = columns - columns.mean(axis=0)
    return np.asarray((weights @ centred**2 - (weights @ centred) ** 2).mean(axis=1))


def rank_correlation(
    x: ArrayLike, y: ArrayLike, rng: np.random.Generator, level: float = 0.95
) -> Estimate:
    """Estimate Spearman's rank correlation of two numbers per run, both of shape (runs,).

    The interval is the percentile interval over resampled runs. A number that is the same in all
    runs has no ranks: then the value is NaN, and so are bounds where resamples may be like that.
    """
    one, other = _group(x), _group(y)
    if one.shape != other.shape or one.size < 2:
        raise StabkitError(
            f"{one.size} and {other.size} numbers; expected two per run, and two runs or more"
        )
    counts = rng.multinomial(one.size, np.full(one.size, 1 / one.size), size=RESAMPLES)
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
    (1974) from its median, which is safer where runs pile up at two levels. Holm's correction
    runs over the groups, apart for the two tests. Each group has shape (runs,), two runs or more.
    """
    if reference not in groups or len(groups) < 2:
        raise StabkitError(f"{reference!r} and another group expected; got {', '.join(groups)}")
    base = _group(groups[reference])
    others = {name: _group(values) for name, values in groups.items() if name != reference}
    levene = [_levene(base, group, "mean") for group in others.values()]
    brown_forsythe = [_levene(base, group, "median") for group in others.values()]
    columns = zip(others, levene, brown_forsythe, holm(levene), holm(brown_forsythe), strict=True)
    return [VarianceTest(name, reference, *map(float, p)) for name, *p in columns]


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


def _group(values: ArrayLike) -> Floats:
    group = np.asarray(values, dtype=float)
    if group.ndim != 1:
        raise StabkitError(f"an array of shape {group.shape}; expected (runs,)")
    if not np.isfinite(group).all():
        places = ", ".join(map(str, np.flatnonzero(~np.isfinite(group))))
        raise StabkitError(
            f"no finite score at positions {places}; a diverged run counts with the score of its "
            "predictions, so look at how these runs were recorded"
        )
    return group
