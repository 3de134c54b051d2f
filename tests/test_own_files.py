"""The user's own csv, tsv, jsonl and parquet, and a clear error for every kind of bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stabkit.errors import DataError
from stabkit.sources import hold_out
from stabkit.tasks import load_task

Rows = list[dict[str, Any]]
PAIRS: Rows = [
    {"sentence1": f"first {i}", "sentence2": f"second {i}", "label": i % 2} for i in range(8)
]
REVIEWS: Rows = [
    {"review": f"text {i}", "stars": ("bad", "good", "so-so")[i % 3]} for i in range(30)
]


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_own_csv_with_named_columns_and_three_labels(tmp_path: Path) -> None:
    path = str(tmp_path / "my [data] *.csv")
    Dataset.from_list(REVIEWS).to_csv(path)
    loaded = load_task(path, text_columns=("review",), label_column="stars")
    assert loaded.labels == ("bad", "good", "so-so")
    assert (loaded.metric, loaded.train.texts_b) == ("accuracy", None)
    assert np.bincount(loaded.dev.labels).tolist() == [2, 2, 2]  # a fifth of each label
    assert not set(loaded.train.texts_a) & set(loaded.dev.texts_a)
    again = load_task(path, text_columns=("review",), label_column="stars")
    assert loaded.digest == again.digest


def test_own_dev_file_pairs_and_labels_in_the_order_of_numbers(tmp_path: Path) -> None:
    rows = [{"premise": "p", "hypothesis": "h", "label": label} for label in (10, 9, 2)]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    dev = write_jsonl(tmp_path / "dev.jsonl", rows[:1])
    loaded = load_task(str(train), dev_file=dev)
    assert loaded.labels == ("2", "9", "10")
    assert loaded.train.labels.tolist() == [2, 1, 0]
    assert loaded.dev.labels.tolist() == [2]
    assert loaded.train.texts_b == ("h", "h", "h")
    assert load_task(str(tmp_path)).digest == loaded.digest  # the folder of both files


def test_numbers_that_no_training_label_has_are_no_labels_of_dev(tmp_path: Path) -> None:
    """Counted from 1 in one file and from 0 in the other, every label would be another's."""
    rows = [{"text": "t", "label": label} for label in (1, 2)]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    dev = write_jsonl(tmp_path / "dev.jsonl", [{"text": "t", "label": label} for label in (1, 0)])
    with pytest.raises(DataError, match=r"unknown label '0' in example 2; .* labels are 1, 2"):
        load_task(str(train), dev_file=dev)


def test_a_quote_in_a_tsv_is_a_letter(tmp_path: Path) -> None:
    path = tmp_path / "glue.tsv"
    path.write_text('text\tlabel\n"so it\tx\nbegins\ty\nhe said "no"\tx\n', encoding="utf-8")
    assert load_task(str(path), dev_file=path).train.texts_a == ('"so it', "begins", 'he said "no"')


def test_own_csv_is_taken_at_its_word(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    content = '\ufefftext,label\n007,x\nNA,y\n"a ""b"", c\nd",x\nnull,y\n'
    path.write_text(content, encoding="utf-8")
    loaded = load_task(str(path), dev_file=path)
    assert loaded.train.texts_a == ("007", "NA", 'a "b", c\nd', "null")


def test_own_parquet_keeps_its_label_names(tmp_path: Path) -> None:
    named = Features({"text": Value("string"), "label": ClassLabel(names=["yes", "no"])})
    rows = {"text": list("abcd"), "label": [0, 1, 1, 0]}
    Dataset.from_dict(rows, features=named).to_parquet(tmp_path / "p.parquet")
    loaded = load_task(str(tmp_path / "p.parquet"))
    assert loaded.labels == ("yes", "no")


@pytest.mark.parametrize("labels", [[True, False], [1.0, 0.0], ["1", "0"], [1, 0]])
def test_labels_of_every_type(labels: list[Any], tmp_path: Path) -> None:
    rows = [{"text": "t", "label": label} for label in labels]
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    assert load_task(str(path), dev_file=path).train.labels.tolist() == [1, 0]


# Bad input


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv is empty"),
        ("a.jsonl", b"\n \n", "a.jsonl is empty"),
        ("a.csv", b"text,label\n", "empty but for its first line"),
        ("a.json", b"[]", "cannot be read as json"),
        ("a.csv", "text,label\na,1\n\u00e9,0\n".encode("latin-1"), r"UTF-8 \(byte 0xe9 in line 3"),
        ("a.jsonl", '{"text": "a", "label": 1}'.encode("utf-16"), "not UTF-8"),
        ("a.csv", b"text,label\na, b,1\nc, d,0\n", "more fields in its first row than column"),
        ("a.tsv", b"text\tlabel\na\tb\t1\nc\td\t0\n", "more fields in its first row"),
        ("a.csv", b"text,label\na,1\nb,c,0\n", r"as csv: .*Expected 2 fields in line 3"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"\n', "cannot be read as json"),
        ("a.parquet", b"text,label\na,1\n", "cannot be read as parquet"),
        ("a.txt", b"a\t1\n", "no known format; expected one of jsonl"),
        ("a.csv", b"text,label\na,1\nb,\nc,0\n", "1 of 3 .*no label.*example 2"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"}\n', "1 of 2 .*no label"),
        ("a.jsonl", b'{"text": "a", "label": 1.5}\n{"text": "b", "label": 2}\n', "whole number"),
        ("a.jsonl", b'{"text": null, "label": 1}\n{"text": "b", "label": 2}\n', "nothing in text"),
        ("a.jsonl", b'{"text": 3, "label": 1}\n{"text": 4, "label": 2}\n', "int 3 in text column"),
        ("a.csv", b"text,label\na,1\nb,1\nc,1\n", "every training example has the label '1'"),
        ("a.csv", b"text,label\na,1\nb,1\nc,0\n", "label '0' has one example"),
        ("a.csv", b"text,class\na,1\nb,0\n", "columns text, class, which leaves its label column"),
        ("a.csv", b"body,label\na,1\nb,0\n", "columns body, label, which leaves its text columns"),
        (
            "a.csv",
            b"sentence1,sentence2,premise,hypothesis,label\na,b,c,d,1\n",
            "text columns in doubt",
        ),
    ],
)  # fmt: skip
def test_bad_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_task(str(tmp_path / name))


def test_options_that_do_not_fit_the_task(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "train.jsonl", PAIRS)
    with pytest.raises(DataError, match="has no column body; it has sentence1, sentence2"):
        load_task(str(path), text_columns=("body",))
    with pytest.raises(DataError, match="3 text columns named"):
        load_task(str(path), text_columns=("sentence1", "sentence2", "sentence1"))
    with pytest.raises(DataError, match="has a dev set of its own"):
        load_task("rte", dev_file=path)
    with pytest.raises(DataError, match="no columns to name"):
        load_task("mini-rte", label_column="label")


def test_dev_labels_and_columns_that_the_training_file_lacks(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "a.jsonl", PAIRS)
    dev = write_jsonl(tmp_path / "b.jsonl", [{**PAIRS[0], "label": 7}])
    with pytest.raises(DataError, match=r"b\.jsonl: unknown label '7' in example 1; .* 0, 1"):
        load_task(str(train), dev_file=dev)
    write_jsonl(dev, [{"sentence1": "a", "label": 1}])
    with pytest.raises(DataError, match=r"b\.jsonl has no column sentence2"):
        load_task(str(train), dev_file=dev)
    named = Features({"text": Value("string"), "label": ClassLabel(names=["x", "y", "z"])})
    for name, codes in (("c", [0, 1]), ("d", [2])):
        rows = {"text": ["t"] * len(codes), "label": codes}
        Dataset.from_dict(rows, features=named).to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match="dev labels that no training example has: 'z'"):
        load_task(str(tmp_path / "c.parquet"), dev_file=tmp_path / "d.parquet")


@pytest.mark.parametrize("names", ["Text,LABEL", "text, label", " sentence ,label"])
def test_usual_names_are_found_however_they_are_written(names: str, tmp_path: Path) -> None:
    path = tmp_path / "MINE.CSV"
    path.write_text(f"{names}\na,1\nb,0\n", encoding="utf-8")
    assert load_task(str(path), dev_file=path).train.texts_a == ("a", "b")


def test_names_that_look_like_numbers_are_names(tmp_path: Path) -> None:
    """Stars from 1 to 5 are stored as 0 to 4; a dev file may have its names in another order."""
    stars = ("1", "2", "3", "4", "5")
    for name, order in (("train", stars), ("dev", stars[::-1])):
        features = Features({"text": Value("string"), "label": ClassLabel(names=list(order))})
        codes = [order.index(star) for star in stars for _ in range(4)]
        rows = {"text": [f"{name} {i}" for i in range(20)], "label": codes}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{name}.parquet")
    task = load_task(str(tmp_path / "train.parquet"), dev_file=tmp_path / "dev.parquet")
    assert task.labels == stars
    expected = np.repeat(np.arange(5), 4)
    np.testing.assert_array_equal(task.train.labels, expected)
    np.testing.assert_array_equal(task.dev.labels, expected)
    plain = write_jsonl(tmp_path / "plain.jsonl", [{"text": "a", "label": "5"}])
    read = load_task(str(tmp_path / "train.parquet"), dev_file=plain)
    np.testing.assert_array_equal(read.dev.labels, [4])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # busy machines
@given(
    st.lists(st.integers(2, 30), min_size=2, max_size=4),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_held_out_rows_keep_every_label_on_both_sides(
    counts: list[int], share: float, seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    train, dev = hold_out(labels, share, seed, tuple("abcd"))
    assert sorted([*train, *dev]) == list(range(len(labels)))
    for code, count in enumerate(counts):
        held_out = int((labels[dev] == code).sum())
        assert 1 <= held_out < count
        assert abs(held_out - share * count) <= 1
