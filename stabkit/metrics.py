"""The four metrics of the paper's tasks: accuracy, F1, their mean, Matthews' correlation.

``classification_scores`` is the closed form on a confusion matrix, NumPy alone, for tables and
baselines. ``score`` gives the same numbers through Hugging Face ``evaluate``, whose import brings
torch with it; it runs the project's own metric module, so no network is touched.
"""

from __future__ import annotations

from functools import cache
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabkit.errors import DataError

Metric: TypeAlias = Literal["accuracy", "f1", "accuracy_f1", "mcc"]
METRICS: tuple[Metric, ...] = get_args(Metric)


def score(predictions: ArrayLike, labels: ArrayLike, n_labels: int) -> dict[Metric, float]:
    """Return all four metrics of ``predictions`` (n,) against ``labels`` (n,), through evaluate.

    Nothing is downloaded and nothing written, so that many processes may score at once.
    Raises DataError as ``classification_scores`` does.
    """
    _checked(predictions, labels, n_labels)
    result: dict[Metric, float] = _module().compute(
        predictions=predictions, references=labels, n_labels=n_labels
    )
    return result


def classification_scores(
    predictions: ArrayLike, labels: ArrayLike, n_labels: int
) -> dict[Metric, float]:
    """Return the metrics of ``predictions`` (n,) against ``labels`` (n,), both in 0..n_labels-1.

    Accuracy, F1 and their mean lie in 0..1, MCC in -1..1. F1 is that of label 1 for two labels
    and the mean over the labels that occur in either array for more; what is undefined, such as
    the F1 of a label never predicted or the MCC of a constant prediction, is 0. These are the
    conventions of scikit-learn. Raises DataError when the arrays are empty, differ in length or
    hold anything but label indices.
    """
    predicted, actual = _checked(predictions, labels, n_labels)
    cells = np.bincount(actual * n_labels + predicted, minlength=n_labels**2)
    table = cells.reshape(n_labels, n_labels).astype(np.float64)
    accuracy = float(np.trace(table) / table.sum())
    f1 = _f1(table)
    return {
        "accuracy": accuracy,
        "f1": f1,
        "accuracy_f1": (accuracy + f1) / 2,
        "mcc": _mcc(table),
    }


def _f1(table: NDArray[np.float64]) -> float:
    """F1 = 2 TP / (2 TP + FP + FN): of label 1 when there are two, else the macro average."""
    twice_hits = 2 * np.diag(table)
    total = table.sum(axis=0) + table.sum(axis=1)
    per_label = np.divide(twice_hits, total, out=np.zeros_like(total), where=total > 0)
    return float(per_label[1] if len(table) == 2 else per_label[total > 0].mean())


def _mcc(table: NDArray[np.float64]) -> float:
    """Matthews' correlation, for more than two labels Gorodkin's R_K (2004); 0 if undefined."""
    n, actual, predicted = table.sum(), table.sum(axis=1), table.sum(axis=0)
    covariance = n * np.trace(table) - actual @ predicted
    spread = np.sqrt((n**2 - actual @ actual) * (n**2 - predicted @ predicted))
    return float(covariance / spread) if spread > 0 else 0.0


def _checked(
    predictions: ArrayLike, labels: ArrayLike, n_labels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    predicted, actual = np.asarray(predictions), np.asarray(labels)
    if predicted.ndim != 1 or predicted.shape != actual.shape or not len(actual):
        raise DataError(
            f"predictions of shape {predicted.shape} against labels of shape {actual.shape}: "
            "expected two non-empty vectors of one length"
        )
    if n_labels < 2:
        raise DataError(f"{n_labels} label(s): a classification task has two or more")
    for name, array in (("predictions", predicted), ("labels", actual)):
        if array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= n_labels:
            raise DataError(f"{name} must be whole numbers from 0 to {n_labels - 1}")
    return predicted.astype(np.int64), actual.astype(np.int64)


@cache
def _module() -> Any:
    """Make the metric module once; kept in memory, it needs its folder only to be made."""
    from stabkit.metric_module import Classification

    with TemporaryDirectory(prefix="stabkit-") as folder:
        return Classification(keep_in_memory=True, cache_dir=folder)
