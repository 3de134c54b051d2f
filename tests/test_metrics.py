"""The metrics against scikit-learn, through evaluate and directly; nothing else is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from stabkit import metric_module
from stabkit.errors import DataError
from stabkit.metrics import METRICS, classification_scores, score

Pair = tuple[NDArray[np.int64], NDArray[np.int64], int]


@st.composite
def predictions_and_labels(draw: st.DrawFn) -> Pair:
    n_labels = draw(st.integers(2, 5))
    length = draw(st.integers(1, 40))
    column = arrays(np.int64, length, elements=st.integers(0, n_labels - 1))
    return draw(column), draw(column), n_labels


def reference(
    predictions: NDArray[np.int64], labels: NDArray[np.int64], n_labels: int
) -> dict[str, float]:
    average = "binary" if n_labels == 2 else "macro"
    with warnings.catch_warnings():  # scikit-learn warns of arrays with a single label
        warnings.simplefilter("ignore")
        accuracy = accuracy_score(labels, predictions)
        f1 = f1_score(labels, predictions, average=average, zero_division=0)
        mcc = matthews_corrcoef(labels, predictions)
    return {"accuracy": accuracy, "f1": f1, "accuracy_f1": (accuracy + f1) / 2, "mcc": mcc}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # busy machines
@given(predictions_and_labels())
def test_scores_equal_scikit_learn(pair: Pair) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = classification_scores(*pair)
    assert scores == pytest.approx(reference(*pair), abs=1e-12)
    assert tuple(scores) == METRICS


@pytest.mark.parametrize("n_labels", [2, 3])
def test_score_through_evaluate_equals_the_closed_form(n_labels: int) -> None:
    rng = np.random.default_rng(n_labels)
    predictions, labels = rng.integers(0, n_labels, (2, 408))
    assert score(predictions, labels, n_labels) == classification_scores(
        predictions, labels, n_labels
    )
    assert score(predictions.tolist(), labels.tolist(), n_labels) == pytest.approx(
        reference(predictions, labels, n_labels)
    )


@pytest.mark.parametrize("constant", [0, 1])
def test_constant_predictions_are_scored_without_a_warning(constant: int) -> None:
    labels = np.array([1] * 279 + [0] * 129)  # MRPC's dev set
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = classification_scores(np.full(408, constant), labels, 2)
    expected = (279 / 408, 2 * 279 / (408 + 279)) if constant else (129 / 408, 0.0)
    assert (scores["accuracy"], scores["f1"]) == pytest.approx(expected)
    assert scores["mcc"] == 0


def test_large_counts_do_not_overflow() -> None:
    labels = np.arange(200_000) % 2
    assert classification_scores(labels, labels, 2)["mcc"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("predictions", "labels", "n_labels", "message"),
    [
        ([0, 1], [0], 2, "one length"),
        ([], [], 2, "non-empty"),
        ([0, 2], [0, 1], 2, "predictions must be whole numbers from 0 to 1"),
        ([0, 1], [0, -1], 2, "labels must be whole"),
        ([0.0, 1.0], [0, 1], 2, "whole numbers"),
        ([0, 0], [0, 0], 1, "two or more"),
    ],
)
def test_bad_arrays_are_refused(
    predictions: list[float], labels: list[int], n_labels: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        score(predictions, labels, n_labels)


def _numpy_state() -> str:
    with np.printoptions(threshold=1000):
        return str(np.random.get_state(legacy=False))


def test_scoring_leaves_the_random_state_alone() -> None:
    import torch

    before = _numpy_state(), torch.get_rng_state()
    score([0, 1, 1], [0, 1, 0], 2)
    assert _numpy_state() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_scoring_writes_nothing_and_evaluate_loads_the_module_by_path(tmp_path: Path) -> None:
    home = tmp_path / "huggingface"
    program = f"""
from pathlib import Path
from stabkit.metrics import score
scores = score([0, 1, 1, 1], [0, 1, 1, 0], 2)
assert not Path({str(home)!r}).exists()
import evaluate
module = evaluate.load({metric_module.__file__!r})
assert module.compute(predictions=[0, 1, 1, 1], references=[0, 1, 1, 0]) == scores
"""
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(Path(metric_module.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
