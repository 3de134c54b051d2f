"""Closed forms over the updates of a run: learning-rate schedule and Adam's bias correction.

``step`` and ``t`` count updates from 1, as in Kingma and Ba (2015). Every function takes a number
or an array and returns a float64 array of the same shape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabkit.errors import ConfigError


def linear_schedule(
    step: ArrayLike, steps: int, warmup: float = 0.1, zero_first_update: bool = True
) -> NDArray[np.float64]:
    """Return the share of the peak learning rate used at each update.

    Linear rise over the first ``warmup`` share of ``steps`` (rounded down to whole updates, as in
    the authors' code), then linear fall to 0. With ``zero_first_update`` the curve is transformers'
    ``get_linear_schedule_with_warmup``: it starts at 0 (at 1 without warmup) and ends one update
    short of 0. Otherwise it is read one update further on: no idle update first, an idle one last.
    Raises ConfigError for updates outside 1..steps and for a warmup outside 0..1.
    """
    number = _updates(step)
    if np.any(number > steps):
        raise ConfigError(f"step reaches {number.max():g}; expected at most steps={steps}")
    if not 0 <= warmup <= 1:
        raise ConfigError(f"warmup is {warmup!r}; expected a share from 0 to 1")
    rise = int(steps * warmup)
    done = number - 1 if zero_first_update else number
    falling = (steps - done) / max(1, steps - rise)
    return np.asarray(np.where(done < rise, done / max(1, rise), falling))


def hidden_multiplier(t: ArrayLike, beta1: float, beta2: float) -> NDArray[np.float64]:
    """Return (1 - beta1^t) / sqrt(1 - beta2^t), what leaving out the bias correction hides.

    The uncorrected update is the corrected one times this factor (up to eps), so dropping the
    correction acts as a learning rate multiplied by it. Raises ConfigError for t below 1.
    """
    return np.asarray(1 / correction_factor(t, beta1, beta2))


def correction_factor(t: ArrayLike, beta1: float, beta2: float) -> NDArray[np.float64]:
    """Return sqrt(1 - beta2^t) / (1 - beta1^t), the curve of Fig. 6 (section 5.1).

    Raises ConfigError for t below 1 and for a beta outside 0..1.
    """
    for name, beta in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= beta < 1:
            raise ConfigError(f"{name} is {beta!r}; expected a number from 0 to below 1")
    number = _updates(t)
    return np.asarray(np.sqrt(1 - beta2**number) / (1 - beta1**number))


def _updates(step: ArrayLike) -> NDArray[np.float64]:
    number = np.asarray(step, dtype=np.float64)
    if np.any(number < 1):
        raise ConfigError(f"update number {number.min():g}; expected 1 or more")
    return number


def short(rate: float) -> str:
    """Return a learning rate as the book writes it, to three digits: 3.7e-4, 1.85e-4."""
    mantissa, _, exponent = f"{rate:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
