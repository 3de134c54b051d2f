"""Where tasks come from: published data sets (hub, cache or folder) and the user's own files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabkit.columns import (
    Columns,
    choose_columns,
    encode_labels,
    read_labels,
    read_texts,
    sorted_labels,
)
from stabkit.errors import DataError
from stabkit.metrics import Metric
from stabkit.readers import FORMATS, Splits, read_files, read_folder, read_hub
from stabkit.tasks import Split, Task

DATA_VARIABLE = "STABKIT_DATA"
DEV_SHARE = 0.2
SPLIT_SEED = 0


@dataclass(frozen=True)
class Published:
    """A published data set: its place on the hub, labels, metric and sizes (train, dev)."""

    repo: str
    config: str
    labels: tuple[str, ...]
    metric: Metric
    sizes: tuple[int, int]
    synonyms: tuple[tuple[str, int], ...] = ()

    @property
    def codes(self) -> dict[str, int]:
        """The code of every spelling of a label: its number, its name, its synonyms."""
        numbers = {str(code): code for code in range(len(self.labels))}
        return numbers | {name: i for i, name in enumerate(self.labels)} | dict(self.synonyms)


_GLUE = "nyu-mll/glue"
_ENTAILMENT = ("entailment", "not_entailment")

# Label order as in Hugging Face's GLUE. MRPC's metric follows the preprint, whose "F1" is the mean
# of accuracy and F1: its failed runs lie at 74.8 = (68.4 + 81.2) / 2. SciTail is read in its
# snli_format: the hub's tsv_format has 23,097 training examples, 499 fewer.
DATA_SETS = {
    "cola": Published(_GLUE, "cola", ("unacceptable", "acceptable"), "mcc", (8551, 1043)),
    "mrpc": Published(_GLUE, "mrpc", ("not_equivalent", "equivalent"), "accuracy_f1", (3668, 408)),
    "rte": Published(_GLUE, "rte", _ENTAILMENT, "accuracy", (2490, 277)),
    "qnli": Published(_GLUE, "qnli", _ENTAILMENT, "accuracy", (104743, 5463)),
    "scitail": Published(
        "allenai/scitail",
        "snli_format",
        ("entails", "neutral"),
        "accuracy",
        (23596, 1304),
        synonyms=(("entailment", 0),),
    ),
}


def load_published(
    name: str,
    data_dir: Path | str | None = None,
    text_columns: tuple[str, ...] = (),
    label_column: str | None = None,
) -> Task:
    """Return a data set of the paper; ``stabkit.tasks.load_task`` says where it is looked for."""
    known = DATA_SETS[name]
    train, dev, source = _read_published(name, known, data_dir)
    columns = choose_columns(train.column_names, text_columns, label_column, f"{name} (train)")
    sizes = (len(train), len(dev))
    note = "" if sizes == known.sizes else _difference(sizes, known.sizes)
    return Task(
        name=name,
        train=_split(train, columns, known.codes, f"{name} (train)"),
        dev=_split(dev, columns, known.codes, f"{name} (dev)"),
        labels=known.labels,
        metric=known.metric,
        source=source,
        note=note,
    )


def load_own(
    path: Path,
    dev_file: Path | str | None = None,
    text_columns: tuple[str, ...] = (),
    label_column: str | None = None,
) -> Task:
    """Return the user's own data as a task; ``stabkit.tasks.load_task`` describes the files."""
    train, dev, source = _read_own(path, Path(dev_file) if dev_file else None)
    columns = choose_columns(train.column_names, text_columns, label_column, str(path))
    labels = _labels(train, columns.label, str(path))
    numbered = bool(_names(train, columns.label))
    whole = _split(train, columns, _codes(train, columns.label, labels, numbered), str(path))
    if dev is None:
        kept, held_out = hold_out(whole.labels, DEV_SHARE, SPLIT_SEED, labels)
        splits = whole.take(kept), whole.take(held_out)
    else:
        codes = _codes(dev, columns.label, labels, numbered)
        splits = whole, _split(dev, columns, codes, str(dev_file or f"{path} (dev)"))
    told = f"texts in {' and '.join(columns.texts)}, labels in {columns.label}"
    task = Task(path.stem, *splits, labels=labels, source=f"{source} ({told})")
    unseen = np.setdiff1d(task.dev.labels, task.train.labels)
    if len(unseen):
        names = ", ".join(repr(labels[i]) for i in unseen)
        raise DataError(f"{path.name}: dev labels that no training example has: {names}")
    return task


def hold_out(
    labels: NDArray[np.int64], share: float, seed: int, names: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows (ascending) to train on and to hold out: of each label ``share``, at random.

    Both parts have at least one example of every label; raises DataError where a label of ``names``
    has a single one.
    """
    rng = np.random.default_rng(seed)
    held_out: list[NDArray[np.int64]] = []
    for code, count in enumerate(np.bincount(labels)):
        if count == 1:
            raise DataError(
                f"the label {names[code]!r} has one example, too few to split off a dev set; "
                "name a dev file. (Labels are classes: numbers on a scale cannot be learned)"
            )
        size = min(max(round(share * count), 1), count - 1) if count else 0
        held_out.append(rng.permutation(np.flatnonzero(labels == code))[:size])
    dev = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), dev), dev


def _read_published(name: str, known: Published, data_dir: Path | str | None) -> Splits:
    """Read from the folder given, else from that of the environment, else from the hub."""
    base = data_dir or os.environ.get(DATA_VARIABLE)
    if base and not Path(base).is_dir():
        raise DataError(f"no folder {base} (data folder). {_help(name)}")
    for folder in [Path(base, part) for part in folders(name)] if base else []:
        if folder.is_dir():
            return read_folder(folder)
    if data_dir:
        raise DataError(f"no folder {name} in {data_dir}. {_help(name)}")
    try:
        return read_hub(known.repo, known.config)
    except DataError as error:
        raise DataError(f"{error}. {_help(name)}") from error


def folders(name: str) -> tuple[str, ...]:
    """Return in which folders of a data folder a published set may lie; none for other names."""
    return (DATA_SETS[name].config, name) if name in DATA_SETS else ()


def _help(name: str) -> str:
    texts = "sentence" if name == "cola" else "sentence1, sentence2"
    return (
        f"To read {name} from local files, name a folder (--data-dir, or the environment variable "
        f"{DATA_VARIABLE}) in which {name}/train.jsonl and {name}/dev.jsonl lie, with the columns "
        f"{texts}, label ({FORMATS}; a snapshot of the hub's repository will do)"
    )


def _difference(sizes: tuple[int, int], published: tuple[int, int]) -> str:
    return (
        f"not the published sizes: {sizes[0]:,} of {published[0]:,} training "
        f"and {sizes[1]:,} of {published[1]:,} dev examples"
    )


def _read_own(path: Path, dev_file: Path | None) -> tuple[Any, Any, str]:
    if not path.is_dir():
        dev = read_files([dev_file]) if dev_file else None
        source = f"{path} and {dev_file}" if dev_file else f"{path}, a fifth of it held out"
        return read_files([path]), dev, source
    if dev_file:
        raise DataError(f"{path} is a folder with a dev file of its own: leave out {dev_file}")
    return read_folder(path)


def _names(table: Any, column: str) -> tuple[str, ...]:
    """Return the names that a table carries for the numbers in its label column, if it does."""
    found = table.column_names and table.features.get(column)
    return tuple(getattr(found, "names", None) or ())


def _labels(train: Any, column: str, where: str) -> tuple[str, ...]:
    return _names(train, column) or sorted_labels(read_labels(train, column, where))


def _codes(table: Any, column: str, labels: tuple[str, ...], numbered: bool) -> dict[str, int]:
    """Return the code of each spelling of a label in ``table``.

    A column that carries names holds their numbers, even where a name looks like one. Where it is
    the training set's that does (``numbered``), others may hold either.
    """
    codes = {name: code for code, name in enumerate(labels)}
    if own := _names(table, column):
        return {str(code): codes[name] for code, name in enumerate(own) if name in codes}
    numbers = {str(code): code for code in codes.values()} if numbered else {}
    return numbers | codes


def _split(table: Any, columns: Columns, codes: Mapping[str, int], where: str) -> Split:
    texts = [read_texts(table, column, where) for column in columns.texts]
    labels = encode_labels(read_labels(table, columns.label, where), codes, where)
    return Split(texts[0], texts[1] if len(texts) == 2 else None, labels)
