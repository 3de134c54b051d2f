"""From a table's columns to texts and label codes, with errors that name column and example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabkit.errors import DataError

PAIRS = (
    ("sentence1", "sentence2"),
    ("question", "sentence"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
SINGLES = (("sentence",), ("text",))
LABELS = (("label",), ("gold_label",))


@dataclass(frozen=True)
class Columns:
    """The names of the one or two text columns and of the label column."""

    texts: tuple[str, ...]
    label: str


def choose_columns(
    names: list[str], text_columns: tuple[str, ...], label_column: str | None, where: str
) -> Columns:
    """Return the columns named, or those that ``names`` leave no doubt about.

    Raises DataError, which lists the columns, when one named is not there, when there are more than
    two text columns, or when none or several choices could be meant.
    """
    wanted = [*text_columns, *([label_column] if label_column else [])]
    absent = [name for name in wanted if name not in names]
    if absent:
        raise DataError(f"{where} has no column {', '.join(absent)}; it has {', '.join(names)}")
    if len(text_columns) > 2:
        raise DataError(f"{len(text_columns)} text columns named; a task has one or two")
    texts = text_columns or _only(PAIRS, names) or _only(SINGLES, names)
    label = (label_column,) if label_column else _only(LABELS, names)
    if not texts or not label:
        raise DataError(
            f"{where} has the columns {', '.join(names)}, which leaves its "
            f"{'label column' if texts else 'text columns'} in doubt; name the one or two text "
            "columns and the label column (--text-columns a,b --label-column c)"
        )
    if label[0] in texts:
        raise DataError(
            f"{where}: {label[0]!r} is a text column and the label column; expected another for one"
        )
    return Columns(tuple(texts), label[0])


def read_texts(table: Any, column: str, where: str) -> tuple[str, ...]:
    """Return a text column of a ``datasets.Dataset``; raises DataError unless all of it is text."""
    values = _column(table, column, where)
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str):
            found = "nothing" if value is None else f"{type(value).__name__} {value!r}"
            raise DataError(f"{where}: {found} in text column {column!r}, example {number}")
    return tuple(values)


def read_labels(table: Any, column: str, where: str) -> list[str]:
    """Return a label column of a ``datasets.Dataset`` as names: 1, 1.0, '1' are all '1'.

    Raises DataError for a missing label and for numbers that are not whole.
    """
    names = [_label_name(value) for value in _column(table, column, where)]
    missing = [number for number, name in enumerate(names, start=1) if not name]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {len(names)} examples have no label that is a name or a "
            f"whole number in column {column!r} (example {_first(missing)}); drop them or name them"
        )
    return names


def sorted_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels, whole numbers in their order, names in that of the alphabet."""
    distinct = sorted(set(names))
    try:
        return tuple(sorted(distinct, key=int))
    except ValueError:
        return tuple(distinct)


def encode_labels(names: list[str], codes: Mapping[str, int], where: str) -> NDArray[np.int64]:
    """Return the codes (n,) of labels; raises DataError that names the first unknown label."""
    for number, name in enumerate(names, start=1):
        if name not in codes:
            raise DataError(
                f"{where}: unknown label {name!r} in example {number}; "
                f"the training labels are {_first(codes)}"
            )
    return np.array([codes[name] for name in names], dtype=np.int64)


def _first(values: Iterable[object]) -> str:
    listed = [str(value) for value in values]
    return ", ".join(listed[:10]) + (", ..." if len(listed) > 10 else "")


def _only(choices: Iterable[tuple[str, ...]], names: list[str]) -> tuple[str, ...]:
    """Return the one choice whose columns are all there, as they are spelt there, or nothing."""
    spelt = {name.strip().casefold(): name for name in names}
    possible = [choice for choice in choices if set(choice) <= spelt.keys()]
    return tuple(spelt[name] for name in possible[0]) if len(possible) == 1 else ()


def _column(table: Any, column: str, where: str) -> list[Any]:
    if column not in table.column_names:
        names = ", ".join(table.column_names)
        raise DataError(f"{where} has no column {column}; it has {names}")
    values: list[Any] = table[column][:]
    return values


def _label_name(value: object) -> str:
    """Return the label's name, empty if there is none."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else ""
    return str(value).strip() if isinstance(value, str | int) else ""
