"""The generated tasks: sizes, balance, disjoint splits, and labels that are right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
import tiny

from stabkit.errors import DataError
from stabkit.mini import words
from stabkit.mini.acceptability import CONSTRUCTIONS
from stabkit.mini.tasks import RECIPES, load, splits
from stabkit.sources import DATA_SETS
from stabkit.tasks import GENERATED, Split

SIZES = {"rte": 2490, "mrpc": 3668, "cola": 4000, "qnli": 10000, "scitail": 2490}
# Share of label 1 in the original's training set (GLUE's and SciTail's own files).
ORIGINALS = {
    "rte": 1241 / 2490,
    "mrpc": 2474 / 3668,
    "cola": 6023 / 8551,
    "qnli": 0.5,
    "scitail": 0.635,
}


def examples(split: Split) -> list[tuple[str, str | None, int]]:
    second = split.texts_b or [None] * len(split)
    return list(zip(split.texts_a, second, split.labels.tolist(), strict=True))


@pytest.mark.parametrize("name", SIZES)
def test_sizes_labels_and_metric_are_those_of_the_original(name: str) -> None:
    task = load(f"mini-{name}")
    assert (len(task.train), len(task.dev)) == (SIZES[name], 500)
    assert (task.labels, task.metric) == (DATA_SETS[name].labels, DATA_SETS[name].metric)
    assert (task.train.texts_b is None) == (name == "cola")
    assert task.train.labels.mean() == pytest.approx(ORIGINALS[name], abs=2e-3)
    assert task.dev.labels.mean() == pytest.approx(ORIGINALS[name], abs=4e-3)


def test_every_generated_task_has_a_recipe() -> None:
    assert set(RECIPES) == set(GENERATED) == {f"mini-{name}" for name in SIZES}
    with pytest.raises(
        DataError, match="unknown generated task 'mini-rt': did you mean 'mini-rte'"
    ):
        load("mini-rt")


@pytest.mark.parametrize("name", GENERATED)
def test_no_example_is_there_twice(name: str) -> None:
    train, dev, more = splits(name, held_out=300)
    assert more is not None
    assert len(more) == 300
    texts = [(a, b) for split in (train, dev, more) for a, b, _ in examples(split)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", GENERATED)
def test_labels_are_in_random_order(name: str) -> None:
    labels = splits(name)[0].labels
    halves = [half.mean() for half in np.array_split(labels, 2)]
    assert abs(halves[0] - halves[1]) < 4 * (0.25 * 4 / len(labels)) ** 0.5
    changes = (np.diff(labels) != 0).mean()
    share = labels.mean()
    assert changes == pytest.approx(2 * share * (1 - share), abs=0.04)


@pytest.mark.parametrize("name", GENERATED)
def test_all_words_are_in_the_corpus(name: str) -> None:
    train, dev, _ = splits(name)
    used = {
        w for split in (train, dev) for a, b, _ in examples(split) for w in f"{a} {b or ''}".split()
    }
    assert used <= set(tiny.tokenizer().get_vocab())
    assert len(used) >= 80


@pytest.mark.parametrize("name", GENERATED)
def test_examples_have_about_25_tokens_one_sentence_about_11_and_fit(name: str) -> None:
    train, _, _ = splits(name)
    rows = tiny.tokenizer()(list(train.texts_a), train.texts_b and list(train.texts_b))["input_ids"]
    lengths = [len(row) for row in rows]
    low, high = (10, 13) if train.texts_b is None else (17, 31)
    assert low <= np.mean(lengths) <= high
    assert max(lengths) <= 64


def test_the_same_data_in_every_process() -> None:
    script = (
        "import sys; from stabkit.mini.tasks import load;"
        "print(load('mini-rte').digest, load('mini-cola').digest);"
        "assert not {'torch', 'datasets', 'transformers'} & sys.modules.keys()"
    )
    expected = f"{load('mini-rte').digest} {load('mini-cola').digest}"
    environment = {**os.environ, "PYTHONHASHSEED": "11"}
    printed = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, check=True, text=True
    )
    assert printed.stdout.strip() == expected


# --- labels, read off the words by another way ---------------------------------------------------

FUNCTION_WORDS = {"the", "was", "were", "did", "not", "never", "by", ".", ",", "?"}


def meanings() -> dict[str, str]:
    """Return the meaning of every content word: that of the first of its pair, singular, base."""
    found = {}
    for first, second in words.NOUNS:
        for noun in (first, second):
            found[noun] = first
            if "sheep" not in (first, second):  # whose number does not show
                found[words.plural(noun)] = f"{first}s"
    found["lambs"] = "sheep"
    for one, two in words.VERBS:
        found |= dict.fromkeys({*one, *two}, one[0])
    for first, second in (*words.ADJECTIVES, *words.ADVERBS, *(pair for _, pair in words.PLACES)):
        found |= {first: first, second: first}
    return found


MEANING = meanings()


def content(text: str) -> Counter[str]:
    """Return how often each meaning occurs in a sentence, in whatever order and voice."""
    for number, (first, second) in enumerate(words.TIMES):
        for phrase in (first, second):
            text = re.sub(rf"\b{phrase}\b", f"time-{number}", text)
    return Counter(MEANING.get(w, w) for w in text.split() if w not in FUNCTION_WORDS)


def test_paraphrases_share_all_their_content() -> None:
    same = other = 0
    for first, second, label in examples(splits("mini-mrpc")[0]):
        equal = content(first) == content(second or "")
        negated = [bool({"not", "never"} & set(text.split())) for text in (first, second or "")]
        assert equal == (label == 1), (first, second)
        assert negated[0] == negated[1]
        same += equal
        other += not equal
    assert (same, other) == (2474, 1194)


def generalised(meaning: str) -> str:
    """Return the class of a noun's meaning, in its number."""
    many = meaning.endswith("s") and meaning[:-1] in CLASSES
    return words.plural(CLASSES[meaning[:-1]]) if many else CLASSES.get(meaning, meaning)


CLASSES = {pair[0]: kind for pair, kind in words.HYPERNYMS.items()}


def test_what_is_entailed_says_nothing_new() -> None:
    kept = 0
    for first, second, label in examples(splits("mini-rte")[0]):
        if label == 0:
            given = content(first)
            allowed = given + Counter(generalised(meaning) for meaning in given.elements())
            assert not content(second or "") - allowed, (first, second)
            negated = [bool({"not", "never"} & set(t.split())) for t in (first, second or "")]
            assert negated[0] == negated[1]
            if negated[0]:  # leaving out or generalising would not preserve truth
                assert content(second or "") == given, (first, second)
            kept += 1
    assert kept == 1249


def parsed(text: str) -> tuple[str, str, str]:
    """Return a laboratory sentence as (longer thing, comparative, shorter thing)."""
    found = re.search(r"the (\w+ \w+) was (\w+) than the (\w+ \w+)", text)
    assert found, text
    one, word, two = found.groups()
    opposite = {b: a for a, b in words.COMPARATIVES}
    return (two, opposite[word], one) if word in opposite else (one, word, two)


def test_laboratory_sentences_entail_each_other_exactly_when_labelled_so() -> None:
    for split in splits("mini-scitail")[:2]:
        for first, second, label in examples(split):
            assert (parsed(first) == parsed(second or "")) == (label == 0), (first, second)


def compared(text: str) -> Counter[str]:
    """Return the words of a laboratory sentence without its phrase of place."""
    found = re.search(r"the \w+ \w+ was \w+ than the \w+ \w+", text)
    assert found, text
    return Counter(found[0].split())


def test_both_laboratory_sentences_compare_with_the_same_words() -> None:
    for first, second, _ in examples(splits("mini-scitail")[0]):
        assert compared(first) == compared(second or ""), (first, second)


WORD = r"(?!was\b|were\b)\w+"
NOUN = rf"the (?:{WORD} )?{WORD}"
FORMS = [form for pair in words.VERBS for form in pair]
BASES, PARTICIPLES = {form[0] for form in FORMS}, {form[3] for form in FORMS}
QUESTION = re.compile(rf"(what|where|when) did {NOUN} (\w+)( {NOUN})? \?")
PASSIVE_QUESTION = re.compile(rf"(?:where|when) (?:was|were) {NOUN} (\w+) \?")
NEGATED = re.compile(rf"{NOUN} (did|was|were) not (\w+) .* \.")
VOICE = re.compile(rf"{NOUN} (was |were |)((?!by\b)\w+) (by |){NOUN} \.")


def fits(text: str) -> bool:
    """Say by patterns, without the grammar that made it, whether a sentence is acceptable."""
    tokens = text.split()
    if tokens[0] in ("tomorrow", "next", "yesterday", "last"):
        return (tokens[0] in ("tomorrow", "next")) == ("will" in tokens)
    if "more" in tokens or "as" in tokens:
        return ("more" in tokens) == ("than" in tokens)
    if found := QUESTION.fullmatch(text):
        return found[2] in BASES and (found[1] == "what") == (found[3] is None)
    if found := PASSIVE_QUESTION.fullmatch(text):
        return found[1] in PARTICIPLES
    if found := NEGATED.fullmatch(text):
        return found[2] in (BASES if found[1] == "did" else PARTICIPLES)
    found = VOICE.fullmatch(text)
    assert found, text
    return bool(found[1]) == bool(found[3])


def test_acceptable_is_what_fits() -> None:
    for split in splits("mini-cola")[:2]:
        for text, _, label in examples(split):
            assert fits(text) == bool(label), text


def test_every_construction_is_kept_and_broken_by_the_same_words() -> None:
    """Which choices there are does not depend on the class: so no single word tells it."""
    for construct in CONSTRUCTIONS:
        seen = [
            {word for i in range(4000) for word in construct(Random(i), kind).split()}
            for kind in (True, False)
        ]
        assert seen[0] == seen[1], construct.__name__


def test_questions_are_answered_by_sentences_with_their_content() -> None:
    """A question's words are in its answer; a sentence with another verb or noun is none."""
    asking = {"who", "what", "where", "when", "did"}
    answered = unlike = 0
    for question, sentence, label in examples(splits("mini-qnli")[0]):
        asked = Counter({w: n for w, n in content(question).items() if w not in asking})
        new = asked - content(sentence or "")
        if label == 0:
            assert not new, (question, sentence)
            answered += 1
        else:
            unlike += bool(new)
    assert answered == 4999  # as large a share as in QNLI
    assert unlike > 1500


def test_splits_stay_apart_where_few_examples_can_be_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = replace(
        RECIPES["mini-rte"],
        size=500,
        draw=lambda rng, same: (f"{same} {rng.randrange(1200)}", None),
    )
    monkeypatch.setitem(RECIPES, "few", few)
    parts = [split.texts_a for split in splits("few", 500) if split is not None]
    assert len({text for texts in parts for text in texts}) == sum(map(len, parts)) == 1500


RESULTS = Path(__file__).parents[1] / "results" / "runs.parquet"


@pytest.mark.skipif(not RESULTS.exists(), reason="no runs are published")
@pytest.mark.parametrize("name", GENERATED)
def test_the_data_are_those_of_the_published_runs(name: str) -> None:
    published = pd.read_parquet(RESULTS, columns=["task", "data"])
    assert {*published.loc[published["task"] == name, "data"]} == {load(name).digest}
