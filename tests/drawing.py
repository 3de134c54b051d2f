"""What the seeds explorer draws from random numbers, in Python: the same generator and draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stabkit.stats import RESAMPLES, Floats

DRAWS = 1_000
BOOTSTRAP, REPEATS, SAMPLES = 1, 1001, 2001  # seeds of the generators, as in explorers/numbers.js


def uniform(seed: int, size: int) -> Floats:
    """Return ``size`` numbers from 0 to below 1 of the generator mulberry32."""
    state = (seed + 0x6D2B79F5 * np.arange(1, size + 1, dtype=np.uint64)).astype(np.uint32)
    mixed = (state ^ (state >> 15)) * (state | 1)
    mixed ^= mixed + (mixed ^ (mixed >> 7)) * (mixed | 61)
    return np.asarray((mixed ^ (mixed >> 14)) / 2**32)


def drawn(seed: int, number: int, runs: int, times: int = 1) -> NDArray[np.int64]:
    """Return which of ``runs`` are drawn, shape (times, number)."""
    places = uniform(seed, times * number) * runs
    return places.astype(np.int64).reshape(times, number)


def std_interval(values: Floats) -> tuple[float, float]:
    """Return the 95 % percentile interval of the sample standard deviation."""
    resampled = values[drawn(BOOTSTRAP, len(values), len(values), RESAMPLES)]
    low, high = np.quantile(resampled.std(axis=1, ddof=1), (0.025, 0.975))
    return float(low), float(high)
