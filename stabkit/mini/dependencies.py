"""Sentences whose acceptability hangs on two words at a distance, and their broken twins.

Each construction has a left word, a right word and material between them. In an acceptable
sentence the right word fits the left one, in a broken one it fits the other choice of the left
one. Both words are drawn evenly in both classes, so neither word, nor any pair of neighbours,
tells the class: only their relation does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from stabkit.mini.language import (
    SUBJECTS,
    Entity,
    clause,
    entity,
    event,
    noun_phrase,
)
from stabkit.mini.words import ADJECTIVES, ANIMALS, NOUNS, PEOPLE, PLACES, VERBS, Pair, plural


def _numbered(rng: Random, nouns: list[Pair]) -> Entity:
    """Draw an entity that is singular or plural with even chances, and shows which it is."""
    drawn = entity(rng, nouns, adjective=0.4)
    while any(plural(noun) == noun for noun in drawn.noun):  # one sheep, two sheep
        drawn = entity(rng, nouns, adjective=0.4)
    return replace(drawn, many=rng.random() < 0.5)


def _place(rng: Random) -> str:
    preposition, nouns = rng.choice(PLACES)
    return f"{preposition} the {rng.choice(nouns)}"


def _agreement(rng: Random, acceptable: bool) -> str:
    """Agree in number across an attractor: ``the dogs near the king are happy``."""
    subject, other = _numbered(rng, SUBJECTS), _numbered(rng, NOUNS)
    many = subject.many == acceptable
    verb = rng.choice((("is", "are"), ("was", "were"), ("has been", "have been")))[many]
    between = rng.choice(("near", "behind", "beside", "with"))
    phrase = f"{noun_phrase(rng, subject, 'subject')} {between} {noun_phrase(rng, other, 'object')}"
    return f"{phrase} {verb} {rng.choice(rng.choice(ADJECTIVES))} {_place(rng)}"


def _reflexive(rng: Random, acceptable: bool) -> str:
    """Refer back in number: ``the kings who saw the dog praised themselves``."""
    people = rng.random() < 0.6
    subject = _numbered(rng, PEOPLE if people else ANIMALS)
    other = _numbered(rng, NOUNS)
    plural_form = subject.many == acceptable
    pronoun = "themselves" if plural_form else ("himself" if people else "itself")
    first, second = rng.choice(VERBS), rng.choice(VERBS)
    return (
        f"{noun_phrase(rng, subject, 'subject')} who {rng.choice(first)[2]} "
        f"{noun_phrase(rng, other, 'object')} {rng.choice(second)[2]} {pronoun} {_place(rng)}"
    )


def tense(rng: Random, acceptable: bool) -> str:
    """Agree in time: ``tomorrow the king will see the dog``."""
    future = rng.random() < 0.5
    adverb = rng.choice(("tomorrow", "next week") if future else ("yesterday", "last week"))
    subject, other = _numbered(rng, SUBJECTS), _numbered(rng, NOUNS)
    base, _, past, _ = rng.choice(rng.choice(VERBS))
    verb = f"will {base}" if future == acceptable else past
    return (
        f"{adverb} {noun_phrase(rng, subject, 'subject')} {_place(rng)} {verb} "
        f"{noun_phrase(rng, other, 'object')}"
    )


def _polarity(rng: Random, acceptable: bool) -> str:
    """License ``ever`` by ``no``: ``no old king has ever seen the dog``."""
    negative = rng.random() < 0.5
    subject, other = replace(_numbered(rng, SUBJECTS), many=False), _numbered(rng, NOUNS)
    phrase = noun_phrase(rng, subject, "subject")
    phrase = phrase.replace("the", "no", 1) if negative else phrase
    word = "ever" if negative == acceptable else "already"
    participle = rng.choice(rng.choice(VERBS))[3]
    obj = noun_phrase(rng, other, "object")
    return f"{phrase} {_place(rng)} has {word} {participle} {obj}"


def _paired(rng: Random, acceptable: bool) -> str:
    """Pair the halves of a conjunction: ``neither the king nor the dog saw the cat``."""
    halves = (("either", "or"), ("neither", "nor"), ("both", "and"))
    left = rng.randrange(3)
    right = left if acceptable else (left + rng.randrange(1, 3)) % 3
    one, two = _numbered(rng, SUBJECTS), _numbered(rng, SUBJECTS)
    obj = noun_phrase(rng, _numbered(rng, NOUNS), "object")
    return (
        f"{halves[left][0]} {noun_phrase(rng, one, 'subject')} {halves[right][1]} "
        f"{noun_phrase(rng, two, 'subject')} {rng.choice(rng.choice(VERBS))[2]} {obj}"
    )


def degree(rng: Random, acceptable: bool) -> str:
    """Compare with the matching word: ``as happy as``, ``more happy than``."""
    more = rng.random() < 0.5
    subject, other = _numbered(rng, SUBJECTS), _numbered(rng, NOUNS)
    be = "were" if subject.many else "was"
    right = "than" if more == acceptable else "as"
    return (
        f"{noun_phrase(rng, subject, 'subject')} {be} {'more' if more else 'as'} "
        f"{rng.choice(rng.choice(ADJECTIVES))} {right} {noun_phrase(rng, other, 'object')} "
        f"{_place(rng)}"
    )


CONSTRUCTIONS: tuple[Callable[[Random, bool], str], ...] = (
    _agreement,
    _reflexive,
    tense,
    _polarity,
    _paired,
    degree,
)


def sentence(rng: Random, acceptable: bool = True) -> str:
    """Return a sentence with one distant dependency, kept or broken; half go on with a clause."""
    text = rng.choice(CONSTRUCTIONS)(rng, acceptable)
    if rng.random() < 0.5:
        joined = clause(rng, event(rng), front=0)
        text = f"{text} and {joined}" if rng.random() < 0.5 else f"{joined} and {text}"
    return text + " ."
