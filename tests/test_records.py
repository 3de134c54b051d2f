"""What is made of a run's measurements: last and best scores, and the verdicts on failure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from stabkit.config import RunConfig
from stabkit.errors import StabkitError
from stabkit.metrics import Metric
from stabkit.records import Records, check_hardware, dev_summary, history, train_summary
from stabkit.tasks import Split, Task


def judged(evaluations: dict[int, list[int]], metric: Metric = "accuracy") -> dict[str, Any]:
    """Summarise dev predictions on ten examples, six of them of label 1."""
    texts = tuple("abcdefghij")
    labels = np.array([1] * 6 + [0] * 4)
    split = Split(texts, None, labels)
    task = Task("t", split, split, ("no", "yes"), metric)
    looks = {step: np.array(predicted) for step, predicted in evaluations.items()}
    nothing = torch.zeros(10)
    records = Records([], nothing, torch.zeros(10, 0), np.zeros(10), looks)
    return dev_summary(records, task) | {"dev": history(records, task)["dev_score"].tolist()}


def test_failed_is_accuracy_at_or_below_the_majority_at_the_end() -> None:
    right = [1] * 6 + [0] * 4
    assert judged({10: [1] * 10})["failed"]
    assert judged({10: [0] * 10})["failed"]
    assert judged({10: [0, 1] * 5})["failed"]
    assert not judged({10: [1] * 9 + [0]})["failed"]
    assert not judged({10: right})["failed"]
    assert judged({5: right, 10: [1] * 10})["failed"]
    # Accuracy decides for every metric: this one has an MCC above 0.
    above = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert judged({10: above}, "mcc")["score_last"] > 0
    assert judged({10: above}, "mcc")["failed"]


def test_constant_is_one_predicted_class_on_either_side() -> None:
    assert judged({10: [1] * 10})["constant"]
    assert judged({10: [0] * 10})["constant"]
    assert not judged({10: [1] * 9 + [0]})["constant"]


def test_last_and_first_best_look_are_both_reported() -> None:
    right, nine = [1] * 6 + [0] * 4, [1] * 7 + [0] * 3
    found = judged({0: [0] * 10, 2: nine, 4: right, 6: right, 10: nine})
    assert (found["score_last"], found["score_best"], found["best_step"]) == (0.9, 1.0, 4)
    assert (found["dev_accuracy"], found["best_accuracy"], found["best_mcc"]) == (0.9, 1.0, 1.0)
    assert found["dev_predictions"] == nine
    assert found["dev_steps"] == [0, 2, 4, 6, 10]
    assert found["dev_predictions_by_step"] == [[0] * 10, nine, right, right, nine]
    assert found["majority_accuracy"] == 0.6
    assert np.nan_to_num(found["dev"], nan=-1).tolist() == [-1, 0.9, -1, 1, -1, 1, -1, -1, -1, 0.9]
    assert judged({0: right, 10: nine})["best_step"] == 0
    by_f1 = judged({2: [1] * 10, 10: [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]}, "f1")
    assert by_f1["best_step"] == 2
    assert by_f1["best_accuracy"] == 0.6


@pytest.mark.parametrize(
    ("p", "flat"), [(0.3, True), (0.5, True), (0.517, True), (0.518, False), (0.99, False)]
)
def test_flat_is_a_training_loss_within_5_percent_of_the_entropy(p: float, flat: bool) -> None:
    texts, labels = tuple("abcd"), np.array([0, 1, 0, 1])
    split = Split(texts, None, labels)
    task = Task("t", split, split, ("no", "yes"))
    towards = np.log(p / (1 - p)) * np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
    records = Records([], torch.zeros(3), torch.zeros(3, 0), np.zeros(3))
    found = train_summary(towards.astype(np.float32), records, task)
    assert found["train_loss"] == pytest.approx(-np.log(p), rel=1e-6)
    assert found["label_entropy"] == pytest.approx(np.log(2))
    assert found["train_examples"] == 4
    assert found["flat_loss"] == flat
    assert not found["diverged"]
    broken = replace(records, losses=torch.tensor([0.7, np.inf, 0.7]))
    assert train_summary(towards.astype(np.float32), broken, task)["diverged"]


def test_the_majority_class_is_scored_by_the_task_s_metric() -> None:
    found = judged({10: [1] * 10}, "f1")
    assert (found["majority_accuracy"], found["majority_score"]) == (0.6, 0.75)
    assert judged({10: [1] * 10}, "mcc")["majority_score"] == 0


def test_only_runs_of_one_model_on_one_task_have_to_be_of_one_hardware() -> None:
    others = (("mini-bert", "mini-cola"), ("mini-roberta", "mini-rte"))
    made = [{"model": m, "task": t, "hardware": "Another CPU"} for m, t in others]
    check_hardware([RunConfig(model="mini-bert", task="mini-rte")], pd.DataFrame(made), tiny.CPU)
    with pytest.raises(StabkitError, match="1 runs that these would be compared with"):
        check_hardware([RunConfig(task="mini-cola")], pd.DataFrame(made), tiny.CPU)
