"""Findings: what came of a criterion that was fixed before the runs (``stabkit.agreement``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from stabkit.stats import Estimate

UNKNOWN = Estimate(np.nan, np.nan, np.nan)
VERDICTS = {True: "holds", False: "does not hold", None: "not judged yet"}


@dataclass(frozen=True)
class Finding:
    """One criterion of an exhibit: does it hold (None: not judged yet), by which number, and why.

    ``number`` is a share or a difference of shares, shown in % or points, or has no unit; ``runs``
    is how many it comes from. ``line`` is the number at which the verdict turns, where one number
    alone decides; where several are compared, ``doubtful`` tells whether their intervals overlap.
    """

    exhibit: str
    criterion: str
    runs: int
    reason: str
    holds: bool | None = None
    number: Estimate = UNKNOWN
    unit: Literal["%", "points", ""] = "points"
    line: float | None = None
    doubtful: bool | None = None

    @property
    def verdict(self) -> str:
        """The verdict in words: holds, does not hold, not judged yet."""
        return VERDICTS[self.holds]

    @property
    def certain(self) -> bool | None:
        """Do the intervals rule out the opposite verdict?

        None where there are none, or several numbers decide and cannot tell.
        """
        if self.doubtful is not None:
            return not self.doubtful
        _, low, high = self.number
        if self.line is None or self.holds is None or np.isnan(low) or np.isnan(high):
            return None
        return not low <= self.line <= high

    @property
    def told(self) -> str:
        """The verdict and how certain it is, in words."""
        if self.certain is None:
            return self.verdict
        return f"clearly {self.verdict}" if self.certain else f"{self.verdict}, perhaps by chance"

    def shown(self) -> str:
        """Return the number with interval and unit; nothing where there is none."""
        value, low, high = self.number
        if np.isnan(value):
            return ""
        if self.unit:
            return f"{self.number.percent()} {self.unit}"
        return f"{_plain(value)} ({_plain(low)} to {_plain(high)})"


def outcome(findings: Sequence[Finding]) -> str:
    """Say whether an exhibit agrees, by all of its criteria that can be judged."""
    verdicts = [finding.holds for finding in findings]
    held, judged = verdicts.count(True), len(verdicts) - verdicts.count(None)
    if not judged:
        return VERDICTS[None] if verdicts else "states nothing testable"
    word = "agrees" if held == judged else "agrees in part" if held else "does not agree"
    left = f"; {len(verdicts) - judged} {VERDICTS[None]}" if judged < len(verdicts) else ""
    return f"{word}: {held} of {judged} criteria hold{left}"


def _plain(number: float) -> str:
    return f"{number:.2f}" if abs(number) < 1000 else f"{number:,.0f}"


class Count(NamedTuple):
    """Runs that fail, of how many."""

    failures: int
    runs: int

    @property
    def share(self) -> float:
        """The failure rate."""
        return self.failures / self.runs

    def __str__(self) -> str:
        return f"{self.failures} of {self.runs}"
