"""From run tables to tables of numbers: groups of runs described, failures counted, a rate chosen.

A *run table* has one row per run, as ``Store.table()`` returns it. What a function needs of it is
checked first: StabkitError names missing columns, an empty table, runs without a finite score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from stabkit.errors import StabkitError
from stabkit.stats import Floats, bootstrap, describe, wilson

SIGNS = {  # of failure; a run slightly above chance passes the first, the paper's verdict
    "failed": "accuracy at or below the majority class",
    "constant": "one class predicted",
    "flat_loss": "training loss within 5 % of the label entropy, or above",
    "diverged": "loss not finite",
}
CHANGES = {  # of the usual recipe, by whether the bias is corrected and the training long
    (False, False): "neither",
    (True, False): "correction alone",
    (False, True): "long training alone",
    (True, True): "both",
}
UNFITTED = ("flat_loss", "diverged")  # the signs that are of the training set
CLEAR = 0.1  # dev accuracy above the majority class by which a run has plainly learned something
# The number of a layer (ALBERT: of a group of layers that share weights); a matrix's name in it.
# GPT-2 calls its layers h, T5 block.
LAYER = re.compile(
    r"(?:layers?|layer_groups|\bh|\bblock)\.(\d+)(?:\.albert_layers\.\d+)?(?:\.(.+))?$"
)


def require(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise StabkitError unless ``table`` has rows and all ``columns``."""
    missing = [name for name in dict.fromkeys(columns) if name not in table.columns]
    if missing:
        raise StabkitError(
            f"the table has no column {', '.join(missing)}; expected a run table, one row per "
            "run, as Store.table() returns it"
        )
    if table.empty:
        raise StabkitError("the table has no runs; run the study first, or widen the selection")


def finite_scores(table: pd.DataFrame, score: str) -> Floats:
    """Return the column ``score``, shape (runs,); raise StabkitError naming runs without one."""
    require(table, ("key", score))
    scores: Floats = table[score].to_numpy(dtype=float)
    lost = table["key"].to_numpy()[~np.isfinite(scores)]
    if lost.size:
        raise StabkitError(f"no finite {score} for the runs {', '.join(lost)}; run them again")
    return scores


def describe_groups(
    table: pd.DataFrame,
    by: Sequence[str] = ("task", "method"),
    score: str = "score_last",
) -> pd.DataFrame:
    """Describe each group of runs of a run table: one row per group, in order of appearance.

    Columns: ``by``, then the fields of Description (an Estimate where they have an interval).
    """
    require(table, (*by, "failed"))
    finite_scores(table, score)
    rows = []
    for names, runs in table.groupby(list(by), sort=False, dropna=False):
        described = describe(runs[score].to_numpy(), runs["failed"].to_numpy())
        rows.append(dict(zip(by, names, strict=True)) | vars(described))
    return pd.DataFrame(rows)


def learned_nothing(table: pd.DataFrame) -> pd.Series:
    """Return for each run whether it shows any of the SIGNS of failure."""
    require(table, tuple(SIGNS))
    return table[list(SIGNS)].astype(bool).any(axis=1)


def by_accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with the paper's verdict, accuracy, as their only sign of failure."""
    require(table, tuple(SIGNS))
    return table.assign(**{sign: False for sign in SIGNS if sign != "failed"})


def learned_once(table: pd.DataFrame) -> pd.Series:
    """Return for each run whether its best look at the dev set stood clearly above the majority.

    A run that shows a sign of failure all the same had learned the task and lost it again. Of a run
    whose dev set was looked at only at its end nothing else is known.
    """
    require(table, ("best_accuracy", "majority_accuracy"))
    return table["best_accuracy"] >= table["majority_accuracy"] + CLEAR


def failures(table: pd.DataFrame, by: str, sign: str | None = None) -> str:
    """Say how many runs of each group fail, in order of appearance: "Lee 9 of 25, Ours 0 of 25".

    Counted are runs with any of the SIGNS, or with the one that is named.
    """
    require(table, (by, *SIGNS))
    lost = learned_nothing(table) if sign is None else table[sign].astype(bool)
    groups = lost.groupby(table[by], sort=False)
    return ", ".join(f"{name} {int(group.sum())} of {len(group)}" for name, group in groups)


def failure_curve(
    table: pd.DataFrame, by: Sequence[str] = ("learning_rate", "bias_correction")
) -> pd.DataFrame:
    """Count the runs that learned nothing: ``by``, runs, failures, failed, rate, low, high.

    ``failures`` counts runs with any sign of failure, ``failed`` those at or below the majority
    class (the paper's verdict); the rate and its interval are of the former. Sorted by ``by``. All
    runs of a group are pooled whatever else differs, so select one model and task first.
    """
    require(table, (*by, *SIGNS))
    groups = table.assign(nothing=learned_nothing(table)).groupby(list(by), dropna=False)
    counts = groups.agg(
        runs=("nothing", "size"), failures=("nothing", "sum"), failed=("failed", "sum")
    ).reset_index()
    rates = [
        wilson(int(f), int(n)) for f, n in zip(counts["failures"], counts["runs"], strict=True)
    ]
    return counts.assign(
        failures=counts["failures"].astype(int),
        failed=counts["failed"].astype(int),
        rate=[rate.value for rate in rates],
        low=[rate.low for rate in rates],
        high=[rate.high for rate in rates],
    )


def each_change(table: pd.DataFrame) -> pd.DataFrame:
    """Set bias correction and long training, each alone, beside both and neither, rate by rate.

    Columns: learning_rate, change (of CHANGES), runs, failures (any of the SIGNS), low and high of
    their rate, and mean, that of all dev scores. Long are the runs of the most epochs, short those
    of the fewest; all else but the seed should be one.
    """
    require(table, ("epochs", "bias_correction", "score_last", *SIGNS))
    few, most = table["epochs"].min(), table["epochs"].max()
    ends = table[table["epochs"].isin((few, most))]
    arms = zip(ends["bias_correction"].astype(bool), ends["epochs"] == most, strict=True)
    by = ["learning_rate", "change"]
    ends = ends.assign(change=[list(CHANGES).index(arm) for arm in arms])
    found = failure_curve(ends, by).merge(ends.groupby(by)["score_last"].mean().reset_index())
    found["change"] = [list(CHANGES.values())[place] for place in found["change"]]
    return found.rename(columns={"score_last": "mean"})[
        [*by, "runs", "failures", "low", "high", "mean"]
    ]


def in_every_cell(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return the runs of those seeds that every cell has, a cell being one combination of ``by``.

    While a study is under way its cells have unequal numbers of runs; only runs of shared seeds can
    be pooled over cells without counting some cells for more than others.
    """
    require(table, ("seed", *by))
    cells = table[["seed", *by]].drop_duplicates()
    shared = cells.groupby("seed", dropna=False).size() == len(cells.drop_duplicates(list(by)))
    return table[table["seed"].map(shared)]


def learning_rate_rule(curve: pd.DataFrame) -> float:
    """Return the largest learning rate at which no run with bias correction shows a failure.

    The rule that stands for the paper's "2e-5" on another model; it looks at pilot seeds only and
    never ranks by a score. ``curve`` is failure_curve()'s. Raises StabkitError if every rate has a
    failure, or if the rates were tried with different numbers of runs.
    """
    require(curve, ("learning_rate", "bias_correction", "runs", "failures"))
    corrected = curve[curve["bias_correction"].astype(bool)]
    counts = corrected.groupby("learning_rate")[["runs", "failures"]].sum()
    _equally_often(counts["runs"], "corrected runs")
    safe = counts.index[counts["failures"] == 0]
    if safe.empty:
        raise StabkitError("corrected runs fail at every learning rate tried; try smaller rates")
    return float(safe.max())


def misfits(table: pd.DataFrame) -> pd.Series:
    """Return for each run whether it failed to fit its training set, whatever its dev score."""
    require(table, UNFITTED)
    return table[list(UNFITTED)].astype(bool).any(axis=1)


def fitting_rate(table: pd.DataFrame) -> float:
    """Return the largest learning rate at which the fewest runs of ``table`` fail to fit.

    Where every model learns something this is ``learning_rate_rule``; a small one on a hard task
    may fail here and there at any rate. Raises StabkitError for unequal numbers of runs.
    """
    require(table, ("learning_rate", *UNFITTED))
    rates = misfits(table).groupby(table["learning_rate"]).agg(["size", "sum"])
    _equally_often(rates["size"], "runs")
    return float(rates.index[rates["sum"] == rates["sum"].min()].max())


def best_rate(table: pd.DataFrame) -> float:
    """Return the learning rate with the highest mean dev score, the smaller one of equals.

    As one would choose a rate for a recipe. Raises StabkitError for unequal numbers of runs.
    """
    require(table, ("learning_rate",))
    finite_scores(table, "score_last")
    rates = table.groupby("learning_rate")["score_last"].agg(["size", "mean"])
    _equally_often(rates["size"], "runs")
    return float(rates["mean"].idxmax())


def _equally_often(counts: pd.Series, what: str) -> None:
    """Raise StabkitError unless every learning rate, the index, was tried with as many runs."""
    if counts.nunique() > 1:
        seen = ", ".join(f"{rate:g}: {runs}" for rate, runs in counts.items())
        raise StabkitError(f"unequal numbers of {what} ({seen}); finish the pilot first")


def training_fit(table: pd.DataFrame, by: Sequence[str] = ("task", "method")) -> pd.DataFrame:
    """Set the fit of the training set beside the dev set, one row per group: ``by``, runs, ...

    Estimates: misfit_rate (``misfits``) and failure_rate (Wilson), and the means (bootstrap) of
    train_loss (nats, in units of the label entropy; finite ones), train_accuracy, score_last.
    """
    require(table, (*by, "failed", "train_loss", "label_entropy", "train_accuracy", "score_last"))
    rows = []
    for names, runs in table.groupby(list(by), sort=False, dropna=False):
        losses = runs["train_loss"] / runs["label_entropy"]
        counts = {"misfit_rate": misfits(runs), "failure_rate": runs["failed"].astype(bool)}
        means = {
            "train_loss": losses[np.isfinite(losses)],
            "train_accuracy": runs["train_accuracy"],
            "score_last": runs["score_last"],
        }
        rows.append(
            dict(zip(by, names, strict=True))
            | {"runs": len(runs)}
            | {name: wilson(int(which.sum()), len(runs)) for name, which in counts.items()}
            | {name: bootstrap(values, np.mean) for name, values in means.items()}
        )
    return pd.DataFrame(rows)


def only(table: pd.DataFrame, *columns: str) -> None:
    """Raise StabkitError if the runs differ in one of ``columns``, which must not be pooled."""
    require(table, columns)
    for name in columns:
        values = table[name].unique()
        if len(values) > 1:
            found = ", ".join(map(str, values))
            raise StabkitError(f"runs of several values of {name} ({found}); select one of them")


def layer_norms(gradients: pd.DataFrame, weight: str | None = None) -> pd.DataFrame:
    """Return L2 gradient norms with one row per step and one column per layer, 1 at the bottom.

    ``gradients`` is a run's gradient history, whole or thinned, as ``Store.gradients`` returns it.
    ``weight`` is one of ``layer_weights``; without it, all matrices of a layer are taken together.
    Raises StabkitError where no layer has such a matrix.
    """
    require(gradients, ("step",))
    parts: dict[int, list[str]] = {}
    for name in gradients.columns:
        if (match := LAYER.search(name)) and weight in (None, match[2]):
            parts.setdefault(int(match[1]) + 1, []).append(name)
    if not parts:
        raise StabkitError(
            f"no column of a layer{f' and the weight {weight!r}' if weight else ''}; the columns "
            f"are {', '.join(gradients.columns[:5])}, ..."
        )
    squares = {layer: gradients[parts[layer]].astype(float) ** 2 for layer in sorted(parts)}
    norms = {layer: np.sqrt(s.sum(axis=1, skipna=False)) for layer, s in squares.items()}
    return pd.DataFrame(norms).set_index(gradients["step"])


def layer_weights(gradients: pd.DataFrame) -> list[str]:
    """Return what the weight matrices of a layer are called, in order; none in a thinned history.

    Raises StabkitError for a table without rows or steps.
    """
    require(gradients, ("step",))
    found = (LAYER.search(name) for name in gradients.columns)
    return list(dict.fromkeys(match[2] for match in found if match and match[2]))
