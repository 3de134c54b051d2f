"""When the exhibits from inside the runs agree with the paper: Fig. 2 and 4.

What failed runs have forgotten, how flat their loss stays, where their gradients vanish. As in
``stabkit.agreement``, criteria were fixed before the runs and the number itself decides. Runs of a
kind may be three, too few to resample: intervals of means are Student's, of differences Welch's,
and ratios are differences of logarithms.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from stabkit import results
from stabkit.errors import StabkitError
from stabkit.findings import Finding
from stabkit.selection import SHOWN
from stabkit.stats import Estimate, Floats, bootstrap
from stabkit.tables import layer_norms, learned_nothing, only, require

FORGETFUL = 10 / 24  # of the depth, from the top: what the paper's failed runs have forgotten
HALF = 0.5  # of the excess, what "most" is more than
FLAT = 0.05  # around the label entropy
WARM, LATE = 0.1, 2 / 3  # of a run's steps: where its warmup ends, where its end begins
EMBEDDINGS = {False: "fine-tuned embeddings", True: "pre-trained embeddings"}


def contrast(table: pd.DataFrame, each: int = SHOWN) -> pd.DataFrame:
    """Return failed and successful runs to set against each other, with the column ``kind``.

    They are all runs of one configuration, that of the smallest learning rate, which has ``each``
    of both kinds. Where none has, correction on and off count as one: at the smallest learning
    rate that has both kinds then. No runs where there is none either. ``table`` is a run table of
    one model and task; successful is a run without any sign of failure. Diverged runs are of no
    kind.
    """
    only(table, "model", "task", "epochs", "multiplier", "mixout", "warmup")
    require(table, ("seed", "learning_rate", "bias_correction", "failed"))
    failed = table["failed"].astype(bool)
    kind = np.where(failed, "failed", np.where(learned_nothing(table), "neither", "successful"))
    finite = ~table["diverged"].astype(bool)  # else there are no gradients to compare
    order = ["kind", "seed", "bias_correction"]
    judged = table.assign(kind=kind)[(kind != "neither") & finite].sort_values(order)
    for by in (["learning_rate", "bias_correction"], ["learning_rate"]):
        for _, cell in judged.groupby(by):
            sizes = cell.groupby("kind").size()
            if len(sizes) == 2 and sizes.min() >= each:
                return cell
    return judged.iloc[:0]


def layer_swap(table: pd.DataFrame) -> list[Finding]:
    """Judge Fig. 2a and 2b on one model: two findings for either choice of the embeddings.

    ``table`` has a row for each run, choice and k: run, failed, embeddings, k, nll (nats per
    token), as the analysis "layer-swap" makes it.
    """
    require(table, ("run", "failed", "embeddings", "k", "nll"))
    only(table, "model")
    return [
        finding
        for embeddings, rows in table.groupby("embeddings")
        for finding in _forgetting(rows, f"Fig. 2, {EMBEDDINGS[bool(embeddings)]}")
    ]


def _forgetting(rows: pd.DataFrame, exhibit: str) -> tuple[Finding, Finding]:
    nll, failed = _by_run(rows)
    depth = int(nll.columns.max())
    top = round(FORGETFUL * depth)
    more = exhibit, "perplexity at k = 0: failed runs above successful ones (ratio above 1)"
    gone = exhibit, f"most of the failed runs' excess (in nats per token) gone by k = {top}"
    if min(failed.sum(), (~failed).sum()) < 2:
        reason = f"{failed.sum()} failed and {(~failed).sum()} successful runs"
        return Finding(*more, len(nll), reason), Finding(*gone, len(nll), reason)
    ratio = _times(nll, failed, 0)
    told = f"geometric mean of perplexity {_perplexity(nll.loc[failed, 0])} in failed runs, "
    told += f"{_perplexity(nll.loc[~failed, 0])} in successful ones, "
    told += f"{_perplexity(nll[depth])} with all layers given back"
    first = Finding(*more, len(nll), told, bool(ratio.value > 1), ratio, "", line=1)
    share = _gone(nll[failed], top)
    if share is None:
        return first, Finding(*gone, int(failed.sum()), "a failed run has no excess at k = 0")
    steps = (f"{_perplexity(nll.loc[failed, k])} at k = {k}" for k in (0, top, depth))
    least = 100 * _excess_gone(np.exp(nll[failed]), top).min()
    told = (
        f"failed runs' perplexity, geometric mean: {', '.join(steps)}; measured in perplexity "
        f"itself, at least {least:.0f} % of every run's excess is gone"
    )
    most = bool(share.value > HALF)
    return first, Finding(*gone, int(failed.sum()), told, most, share, "%", HALF)


def given_back(rows: pd.DataFrame) -> list[tuple[Estimate | None, Estimate | None]]:
    """Return for each k of a layer swap, from 0, what ``layer_swap`` judges at two of them.

    First how many times the perplexity of successful runs that of failed ones is, then which share
    of the failed runs' excess is gone. ``rows`` are of one model and choice of the embeddings. None
    where there are no runs to tell it from or a failed run has no excess; one run has no interval.
    """
    require(rows, ("run", "failed", "k", "nll"))
    nll, failed = _by_run(rows)
    several = failed.any() and not failed.all()
    return [
        (_times(nll, failed, k) if several else None, _gone(nll[failed], k)) for k in nll.columns
    ]


def _by_run(rows: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Return nats per token, a row per run and a column per k, and which of the runs failed."""
    nll = rows.pivot(index="run", columns="k", values="nll")
    failed = rows.groupby("run")["failed"].first().loc[nll.index]
    return nll, failed.to_numpy(dtype=bool)


def _times(nll: pd.DataFrame, failed: NDArray[np.bool_], k: int) -> Estimate:
    """Return how many times the perplexity of successful runs that of failed ones is."""
    return Estimate(*np.exp(_difference(nll.loc[failed, k], nll.loc[~failed, k])))


def _gone(nll: pd.DataFrame, k: int) -> Estimate | None:
    """Return the share of the runs' excess at k = 0 that is gone at ``k``; None without one."""
    if nll.empty or not (nll[0] - nll[nll.columns.max()]).min() > 0:
        return None
    return _mean(_excess_gone(nll, k))


def _excess_gone(values: pd.DataFrame, k: int) -> pd.Series:
    """Return the share of each run's excess at k = 0 over the last column that is gone at ``k``."""
    excess = values.sub(values[values.columns.max()], axis=0)
    return 1 - excess[k] / excess[0]


def _perplexity(nll: pd.Series) -> str:
    value = np.exp(nll.mean())  # a geometric mean: one run may reach a million
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def flat_loss(table: pd.DataFrame) -> Finding:
    """Judge Fig. 2c: do failed runs of one model end at the entropy of the labels, in nats?

    Their loss is that of the finished model on its whole training set.
    """
    require(table, ("failed", "train_loss", "label_entropy"))
    only(table, "model", "task")
    head = f"Fig. 2c, {table['model'].iloc[0]}", "failed runs' loss within 5 % of the label entropy"
    failed = table[table["failed"].astype(bool)]
    away = (failed["train_loss"] / failed["label_entropy"] - 1).abs()
    finite = away[np.isfinite(away)]
    if finite.empty:
        return Finding(*head, len(failed), "no failed run with a finite loss")
    near = (away <= FLAT).sum()
    told = f"mean distance; {near} of {len(failed)} failed runs lie within {100 * FLAT:g} %"
    mean = bootstrap(finite, np.mean)
    return Finding(*head, len(failed), told, bool(mean.value <= FLAT), mean, "%", FLAT)


def gradients(table: pd.DataFrame, histories: Mapping[str, pd.DataFrame]) -> list[Finding]:
    """Judge Fig. 4, 10, 11 and 12 on one model: where and when do failed runs' gradients vanish?

    ``table`` is what ``contrast`` returns, ``histories`` has the gradient history of each of its
    runs by key. Compared are means of decimal logarithms, so the unit is an order of magnitude.
    """
    require(table, ("key", "kind", "failed"))
    only(table, "model", "task")
    exhibit = f"Fig. 4, {table['model'].iloc[0]}"
    bottom = exhibit, "bottom against top layer after warmup: ratio lower in failed runs"
    end = exhibit, "all layers, last third of training: gradients larger in successful runs"
    if absent := [key for key in table["key"] if key not in histories]:
        raise StabkitError(
            f"no gradients of the runs {', '.join(absent)}; take them from the store"
        )
    if table["kind"].nunique() < 2 or table.groupby("kind").size().min() < 2:
        reason = "fewer than 2 failed runs, or fewer than 2 successful ones"
        return [Finding(*head, len(table), reason) for head in (bottom, end)]
    rows = [_vanishing(histories[key]) for key in table["key"]]
    shape = pd.DataFrame(rows, columns=["ratio", "end"], index=table["kind"])
    return [_orders(bottom, shape["ratio"]), _orders(end, shape["end"])]


def _orders(head: tuple[str, str], logarithms: pd.Series) -> Finding:
    """Set successful runs against failed ones, by decimal logarithms indexed by kind."""
    if logarithms.isna().any():
        return Finding(*head, len(logarithms), "all layers share their weights")
    failed, successful = (logarithms.loc[kind] for kind in ("failed", "successful"))
    gap = _difference(successful, failed)
    told = (
        f"{10 ** failed.mean():.2g} in failed runs, {10 ** successful.mean():.2g} in successful "
        "ones; the number is the difference in orders of magnitude"
    )
    return Finding(*head, len(logarithms), told, bool(gap.value > 0), gap, "", line=0)


def _vanishing(gradients: pd.DataFrame) -> tuple[float, float]:
    """Return log10 of the bottom layer's norm over the top one's, and of the norm at the end.

    Means over the log-spaced steps that a thinned history keeps, so that all runs are measured
    alike. The first is NaN where there is one layer only.
    """
    thinned = results.thin(pa.Table.from_pandas(gradients, preserve_index=False)).to_pandas()
    norms = layer_norms(thinned).clip(lower=np.finfo(np.float32).tiny)
    share = norms.index / norms.index.max()
    after = np.log10(norms[share > WARM])
    ratio = (after.iloc[:, 0] - after.iloc[:, -1]).mean() if norms.shape[1] > 1 else np.nan
    total = np.log10((norms[share > LATE] ** 2).sum(axis=1)) / 2
    return float(ratio), float(total.mean())


def collapse(gradients: pd.DataFrame, share: float = 0.1, window: int = 21) -> int | None:
    """Return the step from which the norm of all layers stays below ``share`` of its peak.

    None where it does not to the end. The norm is a median over ``window`` steps, since single
    batches scatter widely; ``gradients`` is a run's whole gradient history.
    """
    norms = np.sqrt((layer_norms(gradients) ** 2).sum(axis=1, skipna=False))
    smooth = norms.rolling(window, center=True, min_periods=1).median()
    after = np.flatnonzero(~(smooth < share * smooth.max()))[-1] + 1  # not finite is not small
    return int(norms.index[after]) if after < len(norms) else None


def _mean(values: ArrayLike) -> Estimate:
    """Mean of a few runs with Student's 95 % interval; no bounds below two runs."""
    group = np.asarray(values, dtype=float)
    if group.size < 2:
        return Estimate(float(group.mean()), np.nan, np.nan)
    return _interval(group.mean(), group.var(ddof=1) / group.size, group.size - 1)


def _difference(one: ArrayLike, other: ArrayLike) -> Estimate:
    """Mean of ``one`` minus mean of ``other`` with Welch's 95 % interval (1947).

    No bounds where one of them has less than two runs.
    """
    groups: list[Floats] = [np.asarray(values, dtype=float) for values in (one, other)]
    if min(group.size for group in groups) < 2:
        return Estimate(float(groups[0].mean() - groups[1].mean()), np.nan, np.nan)
    parts = np.array([group.var(ddof=1) / group.size for group in groups])
    rest = np.array([group.size - 1 for group in groups])
    freedom = parts.sum() ** 2 / (parts**2 / rest).sum() if parts.any() else rest.sum()
    return _interval(groups[0].mean() - groups[1].mean(), parts.sum(), freedom)


def _interval(value: float, variance: float, freedom: float) -> Estimate:
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    return Estimate(float(value), float(value - half), float(value + half))
