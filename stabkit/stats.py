"""Statistics of many runs: arrays in, numbers out (``stabkit.tables`` applies them to run tables).

``stabkit.effects`` compares groups and factors.

Conventions, for every function here. A *group* is one array of shape ``(runs,)``: one number per
run, that is per seed. Rates, scores and MCC are shares (0..1 or -1..1), never percent. The
standard deviation is the sample's (divided by n - 1): the seeds are a sample of all seeds.
Intervals have 95 % coverage unless ``level`` says otherwise. What resamples takes the
``numpy.random.Generator`` it draws from, so that equal generators give equal intervals.
"""

from __future__ import annotations

from collections.abc import Callable
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

    def covers(self, value: float) -> bool:
        """Tell whether the interval holds a value."""
        return self.low <= value <= self.high

    def overlaps(self, other: Estimate) -> bool:
        """Tell whether two intervals have a value in common."""
        return max(self.low, other.low) <= min(self.high, other.high)

    def percent(self) -> str:
        """Return for example ``12.0 (4.2 to 30.0)``, or the number alone without bounds."""
        value, low, high = (round(100 * number, 1) + 0.0 for number in self)  # + 0.0: no "-0.0"
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


def wilson(failures: int, runs: int, level: float = 0.95) -> Estimate:
    """Share of failed runs with Wilson's score interval (Wilson 1927), good at small n and at 0."""
    if not 0 <= failures <= runs or runs == 0:
        raise StabkitError(f"{failures} failures of {runs} runs; expected 0 <= failures <= runs")
    test = stats.binomtest(failures, runs)
    low, high = test.proportion_ci(confidence_level=level, method="wilson")
    return Estimate(failures / runs, min(float(low), failures / runs), float(high))


def resampler() -> np.random.Generator:
    """Return what draws resamples: always the same, so that equal runs have equal intervals."""
    return np.random.default_rng(0)


def bootstrap(
    values: ArrayLike,
    statistic: Callable[..., Any],
    level: float = 0.95,
) -> Estimate:
    """Estimate ``statistic`` of one group, ``values`` of shape (runs,), by resampling its runs.

    ``statistic`` takes an array and an ``axis``. The interval is the percentile interval: scores
    of unstable runs have two peaks, and there, at 25 runs, the BCa interval covers the std less
    often and is undefined for many a median. Bounds are NaN below two runs.
    """
    group = np.sort(group_of(values))
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
        rng=resampler(),
    ).confidence_interval
    return Estimate(value, float(low), float(high))


def describe(scores: ArrayLike, failed: ArrayLike) -> Description:
    """Describe one group from its ``scores`` and ``failed`` verdicts, both of shape (runs,).

    The largest score has no interval, because the bootstrap is inconsistent for extremes: no
    resample exceeds the largest run seen.
    """
    group, failures = group_of(scores), np.asarray(failed, dtype=bool)
    if group.shape != failures.shape or group.size == 0:
        raise StabkitError(
            f"{group.size} scores and {failures.size} verdicts; expected one of each per run, "
            "and at least one run"
        )
    return Description(
        runs=group.size,
        failures=int(failures.sum()),
        failure_rate=wilson(int(failures.sum()), group.size),
        std=bootstrap(group, sample_std),
        std_successful=bootstrap(group[~failures], sample_std),
        mean=bootstrap(group, np.mean),
        median=bootstrap(group, np.median),
        min=float(group.min()),
        max=float(group.max()),
    )


def sample_std(values: Floats, axis: int = 0) -> Any:
    """Sample standard deviation along ``axis`` (divided by n - 1); NaN below two runs."""
    if values.shape[axis] < 2:
        return np.nan
    return np.std(values, axis=axis, ddof=1)


def point_stability(correct: ArrayLike, level: float = 0.95) -> PointStability:
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
    weights = resampler().multinomial(runs, np.full(runs, 1 / runs), size=RESAMPLES) / runs
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
    centred = columns - columns[0]  # which is exactly 0 where all runs are alike
    found = (weights @ centred**2 - (weights @ centred) ** 2).mean(axis=1)
    # Rounding can leave less than nothing of a difference of squares.
    return np.asarray(np.maximum(found, 0))


def group_of(values: ArrayLike) -> Floats:
    """Return one group, shape (runs,); raises StabkitError for another shape or no number."""
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
