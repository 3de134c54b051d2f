"""Classification tasks: texts, labels and a metric, from the hub, from files or generated.

``load_task`` knows the generated tasks (``mini-rte`` and its like), the paper's four GLUE tasks
and SciTail by name, and reads the user's own csv, tsv, jsonl or parquet by path.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stabkit.errors import DataError, nearest
from stabkit.metrics import METRICS, Metric, classification_scores

PUBLISHED = ("cola", "mrpc", "rte", "qnli", "scitail")
GENERATED = tuple(f"mini-{name}" for name in PUBLISHED)
NAMES = (*GENERATED, *PUBLISHED)


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Examples of one split: first texts, second texts (None for single sentences), labels (n,)."""

    texts_a: tuple[str, ...]
    texts_b: tuple[str, ...] | None
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Freeze the columns and refuse those of different length."""
        object.__setattr__(self, "texts_a", tuple(self.texts_a))
        if self.texts_b is not None:
            object.__setattr__(self, "texts_b", tuple(self.texts_b))
        labels = np.array(self.labels, dtype=np.int64)
        labels.setflags(write=False)
        object.__setattr__(self, "labels", labels)
        columns = [self.texts_a, labels, *([] if self.texts_b is None else [self.texts_b])]
        if labels.ndim != 1 or len({len(column) for column in columns}) != 1:
            raise DataError(f"columns of {[len(column) for column in columns]} rows in one split")

    def __len__(self) -> int:
        return len(self.texts_a)

    def __repr__(self) -> str:
        kind = "texts" if self.texts_b is None else "pairs"
        return f"<{len(self)} labelled {kind}>"

    def take(self, rows: NDArray[np.int64]) -> Split:
        """Return the examples at ``rows`` (m,), in that order."""
        second = None if self.texts_b is None else tuple(self.texts_b[i] for i in rows)
        return Split(tuple(self.texts_a[i] for i in rows), second, self.labels[rows])


@dataclass(frozen=True, eq=False)
class Task:
    """A classification task; label i is called ``labels[i]``.

    ``metric`` is the one its runs are compared by, ``source`` says where the data come from and
    ``note`` where they differ from the published ones. Raises DataError when the parts do not fit.
    """

    name: str
    train: Split
    dev: Split
    labels: tuple[str, ...]
    metric: Metric = "accuracy"
    source: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained on or scored."""
        if self.metric not in METRICS:
            raise DataError(f"unknown metric {self.metric!r}: {nearest(self.metric, METRICS)}")
        for name, split in (("training", self.train), ("dev", self.dev)):
            if not len(split):
                raise DataError(f"{self.name}: the {name} set is empty")
            if split.labels.min() < 0 or split.labels.max() >= len(self.labels):
                raise DataError(f"{self.name}: {name} labels outside 0..{len(self.labels) - 1}")
        if (self.train.texts_b is None) != (self.dev.texts_b is None):
            raise DataError(f"{self.name}: one split has pairs of texts, the other single texts")
        present = np.unique(self.train.labels)
        if len(present) < 2:
            only = self.labels[int(present[0])]
            raise DataError(
                f"{self.name}: every training example has the label {only!r}; "
                "classification needs two labels or more"
            )

    @cached_property
    def digest(self) -> str:
        """sha256 of all that runs depend on: texts, labels and their names, metric; no file."""
        columns = [
            [split.texts_a, split.texts_b, split.labels.tolist()]
            for split in (self.train, self.dev)
        ]
        content = json.dumps([self.labels, self.metric, *columns])
        return hashlib.sha256(content.encode("ascii")).hexdigest()

    @property
    def majority_accuracy(self) -> float:
        """Accuracy of the majority classifier, at or below which a run has failed."""
        return self.majority_baseline("accuracy")

    def majority_baseline(self, metric: Metric) -> float:
        """Return ``metric`` on the dev set of always predicting the dev set's commonest label."""
        commonest = np.bincount(self.dev.labels).argmax()
        constant = np.full(len(self.dev), commonest)
        return classification_scores(constant, self.dev.labels, len(self.labels))[metric]

    @property
    def label_entropy(self) -> float:
        """Entropy of the training labels in nats: the loss of knowing their shares alone."""
        share = np.bincount(self.train.labels) / len(self.train)
        share = share[share > 0]
        return float(-(share * np.log(share)).sum())


def subset(task: Task, size: int, seed: int) -> Task:
    """Return ``task`` with ``size`` training examples drawn at random, dev set unchanged.

    The paper's 1,000-sample runs (section 4, Fig. 3). Fixed by ``seed``, in the order of the full
    set; for one seed a smaller subset lies within a larger one. Raises DataError for a size outside
    1..len(task.train).
    """
    if not 1 <= size <= len(task.train):
        raise DataError(f"a subset of {size} examples: {task.name} has {len(task.train)}")
    rows = np.sort(np.random.default_rng(seed).permutation(len(task.train))[:size])
    return replace(task, train=task.train.take(rows))


def load_task(
    task: str,
    data_dir: Path | str | None = None,
    dev_file: Path | str | None = None,
    text_columns: tuple[str, ...] = (),
    label_column: str | None = None,
) -> Task:
    """Return the task called, or lying at, ``task``.

    A published task comes from ``data_dir``/<task> if given, else from a folder of that name in the
    folder that the environment variable STABKIT_DATA names, else from the hub or its cache. Any
    other ``task`` is the path of the user's training file (csv, tsv, jsonl, parquet), or of a
    folder with a train and a dev file; without ``dev_file`` a fifth of a single file, stratified by
    label, becomes the dev set. ``text_columns`` (one or two) and ``label_column`` are needed where
    the columns' names leave doubt. Raises DataError that says what is wrong with the name, the
    files or their content.
    """
    if task in NAMES and dev_file:
        raise DataError(f"{task} has a dev set of its own: leave out the dev file")
    if task in GENERATED:
        if text_columns or label_column:
            raise DataError(f"{task} is generated: it has no columns to name")
        from stabkit.mini import tasks as generated

        return generated.load(task)
    # Imported here: datasets takes a second, and generated tasks do without it.
    from stabkit import sources

    if task in PUBLISHED:
        return sources.load_published(task, data_dir, text_columns, label_column)
    if not Path(task).exists() and Path(task).name == task and not Path(task).suffix:
        raise DataError(f"unknown task {task!r}, and no file of that name: {nearest(task, NAMES)}")
    return sources.load_own(Path(task), dev_file, text_columns, label_column)
