"""The generated English: its words, its grammar, its corpus."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import islice
from random import Random

import pytest
import tiny

from stabkit.mini import words
from stabkit.mini.corpus import books
from stabkit.mini.dependencies import CONSTRUCTIONS, sentence
from stabkit.mini.laboratory import comparison
from stabkit.mini.language import (
    PLAIN,
    SUBJECTS,
    Entity,
    Event,
    Wording,
    answer,
    article,
    askable,
    cast,
    clause,
    event,
    fact,
    question,
    retelling,
    sequence,
    tell,
)

ADJECTIVES = ("subject adjective", "object adjective")
SLOTS = ("subject", "object", *ADJECTIVES, "verb", "place", "time", "manner")
FIRST = Wording(
    synonyms=tuple((slot, 0) for slot in SLOTS),
    negator=0,
    passive=False,
)
DOG, CAT = Entity(("dog", "hound"), adjective=("old", "ancient")), Entity(("cat", "kitten"))
CHASE = next(pair for pair in words.VERBS if pair[0][0] == "chase")
CHASED = Event(DOG, CHASE, CAT, place=("in", ("garden", "yard")))


def said(what: Event, wording: Wording = FIRST) -> str:
    return clause(Random(0), what, wording, front=0)


@cache
def text() -> list[str]:
    return [one for book in islice(books(seed=3), 300) for scene in book for one in scene]


def test_there_are_at_least_800_word_types() -> None:
    vocabulary = set(tiny.tokenizer().get_vocab())
    assert len(vocabulary) >= 800
    assert {word for one in text() for word in one.split()} <= vocabulary


def test_no_word_belongs_to_two_meanings() -> None:
    """Else a synonym in one pair would be another meaning in the other, and labels wrong."""
    places = [nouns for _, nouns in words.PLACES]
    nouns = [noun for pair in (*words.NOUNS, *places) for noun in pair]
    forms = [{*first, *second} for first, second in words.VERBS]
    others = (words.ADJECTIVES, words.ADVERBS, words.COMPARATIVES)
    groups = [nouns, *([word for pair in group for word in pair] for group in others)]
    groups.append([form for pair in forms for form in pair])
    groups.append(sorted(set(words.HYPERNYMS.values())))
    counts = Counter(word for group in groups for word in group)
    assert [word for word, count in counts.items() if count > 1] == []
    assert len({words.plural(noun) for noun in nouns}) == len(nouns)


def test_every_noun_has_a_class_and_the_lists_have_their_shape() -> None:
    assert set(words.HYPERNYMS) == set(words.NOUNS)
    assert len(words.NOUNS) >= 90
    assert len(words.VERBS) >= 30
    assert all(len({*pair}) == 2 for pair in (*words.NOUNS, *words.ADJECTIVES, *words.ADVERBS))
    assert all(len(time) == 2 and time[0] != time[1] for time in words.TIMES)


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("dog", "dogs"),
        ("pony", "ponies"),
        ("monkey", "monkeys"),
        ("box", "boxes"),
        ("brush", "brushes"),
        ("torch", "torches"),
        ("child", "children"),
        ("mouse", "mice"),
        ("wolf", "wolves"),
        ("potato", "potatoes"),
        ("dress", "dresses"),
        ("person", "people"),
    ],
)
def test_plurals(noun: str, expected: str) -> None:
    assert words.plural(noun) == expected


def test_verb_forms_and_articles() -> None:
    forms = {form[0]: form for pair in words.VERBS for form in pair}
    assert forms["see"] == ("see", "sees", "saw", "seen")
    assert forms["carry"] == ("carry", "carries", "carried", "carried")
    assert forms["chase"] == ("chase", "chases", "chased", "chased")
    assert forms["push"] == ("push", "pushes", "pushed", "pushed")
    assert forms["enjoy"] == ("enjoy", "enjoys", "enjoyed", "enjoyed")
    assert (article("animal"), article("dog")) == ("an", "a")


def test_an_event_is_told_as_the_grammar_says() -> None:
    assert said(CHASED) == "the old dog chased the cat in the garden"
    passive = replace(FIRST, passive=True)
    assert said(CHASED, passive) == "the cat was chased by the old dog in the garden"
    many = replace(CHASED, object=replace(CAT, many=True), place=None)
    assert said(many, passive) == "the cats were chased by the old dog"
    no = replace(CHASED, negated=True, place=None)
    assert said(no) == "the old dog did not chase the cat"
    assert said(no, replace(FIRST, negator=1)) == "the old dog never chased the cat"
    assert said(no, passive) == "the cat was not chased by the old dog"
    fronted = clause(Random(0), CHASED, FIRST, front=1)
    assert fronted == "in the garden , the old dog chased the cat"
    slow = replace(CHASED, place=None, manner=("slowly", "sluggishly"))
    assert said(slow) == "the old dog chased the cat slowly"


def test_a_wording_chooses_synonyms_drops_and_generalises() -> None:
    second = replace(FIRST, synonyms=tuple((slot, 1) for slot, _ in FIRST.synonyms))
    assert said(CHASED, second) == "the ancient hound pursued the kitten in the yard"
    loose = replace(FIRST, drop=frozenset({"place", "subject adjective"}))
    assert said(CHASED, loose) == "the dog chased the cat"
    general = replace(FIRST, hypernyms=frozenset({"subject", "object"}))
    assert said(CHASED, general) == "the old animal chased the animal in the garden"


def test_questions_ask_for_a_slot_and_answers_fill_it() -> None:
    def asked(slot: str) -> set[str]:
        return {question(Random(i), CHASED, slot, FIRST) for i in range(30)}

    assert asked("subject") == {"who chased the cat ?"}
    assert asked("object") == {"what did the old dog chase ?", "what was chased by the old dog ?"}
    assert asked("place") == {
        "where did the old dog chase the cat ?",
        "where was the cat chased by the old dog ?",
    }
    assert askable(CHASED) == ["subject", "object", "place"]
    answers = {answer(Random(i), CHASED, "place") for i in range(20)}
    assert answers == {"in the garden .", "in the yard ."}
    no = replace(CHASED, negated=True)
    assert question(Random(0), no, "subject", FIRST) == "who did not chase the cat ?"


def test_a_sequence_keeps_its_order_in_four_ways() -> None:
    see = next(pair for pair in words.VERBS if pair[0][0] == "see")
    first, second = replace(CHASED, place=None), Event(CAT, see, DOG)
    ways = set()
    for i in range(100):
        told = sequence(Random(i), first, second).removesuffix(" .")
        word = "before" if "before" in told.split() else "after"
        fronted = told.startswith(word)
        parts = told.removeprefix(f"{word} ").split(" , " if fronted else f" {word} ")
        earlier, later = parts if fronted == (word == "after") else reversed(parts)
        assert {"chased", "pursued"} & set(earlier.split()), told
        assert {"saw", "seen", "noticed"} & set(later.split()), told
        ways.add((word, fronted))
    assert len(ways) == 4


def test_one_meaning_has_many_sentences_and_each_ends() -> None:
    told = {tell(Random(i), CHASED) for i in range(200)}
    assert len(told) > 40
    assert all(one.endswith(" .") for one in told)


def test_events_and_casts_are_of_the_language() -> None:
    rng = Random(1)
    for _ in range(200):
        what = event(rng)
        assert what.subject.noun in SUBJECTS
        assert what.subject.noun != what.object.noun
        assert sum(map(bool, (what.place, what.time, what.manner))) <= 1
        people = cast(rng)
        assert len({one.noun for one in people}) == 5
        inside = event(rng, people)
        assert {inside.subject, inside.object} <= set(people)
        assert retelling(rng).passive is PLAIN.passive
        assert fact(rng).endswith(" .")


def test_a_broken_sentence_differs_from_a_kept_one_in_one_word() -> None:
    for number, construct in enumerate(CONSTRUCTIONS):
        for i in range(50):
            kept, broken = (
                construct(Random(f"{number}-{i}"), kind).split() for kind in (True, False)
            )
            if construct.__name__ == "_paired":
                kept, broken = kept[:2], broken[:2]  # a broken pair takes one more draw
                assert kept == broken
                continue
            singular = [w for w in broken if w not in kept]
            assert 1 <= len(singular) <= 2, (kept, broken)


def test_a_comparison_and_its_rearrangements() -> None:
    rng = Random(0)
    made = comparison(rng)
    (one, first), (two, second) = made.first.split(), made.second.split()
    told = [
        fact.tell(rng, frame=False)
        for fact in (made, made.said_otherwise(), made.turned(), made.exchanged())
    ]
    assert told == [
        f"the {one} {first} was {made.comparative} than the {two} {second} .",
        f"the {two} {second} was {made.opposite} than the {one} {first} .",
        f"the {two} {second} was {made.comparative} than the {one} {first} .",
        f"the {two} {first} was {made.comparative} than the {one} {second} .",
    ]


def test_the_corpus_is_a_seeded_endless_stream_of_books() -> None:
    first, again, other = (list(islice(books(seed), 20)) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    assert all(len(book) == 5 for book in first)
    assert all(one.split()[-1] in (".", "?") for book in first for scene in book for one in scene)


def test_the_corpus_has_all_constructions() -> None:
    found = " ".join(text())
    for part in (
        " before ",
        " ? ",
        "themselves",
        "tomorrow",
        " ever ",
        "neither",
        " than ",
        " is a",
    ):
        assert part in found
    shares = Counter(one.split()[-1] for one in text())
    assert 0.05 < shares["?"] / len(text()) < 0.3


def test_sentences_with_a_dependency_are_seeded() -> None:
    made = [[sentence(Random(i), kind) for i in range(50)] for kind in (True, False, True)]
    assert made[0] == made[2] != made[1]


def test_a_passive_question_agrees_with_what_is_asked_about() -> None:
    many = replace(CHASED, object=replace(CAT, many=True))
    asked = {question(Random(i), many, "place", FIRST) for i in range(30)}
    assert "where were the cats chased by the old dog ?" in asked
