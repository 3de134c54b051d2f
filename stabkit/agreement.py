"""When the exhibits beyond Table 1 agree with the paper; the criteria were fixed before our runs.

Every function takes a run table and returns findings, one per criterion. A run *fails* here if it
shows any sign of failure (``tables.learned_nothing``). The number itself decides, as the criteria
are worded; its interval says how far chance may have decided. Only a fall that should not be there
(Fig. 8b) takes more to be one: an interval below zero. Nothing is judged before all runs of the
exhibit are there. Intervals of differences between shares are Newcombe's (1998); they count runs as
independent, though cells share their seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from stabkit.effects import fisher, mean_difference, rank_correlation, rate_difference
from stabkit.errors import StabkitError
from stabkit.findings import Count, Finding
from stabkit.paper import ALPHA
from stabkit.presets import FAMILIES, family
from stabkit.schedule import short
from stabkit.stats import bootstrap, wilson
from stabkit.studies import REPORTED
from stabkit.tables import SIGNS, finite_scores, learned_nothing, only, require

SEEDS = len(REPORTED)
SETTINGS = ("full set, 3 epochs", "1,000 examples, 3 epochs", "1,000 examples, as many steps")
CELL = ("epochs", "learning_rate", "bias_correction")
ARMS = CELL[1:]  # of one model in Fig. 5: three rates, correction off and on
SHORT = 3  # epochs, of the usual recipe
TRENDS = {
    "epochs": ("failure rate falls with epochs", -1),
    "learning_rate": ("failure rate rises with the learning rate", 1),
    "bias_correction": ("failure rate lower with correction", -1),
}
COLUMNS = ("exhibit", "criterion", "verdict", "number (95 % interval)", "n", "because")


def as_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Return findings as text, one row each, with the columns COLUMNS."""
    rows = [(f.exhibit, f.criterion, f.told, f.shown(), f.runs, f.reason) for f in findings]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def settings(table: pd.DataFrame) -> pd.Series:
    """Return for each run of a small-data study which of SETTINGS it belongs to (Fig. 3)."""
    require(table, ("train_size", "max_steps"))
    few, as_long = table["train_size"].notna(), table["max_steps"].notna()
    names = np.select([few & as_long, few], [SETTINGS[2], SETTINGS[1]], SETTINGS[0])
    return pd.Series(names, index=table.index)


def figure_3(table: pd.DataFrame) -> Finding:
    """Judge small data on one task: do as many steps bring the full set's failure rate back?"""
    only(table, "model", "task", "learning_rate", "bias_correction")
    named = table.assign(setting=settings(table))
    head = (
        f"Fig. 3, {table['task'].iloc[0]}",
        "on 1,000 examples for as many steps as the full set, runs fail at a rate within the full "
        "set's interval, and less often than for 3 epochs",
    )
    if reason := _unfinished(named, ["setting"], len(SETTINGS)):
        return Finding(*head, len(table), reason)
    counts = [_count(named[named["setting"] == name]) for name in SETTINGS]
    full, few, as_long = rates = [wilson(*count) for count in counts]
    told = "; ".join(f"{name}: {count}" for name, count in zip(SETTINGS, counts, strict=True))
    alike = max(rate.low for rate in rates) <= min(rate.high for rate in rates)
    told += "; all three intervals overlap" if alike else ""
    holds = full.low <= as_long.value <= full.high and as_long.value < few.value
    return Finding(*head, counts[2].runs, told, holds, as_long, "%", doubtful=alike or None)


def wants_steps(table: pd.DataFrame) -> bool:
    """Say whether few steps, not few examples, leave runs of one task without having learned.

    More steps on the same examples leave significantly fewer (Fisher's exact test), and with the
    full set most runs learn.
    """
    named = settings(table)
    if {*named} != {*SETTINGS}:
        return False
    full, few, as_long = (_count(table[named == name]) for name in SETTINGS)
    fewer = few.failures > as_long.failures and fisher(*few, *as_long) < ALPHA
    return fewer and 2 * full.failures < full.runs


def figure_5(table: pd.DataFrame) -> list[Finding]:
    """Judge the correction on each model, and whether RoBERTa needs it least."""
    only(table, "task", "epochs", "multiplier", "warmup")
    models = {str(name): runs for name, runs in table.groupby("model", sort=False)}
    return [*(corrected(*model) for model in models.items()), _least_for_roberta(models)]


def corrected(model: str, runs: pd.DataFrame) -> Finding:
    """Judge the correction on one model and task, at three rates."""
    head = f"Fig. 5, {model}", "fails less often with correction at every rate where a run fails"
    if reason := _unfinished(runs, ARMS, 6) or _harmless(runs):
        return Finding(*head, len(runs), reason)
    pairs = {rate: _arms(group) for rate, group in runs.groupby("learning_rate")}
    told = "; ".join(
        f"{short(rate)}: {off} without, {on} with" for rate, (off, on) in pairs.items()
    )
    failing = [(off, on) for off, on in pairs.values() if off.failures + on.failures]
    holds = all(on.share < off.share for off, on in failing)
    close = any(rate_difference(off, on).covers(0) for off, on in failing)
    return Finding(*head, len(runs), told, holds, rate_difference(*_arms(runs)), doubtful=close)


def _least_for_roberta(models: Mapping[str, pd.DataFrame]) -> Finding:
    head = "Fig. 5", "gap between failure rates without and with correction smallest for RoBERTa"
    runs = {family(name): found for name, found in models.items()}
    every, ready = pd.concat(models), [n for n in runs if not _unfinished(runs[n], ARMS, 6)]
    absent = ", ".join(name for name in FAMILIES if name not in ready)
    if reason := f"the runs of {absent} are missing" if absent else _harmless(every):
        return Finding(*head, len(every), reason)
    gaps = {name: rate_difference(*_arms(runs[name])) for name in FAMILIES}
    told = "; ".join(f"{name}: {gap.percent()}" for name, gap in gaps.items())
    require(every, ("hardware",))
    if (classes := every["hardware"].nunique()) > 1:
        told += f"; the runs are of {classes} hardware classes, which one comparison must not mix"
        return Finding(*head, len(every), told)
    least = gaps.pop("roberta")
    holds = all(least.value < gap.value for gap in gaps.values())
    close = any(least.overlaps(gap) for gap in gaps.values())
    return Finding(*head, len(every), told, holds, least, doubtful=close)


def warmup(table: pd.DataFrame) -> Finding:
    """Judge the 2 x 2 of section 5.1: warmup and correction, each without the other."""
    only(table, "model", "task", "epochs", "learning_rate", "multiplier")
    head = (
        "Section 5.1",
        "fewest failures with warmup and correction, and fewer than with neither "
        f"(Fisher's exact test, p < {ALPHA})",
    )
    if reason := _unfinished(table, ("warmup", "bias_correction"), 4):
        return Finding(*head, len(table), reason)
    without, warm = (_arms(runs) for _, runs in table.groupby(table["warmup"] > 0))
    neither, both = without[0], warm[1]
    p = fisher(*both, *neither)
    told = (
        f"both {both}, warmup alone {warm[0]}, correction alone {without[1]}, neither {neither}; "
        f"p = {p:.2g}"
    )
    least = all(both.share <= cell.share for cell in (*without, *warm))
    holds = least and both.share < neither.share and p < ALPHA
    return Finding(*head, len(table), told, holds, rate_difference(neither, both))


def shallow(table: pd.DataFrame, control: str = "mini-bert-shallow") -> Finding:
    """Judge whether a shallow encoder fails less than the deep one of the table, in six cells."""
    only(table, "task", "epochs", "multiplier", "warmup")
    head = "Section 3.2", "the shallow control fails less often than the deep model"
    small, deep = table[table["model"] == control], table[table["model"] != control]
    for name, runs in (("shallow", small), ("deep", deep)):
        if runs.empty or (reason := _unfinished(runs, ARMS, 6)):
            return Finding(*head, len(table), f"{name}: {'no runs' if runs.empty else reason}")
    only(deep, "model")
    less, more = _count(small), _count(deep)
    told = f"shallow: {less}; deep: {more}"
    fewer = rate_difference(less, more)
    return Finding(*head, len(table), told, less.share < more.share, fewer, line=0)


def figure_9(table: pd.DataFrame) -> list[Finding]:
    """Judge the ablation: does each of its three factors change failures as in the paper?"""
    only(table, "model", "task", "multiplier", "warmup")
    return [_trend(table, factor) for factor in TRENDS]


def _trend(table: pd.DataFrame, factor: str) -> Finding:
    """Judge a factor by its levels, each over all cells of the others: the last minus the first."""
    criterion, sign = TRENDS[factor]
    if reason := _unfinished(table, CELL, 18):
        return Finding("Fig. 9", criterion, len(table), reason)
    levels = {level: _count(runs) for level, runs in table.groupby(factor)}
    counts = list(levels.values())
    names = ("off", "on") if factor == "bias_correction" else [f"{level:g}" for level in levels]
    told = "; ".join(f"{name}: {count}" for name, count in zip(names, counts, strict=True))
    steps = [sign * (after.share - before.share) for before, after in pairwise(counts)]
    holds = min(steps) >= 0 < sum(steps)
    change = rate_difference(counts[-1], counts[0])
    several = len(counts) > 2  # then the ends do not tell how certain the steps between them are
    close = change.covers(0) or (None if several else False)
    return Finding("Fig. 9", criterion, len(table), told, holds, change, doubtful=close)


def figure_8a(table: pd.DataFrame, histories: Mapping[str, pd.DataFrame]) -> Finding:
    """Judge the long runs of one cell: does the dev score of 3 epochs last until the end?

    ``histories`` has the history (step, dev_score) of every run without a sign of failure.
    """
    only(table, "model", "task", *CELL)
    head = "Fig. 8a", "mean dev score of successful runs at the end not below that at 3 epochs"
    good = table[~learned_nothing(table)]
    if reason := _unfinished(table, CELL, 1) or ("every run fails" if good.empty else ""):
        return Finding(*head, len(good), reason)
    early = np.array([_early_score(run, histories) for run in good.to_dict("records")])
    last = finite_scores(good, "score_last")
    told = f"{100 * early.mean():.1f} % at 3 epochs, {100 * last.mean():.1f} % at the end"
    gain = bootstrap(last - early, np.mean)
    return Finding(*head, len(good), told, gain.value >= 0, gain, line=0)


def _early_score(run: Mapping[str, Any], histories: Mapping[str, pd.DataFrame]) -> float:
    """Return the dev score at the last look within SHORT epochs."""
    if run["key"] not in histories:
        raise StabkitError(f"no history of the run {run['key']}; take it from the table's store")
    history = histories[run["key"]].dropna(subset="dev_score")
    seen = history.loc[history["step"] * run["epochs"] <= SHORT * run["steps"], "dev_score"]
    if seen.empty:
        raise StabkitError(
            f"run {run['key']} has no dev score within {SHORT} epochs; evaluate earlier"
        )
    return float(seen.iloc[-1])


def figure_8b(table: pd.DataFrame) -> list[Finding]:
    """Judge dev score against training loss, over all runs of the ablation with a finite loss.

    At the lowest losses stands the lowest quarter of the runs without a sign of failure, set
    against the next quarter.
    """
    only(table, "model", "task", "multiplier", "warmup")
    rising = "Fig. 8b", "dev score higher at lower training loss: rank correlation below 0"
    lasting = (
        "Fig. 8b",
        "no fall (interval below 0) from the second lowest quarter of losses to the lowest",
    )
    if reason := _unfinished(table, CELL, 18):
        return [Finding(*head, len(table), reason) for head in (rising, lasting)]
    runs = table[np.isfinite(table["train_loss"])].sort_values("train_loss")
    scores = finite_scores(runs, "score_last")
    rho = rank_correlation(runs["train_loss"], scores)
    whole = Finding(*rising, len(runs), "all runs", bool(rho.value < 0), rho, "", line=0)
    lowest, following, *_ = np.array_split(scores[~learned_nothing(runs)], 4)
    if not following.size:
        return [whole, Finding(*lasting, lowest.size, "fewer than 2 runs learn")]
    told = f"{100 * lowest.mean():.1f} % against {100 * following.mean():.1f} %"
    change = mean_difference(lowest, following)
    size = lowest.size + following.size
    return [whole, Finding(*lasting, size, told, change.high >= 0, change)]


def _count(runs: pd.DataFrame) -> Count:
    return Count(int(learned_nothing(runs).sum()), len(runs))


def _arms(runs: pd.DataFrame) -> tuple[Count, Count]:
    """Count without and with correction."""
    corrected = runs["bias_correction"].astype(bool)
    return _count(runs[~corrected]), _count(runs[corrected])


def _harmless(runs: pd.DataFrame) -> str:
    return "" if learned_nothing(runs).any() else "no run fails in any setting"


def _unfinished(table: pd.DataFrame, by: Sequence[str], cells: int) -> str:
    """Say what is missing while fewer than ``cells`` groups have all their seeds."""
    require(table, (*by, *SIGNS))
    full = int((table.groupby(list(by), dropna=False).size() >= SEEDS).sum())
    return "" if full >= cells else f"{full} of {cells} cells have all their {SEEDS} runs"
