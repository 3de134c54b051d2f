"""Task, Split and subset: their numbers, what they refuse, and the names of tasks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stabkit.errors import DataError
from stabkit.sources import DATA_SETS
from stabkit.tasks import GENERATED, PUBLISHED, Split, Task, load_task, subset


def task(train: list[int], dev: list[int], labels: tuple[str, ...] = ("a", "b", "c")) -> Task:
    def split(codes: list[int]) -> Split:
        return Split(tuple(map(str, range(len(codes)))), None, np.array(codes))

    return Task("t", split(train), split(dev), labels)


def test_generated_tasks_are_loaded_by_name() -> None:
    loaded = load_task("mini-rte")
    assert loaded.name == "mini-rte"
    assert len(loaded.train) == 2490
    assert set(GENERATED) == {f"mini-{name}" for name in PUBLISHED}
    assert set(PUBLISHED) == set(DATA_SETS)


def test_missing_files_and_unknown_names() -> None:
    with pytest.raises(DataError, match=r"file not found: nowhere/train\.csv"):
        load_task("nowhere/train.csv")
    with pytest.raises(DataError, match=r"file not found: train\.csv"):
        load_task("train.csv")
    with pytest.raises(
        DataError, match=r"unknown task 'mini-rtee', and .*: did you mean 'mini-rte'"
    ):
        load_task("mini-rtee")


def test_a_digest_is_of_names_and_metric_too() -> None:
    one = task([0, 1, 2], [0])
    assert task([0, 1, 2], [0]).digest == one.digest
    others = [
        task([0, 1, 2], [0], ("b", "a", "c")),
        task([0, 1, 2], [1]),
        task([0, 2, 1], [0]),
        Task("t", one.train, one.dev, one.labels, "mcc"),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 5
    assert Task("another name", one.train, one.dev, one.labels).digest == one.digest


def test_baselines_and_entropy_in_closed_form() -> None:
    made = task([0, 0, 0, 1], [1, 1, 0, 2])
    assert made.majority_accuracy == 0.5
    assert made.majority_baseline("f1") == pytest.approx((2 * 2 / (4 + 2)) / 3)
    assert made.majority_baseline("mcc") == 0
    assert made.label_entropy == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert repr(made.train) == "<4 labelled texts>"


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="columns of"):
        Split(("a", "b"), None, np.array([0]))
    with pytest.raises(DataError, match="the dev set is empty"):
        task([0, 1], [])
    with pytest.raises(DataError, match=r"training labels outside 0\.\.2"):
        task([0, 3], [0])
    with pytest.raises(DataError, match="unknown metric 'f2'"):
        Task("t", task([0, 1], [0]).train, task([0, 1], [0]).dev, ("a", "b"), metric="f2")  # type: ignore[arg-type]
    pairs = Split(("a",), ("b",), np.array([0]))
    with pytest.raises(DataError, match="pairs"):
        Task("t", task([0, 1], [0]).train, pairs, ("a", "b"))


def test_the_digest_covers_content_and_nothing_else() -> None:
    base = task([0, 1], [0, 1])
    assert base.digest == task([0, 1], [0, 1]).digest
    others = [
        task([1, 0], [0, 1]),
        task([0, 1], [1, 0]),
        task([0, 1], [0, 1], labels=("a", "b", "d")),
        Task("t", base.train, base.dev, base.labels, metric="mcc"),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 5
    assert Task("u", base.train, base.dev, base.labels, source="s").digest == base.digest


def test_labels_cannot_be_changed_afterwards() -> None:
    codes = np.array([0, 1])
    split = Split(("a", "b"), None, codes)
    codes[0] = 1
    assert split.labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="read-only"):
        split.labels[0] = 1


def test_subsets_are_fixed_nested_and_bounded() -> None:
    full = task([0, 1] * 50, [0, 1])
    small, large = subset(full, 20, seed=3), subset(full, 40, seed=3)
    assert small.train.texts_a == subset(full, 20, seed=3).train.texts_a
    assert set(small.train.texts_a) < set(large.train.texts_a)
    assert set(small.train.texts_a) != set(subset(full, 20, seed=4).train.texts_a)
    assert small.dev is full.dev
    assert subset(full, 100, seed=0).digest == full.digest
    assert small.digest != full.digest
    for size in (0, 101):
        with pytest.raises(DataError, match="t has 100"):
            subset(full, size, seed=0)
