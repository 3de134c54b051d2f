"""What a command says of one's own data before it trains on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import tiny

from stabkit import intake, studies
from stabkit.config import RunConfig

WORDS = ["the", "dog", "saw", "the", "cat", "."]


def told(folder: Path, rows: list[tuple[str, str]], **changes: Any) -> list[str]:
    """Return what is said of rows of text and label, all of which are also the dev set's."""
    path = folder / "own.csv"
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(path, index=False)
    named: dict[str, Any] = {"model": tiny.model(), "task": str(path), **changes}
    return intake.found(RunConfig(epochs=1, **named))


def texts(count: int) -> list[str]:
    """Return texts of known words, no two alike."""
    bits = ((i >> j & 1 for j in range(10)) for i in range(count))
    return [" ".join(WORDS[1 + bit] for bit in row) for row in bits]


def test_what_was_read_is_said(tmp_path: Path) -> None:
    rows = [(text, "yes" if i % 4 else "no") for i, text in enumerate(texts(40))]
    (line,) = told(tmp_path, rows)
    assert line.endswith(
        "own.csv, a fifth of it held out (texts in text, labels in label): "
        "32 training examples (no 8, yes 24), 8 dev examples"
    )


def test_many_labels_are_counted_in_part(tmp_path: Path) -> None:
    rows = [(text, str(i % 12)) for i, text in enumerate(texts(60))]
    assert "9 4 and 2 more), 12 dev examples" in told(tmp_path, rows)[0]


def test_data_known_by_name_need_no_words() -> None:
    assert intake.found(studies.pilot()[0]) == []


def test_examples_in_both_sets_are_counted(tmp_path: Path) -> None:
    _, doubt = told(tmp_path, [(text, str(i % 2)) for i, text in enumerate(texts(10) * 4)])
    assert "8 of the 8 dev examples are also training examples" in doubt
    rows = [(text, str(i % 2)) for i, text in enumerate(texts(20))]
    _, doubt = told(tmp_path, rows, dev_file=str(tmp_path / "own.csv"))
    assert doubt.startswith("20 of the 20 dev examples")


def test_texts_that_are_empty_cut_or_strange_are_told(tmp_path: Path) -> None:
    rows = [(text, str(i % 2)) for i, text in enumerate(texts(40))]
    (_, doubt) = told(tmp_path, [*rows, (" ", "0")])
    assert doubt == "1 examples have no text at all"
    (_, doubt) = told(tmp_path, rows, max_length=8)
    assert doubt == "100 % of the texts are longer than max_length, 8 tokens, and are cut"
    strange = [(f"Akku {text} leer {i}", label) for i, (text, label) in enumerate(rows)]
    (_, doubt) = told(tmp_path, strange)
    assert doubt.startswith("20 % of the tokens are unknown to ")
    strange = [(f"Akku{i} ging leer", str(i % 2)) for i in range(40)]
    (_, doubt) = told(tmp_path, strange, model="mini-bert")
    assert doubt.endswith("to mini-bert; it knows only generated English: choose another")


def test_a_text_as_long_as_may_be_is_not_cut(tmp_path: Path) -> None:
    rows = [(text, str(i % 2)) for i, text in enumerate(texts(40))]
    length = len(tiny.tokenizer()(rows[0][0])["input_ids"])
    assert len(told(tmp_path, rows, max_length=length)) == 1
    assert len(told(tmp_path, rows, max_length=length - 1)) == 2


def test_labels_that_differ_in_capitals_are_named(tmp_path: Path) -> None:
    rows = [(text, ("good", "Good", "bad")[i % 3]) for i, text in enumerate(texts(60))]
    assert told(tmp_path, rows)[1].startswith("the labels Good, good differ in capitals only")
