"""The five generated tasks: number of texts, label balance and metric of the paper's five.

The training sets of RTE's and MRPC's have the size of theirs, the others are smaller.

A label is a relation between the two parts of an example (or, for acceptability, between two words
of a sentence), never a property of one part. What may be changed (``twist``) is drawn before the
label: in the positive class that slot gets its other synonym, in the negative class another
meaning. So both classes share their words, lengths, overlap and surface operations (dropped
phrases, class names, passives, synonyms). ``stabkit.mini.gate`` checks that they do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from typing import TypeVar

import numpy as np

from stabkit.errors import DataError, nearest
from stabkit.metrics import Metric
from stabkit.mini.acceptability import sentence
from stabkit.mini.laboratory import comparison
from stabkit.mini.language import (
    PLAIN,
    SUBJECTS,
    Event,
    Wording,
    entity,
    event,
    question,
    retelling,
    tell,
)
from stabkit.mini.words import ADJECTIVES, ADVERBS, NOUNS, PLACES, TIMES, VERBS
from stabkit.tasks import Split, Task

Example = tuple[str, str | None]
T = TypeVar("T")
DEV_SIZE = 500
DATA_SEED = 20200608


def _other(rng: Random, options: list[T], *used: T | None) -> T:
    return rng.choice([option for option in options if option not in used])


def _actors(rng: Random, what: Event) -> Event:
    """Make both participants able to act, so that their roles can be exchanged."""
    return replace(
        what, object=entity(rng, [noun for noun in SUBJECTS if noun != what.subject.noun])
    )


def _ready(rng: Random, twist: str) -> Event:
    """Draw an event in which ``twist`` can be carried out."""
    what = event(rng, negated=0.5 if twist == "negation" else 0.12)
    if twist == "roles":
        return _actors(rng, what)
    if twist == "subject adjective" and not what.subject.adjective:
        return replace(what, subject=replace(what.subject, adjective=rng.choice(ADJECTIVES)))
    if twist == "place":
        return replace(what, place=rng.choice(PLACES), time=None, manner=None)
    if twist == "time":
        return replace(what, time=rng.choice(TIMES), place=None, manner=None)
    if twist == "manner":
        return replace(what, manner=rng.choice(ADVERBS), place=None, time=None)
    return what


def _changed(rng: Random, what: Event, twist: str) -> Event:
    """Return the event with another meaning in the slot ``twist``."""
    subject, obj = what.subject, what.object
    if twist == "roles":
        return replace(what, subject=obj, object=subject)
    if twist == "negation":
        return replace(what, negated=not what.negated)
    if twist == "verb":
        return replace(what, verb=_other(rng, VERBS, what.verb))
    if twist == "subject":
        noun = _other(rng, SUBJECTS, subject.noun, obj.noun)
        return replace(what, subject=replace(subject, noun=noun))
    if twist == "object":
        noun = _other(rng, NOUNS, subject.noun, obj.noun)
        return replace(what, object=replace(obj, noun=noun))
    if twist == "subject adjective":
        adjective = _other(rng, ADJECTIVES, subject.adjective, obj.adjective)
        return replace(what, subject=replace(subject, adjective=adjective))
    if twist == "place":
        return replace(what, place=_other(rng, PLACES, what.place))
    if twist == "time":
        return replace(what, time=_other(rng, TIMES, what.time))
    return replace(what, manner=_other(rng, ADVERBS, what.manner))


def _wordings(rng: Random, twist: str, same: bool, second: Wording) -> tuple[Wording, Wording]:
    """Return two wordings that never share a word in the slot ``twist``."""
    index = rng.randrange(2)
    other = 1 - index if same else rng.randrange(2)
    keep = Wording(
        synonyms=((twist, other),),
        hypernyms=second.hypernyms - {twist},
        drop=second.drop - {twist},
        negator=other,
    )
    return Wording(synonyms=((twist, index),), negator=index), keep


def _entailment(rng: Random, same: bool) -> Example:
    """RTE-like: does the first sentence entail the second, shorter or more general one?"""
    twist = rng.choice(("roles", "negation", "verb", "subject", "object", "subject adjective"))
    what = _ready(rng, twist)
    told = what if same else _changed(rng, what, twist)
    # Dropping and generalising preserve truth only in sentences without negation.
    loose = PLAIN if what.negated or told.negated or twist == "negation" else retelling(rng)
    if twist == "roles":
        loose = replace(loose, hypernyms=frozenset())
    first, second = _wordings(rng, twist, same, loose)
    return tell(rng, what, first), tell(rng, told, second)


def _paraphrase(rng: Random, same: bool) -> Example:
    """MRPC-like: do two sentences say the same, all details counted?

    No pair differs in the order of its words alone, as hardly any of MRPC's does (Zhang et al.
    2019, arXiv:1904.01130). Where two thirds of the pairs are paraphrases, the encoder takes all
    such pairs for one, even after 20 epochs, and the gate wants a task that can be learned.
    """
    slots = ("verb", "subject", "object", "subject adjective", "place", "time", "manner")
    twist = rng.choice(slots)
    what = _ready(rng, twist)
    first, second = _wordings(rng, twist, same, PLAIN)
    return tell(rng, what, first), tell(rng, what if same else _changed(rng, what, twist), second)


def _acceptability(rng: Random, same: bool) -> Example:
    """CoLA-like: is the sentence acceptable?"""
    return sentence(rng, acceptable=same), None


def _answerable(rng: Random, same: bool) -> Example:
    """QNLI-like: does the sentence hold the answer to the question?"""
    twist = rng.choice(("roles", "verb", "subject", "object", "adjunct"))
    if twist == "adjunct":
        has = rng.choice(("place", "time"))
        what = _ready(rng, has)
        asked = has if same else ("time" if has == "place" else "place")
        return question(rng, what, asked), tell(rng, what)
    what = _ready(rng, twist)
    asked = {"subject": "object", "object": "subject"}.get(twist, rng.choice(("subject", "object")))
    first, second = _wordings(rng, twist, same, PLAIN)
    told = what if same else _changed(rng, what, twist)
    return question(rng, what, asked, first), tell(rng, told, second)


def _laboratory(rng: Random, same: bool) -> Example:
    """SciTail-like, another domain: do two sentences compare the same things in the same way?"""
    fact = comparison(rng)
    while fact.exchanged() == fact:  # both of one material
        fact = comparison(rng)
    other = rng.choice((fact.exchanged(), fact.turned()))
    told = fact if same else other
    return fact.tell(rng), told.tell(rng, frame=rng.random() < 0.5)


@dataclass(frozen=True)
class Recipe:
    """How a generated task is made: its original's size, labels, metric and label balance.

    ``positive`` is the label of examples whose relation holds (the convention of the GLUE files);
    ``share`` their share in the original's training set.
    """

    draw: Callable[[Random, bool], Example]
    size: int
    labels: tuple[str, str]
    positive: int
    share: float
    metric: Metric


RECIPES = {
    "mini-rte": Recipe(
        _entailment, 2490, ("entailment", "not_entailment"), 0, 1249 / 2490, "accuracy"
    ),
    "mini-mrpc": Recipe(
        _paraphrase, 3668, ("not_equivalent", "equivalent"), 1, 2474 / 3668, "accuracy_f1"
    ),
    "mini-cola": Recipe(
        _acceptability, 4000, ("unacceptable", "acceptable"), 1, 6023 / 8551, "mcc"
    ),
    "mini-qnli": Recipe(
        _answerable, 10000, ("entailment", "not_entailment"), 0, 52366 / 104743, "accuracy"
    ),
    "mini-scitail": Recipe(_laboratory, 2490, ("entails", "neutral"), 0, 8602 / 23596, "accuracy"),
}


def _examples(
    rng: Random, recipe: Recipe, size: int, seen: set[Example]
) -> tuple[list[Example], np.ndarray]:
    """Draw ``size`` examples that are not in ``seen`` (and add them), labels in random order."""
    holds = [i < round(recipe.share * size) for i in range(size)]
    rng.shuffle(holds)
    examples = []
    for same in holds:
        example = recipe.draw(rng, same)
        while example in seen:
            example = recipe.draw(rng, same)
        seen.add(example)
        examples.append(example)
    labels = [recipe.positive if same else 1 - recipe.positive for same in holds]
    return examples, np.array(labels, dtype=np.int64)


def _split(examples: list[Example], labels: np.ndarray) -> Split:
    second = tuple(b for _, b in examples if b is not None)
    return Split(tuple(a for a, _ in examples), second or None, labels)


@lru_cache
def splits(name: str, held_out: int = 0) -> tuple[Split, Split, Split | None]:
    """Return train, dev and ``held_out`` further examples of a generated task, all disjoint."""
    if name not in RECIPES:
        raise DataError(f"unknown generated task {name!r}: {nearest(name, RECIPES)}")
    recipe, seen = RECIPES[name], set[Example]()
    rng = Random(f"{name}-{DATA_SEED}")
    train = _split(*_examples(rng, recipe, recipe.size, seen))
    dev = _split(*_examples(rng, recipe, DEV_SIZE, seen))
    more = _split(*_examples(rng, recipe, held_out, seen)) if held_out else None
    return train, dev, more


def load(name: str) -> Task:
    """Return a generated task; raises DataError for an unknown name."""
    train, dev, _ = splits(name)
    recipe = RECIPES[name]
    return Task(name=name, train=train, dev=dev, labels=recipe.labels, metric=recipe.metric)
