"""The gate of the organism: no shortcut solves its tasks, and its encoder compares sentences.

Before any seed is reported, baselines that read words but relate nothing must stay near the
majority class (``baselines``), and the encoder must use the first sentence when it fills a gap in
the second (``stabkit.mini.probe``). ``training`` then asks finished runs for a clear distance from
the best baseline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import hstack
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from stabkit.errors import StabkitError
from stabkit.mini.corpus import books
from stabkit.mini.tasks import splits
from stabkit.stats import Floats
from stabkit.tables import SIGNS, learned_nothing, require
from stabkit.tasks import Split

LIMIT = 0.05  # so far above the majority class a baseline may stand
CLEARANCE = 0.15  # so far above the best baseline trained runs must stand
FITTED = 0.99  # the training accuracy that 20 epochs must reach
HELD_OUT = 4000  # examples to score; an accuracy's standard error is then below a point
PENALTIES = (0.01, 0.1, 1.0)  # of the logistic regressions, inverse


@lru_cache
def baselines(task: str, held_out: int = HELD_OUT) -> pd.DataFrame:
    """Return what shortcuts score on examples beyond the training set; one row per baseline.

    Columns: task, baseline, accuracy, majority, above (their difference), passes, and auc, the
    chance that an example of label 1 is ranked above one of label 0, which sees weak signals in
    tasks of uneven balance (0.5: none). Each is the best of its classifiers on the very examples
    that are scored, so a baseline is flattered rather than wronged. Raises DataError for an
    unknown task, StabkitError without examples to score.
    """
    train, _, further = splits(task, held_out)
    if further is None:
        raise StabkitError(f"held_out is {held_out}; expected some examples to score")
    scores = [_score(view, train, further) for view in _views(train, further)]
    majority = np.bincount(further.labels).max() / len(further)
    frame = pd.DataFrame(scores).assign(task=task, majority=majority)
    above = frame["accuracy"] - majority
    return frame.assign(above=above, passes=above <= LIMIT)[
        ["task", "baseline", "accuracy", "majority", "above", "auc", "passes"]
    ]


@dataclass(frozen=True)
class View:
    """What one baseline sees: features (examples x features) of both splits, its classifiers."""

    name: str
    train: Any
    further: Any
    classifiers: list[Any]


def _views(train: Split, further: Split) -> Iterator[View]:
    linear = [LogisticRegression(C=penalty, solver="liblinear") for penalty in PENALTIES]
    trees = [HistGradientBoostingClassifier(max_iter=60, max_depth=3)]
    pairs = train.texts_b is not None
    for name, reach in (("words", 1), ("word pairs", 2)):
        texts = _counts(train, further, reach)
        if pairs:
            yield View(f"{name} of the second text", *texts[1], linear)
        seen, unseen = (hstack(split) for split in zip(*texts, strict=True))
        yield View(name, seen, unseen, linear)
    seen, unseen = _shapes(train), _shapes(further)
    yield View("lengths", seen[:, :2], unseen[:, :2], trees)
    if pairs:
        yield View("lengths and shared words", seen, unseen, trees)


def _score(view: View, train: Split, further: Split) -> dict[str, Any]:
    fitted = [model.fit(view.train, train.labels) for model in view.classifiers]
    ranks = [model.decision_function(view.further) for model in fitted]
    return {
        "baseline": view.name,
        "accuracy": max(float(model.score(view.further, further.labels)) for model in fitted),
        "auc": max(float(roc_auc_score(further.labels, rank)) for rank in ranks),
    }


def _counts(train: Split, further: Split, reach: int) -> list[tuple[Any, Any]]:
    """Count words, and up to ``reach`` neighbours together, in each text of both splits."""
    counts = []
    for texts, unseen in zip(_texts(train), _texts(further), strict=True):
        counter = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, reach), min_df=2)
        counts.append((counter.fit_transform(texts), counter.transform(unseen)))
    return counts


def _texts(split: Split) -> list[tuple[str, ...]]:
    return [split.texts_a] if split.texts_b is None else [split.texts_a, split.texts_b]


def _shapes(split: Split) -> Floats:
    """Return (examples x 5): both lengths; words shared, only in the first, only in the second."""
    rows = []
    for i, text in enumerate(split.texts_a):
        one, two = text.split(), split.texts_b[i].split() if split.texts_b else []
        first, second = set(one), set(two)
        differences = len(first & second), len(first - second), len(second - first)
        rows.append((len(one), len(two), *differences))
    return np.array(rows, dtype=np.float64)


def overlap(task: str, sample: int = 1000) -> dict[str, float]:
    """Return which share of a task's distinct texts occurs word for word in corpus books.

    ``sample`` books are drawn from the corpus's stream; ``sentences`` is how many distinct ones
    they hold. The task's own train and dev texts are told apart.
    """
    known = _sentences(sample)
    shares: dict[str, float] = {"sentences": len(known)}
    train, dev, _ = splits(task)
    for name, split in (("train", train), ("dev", dev)):
        texts = {text for side in _texts(split) for text in side}
        shares[name] = len(texts & known) / len(texts)
    return shares


@lru_cache
def _sentences(sample: int) -> frozenset[str]:
    return frozenset(
        text for book in islice(books(seed=1), sample) for scene in book for text in scene
    )


def training(runs: pd.DataFrame, shortcuts: pd.DataFrame) -> pd.DataFrame:
    """Judge corrected runs against the gate: columns model, task, check, holds, numbers.

    ``runs`` is a run table, ``shortcuts`` the rows of ``baselines`` for its tasks. The median dev
    accuracy of 3-epoch runs without a sign of failure stands CLEARANCE above the best baseline;
    the median training accuracy of runs of 20 epochs or more reaches FITTED. How many runs the
    first leaves out is said; where it leaves none it does not hold. A check without runs is left
    out.
    """
    require(
        runs,
        ("model", "task", "epochs", "bias_correction", "dev_accuracy", "train_accuracy", *SIGNS),
    )
    corrected = runs[runs["bias_correction"].astype(bool)]
    checks = []
    for (model, task), group in corrected.groupby(["model", "task"], sort=False):
        best = shortcuts.loc[shortcuts["task"] == task, "accuracy"].max()
        nothing = learned_nothing(group)
        short, long = group["epochs"] == 3, group["epochs"] >= 20
        learned, fitted = group[short & ~nothing], group[long]
        failed = int((short & nothing).sum())
        needed = best + CLEARANCE
        found = (
            _check("3 epochs, dev accuracy", learned["dev_accuracy"], needed, failed),
            _check("20 epochs, training accuracy", fitted["train_accuracy"], FITTED),
        )
        checks += [{"model": model, "task": task, **check} for check in found if check]
    return pd.DataFrame(checks, columns=["model", "task", "check", "holds", "numbers"])


def _check(name: str, accuracies: pd.Series, needed: float, failed: int = 0) -> dict[str, Any]:
    """Return what to say of the runs that count; ``failed`` is the number of those that do not."""
    left_out = f"; {failed} more with a sign of failure" if failed else ""
    if accuracies.empty:
        numbers = f"no run{left_out}"
        return {"check": name, "holds": False, "numbers": numbers} if failed else {}
    middle, low = accuracies.median(), accuracies.min()
    numbers = (
        f"median {100 * middle:.1f} %, lowest {100 * low:.1f} %, n = {len(accuracies)}; "
        f"needed {100 * needed:.1f} %{left_out}"
    )
    return {"check": name, "holds": bool(middle >= needed), "numbers": numbers}
