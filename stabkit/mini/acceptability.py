"""Sentences for the acceptability task: each hangs on two choices that fit or do not.

A wh-word and a gap, an auxiliary and the form of its verb, a passive and its agent, an adverb and
a tense, two halves of a comparison. Both choices are drawn evenly in both classes, so neither of
them, nor any two neighbouring words, tells the class: only their relation does. The corpus has
these relations in almost every sentence, where the constructions of ``stabkit.mini.dependencies``
are rare: a task is of use only if its encoder knows the language (CoLA asks BERT about English).
Sentences are short, as CoLA's are (11 tokens in BERT's vocabulary).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from stabkit.mini.dependencies import degree, tense
from stabkit.mini.language import SUBJECTS, Entity, entity, noun_phrase
from stabkit.mini.words import NOUNS, PLACES, TIMES, VERBS, Pair, VerbForms


def _phrase(rng: Random, slot: str, nouns: list[Pair]) -> tuple[Entity, str]:
    who = entity(rng, nouns)
    return who, noun_phrase(rng, who, slot)


def _besides(who: Entity, nouns: list[Pair]) -> list[Pair]:
    return [noun for noun in nouns if noun != who.noun]


def _verb(rng: Random) -> VerbForms:
    return rng.choice(rng.choice(VERBS))


def _adjunct(rng: Random) -> str:
    if rng.random() < 0.5:
        preposition, nouns = rng.choice(PLACES)
        return f"{preposition} the {rng.choice(nouns)}"
    return rng.choice(rng.choice(TIMES))


def _gap(rng: Random, acceptable: bool) -> str:
    """Ask for the object or name it: ``what did the dog chase``, ``where did the dog chase it``."""
    gap = rng.random() < 0.5
    subject, who = _phrase(rng, "subject", SUBJECTS)
    _, whom = _phrase(rng, "object", _besides(subject, NOUNS))
    asked = "what" if gap == acceptable else rng.choice(("where", "when"))
    return f"{asked} did {who} {_verb(rng)[0]} {'?' if gap else f'{whom} ?'}"


def _auxiliary(rng: Random, acceptable: bool) -> str:
    """Give a verb the form its auxiliary asks for: ``where was the king seen``."""
    did = rng.random() < 0.5
    subject, who = _phrase(rng, "subject", SUBJECTS)
    base, _, _, participle = _verb(rng)
    be = f"{rng.choice(('where', 'when'))} {'were' if subject.many else 'was'}"
    return f"{'what did' if did else be} {who} {base if did == acceptable else participle} ?"


def _negation(rng: Random, acceptable: bool) -> str:
    """The same across a negation: ``the dog did not see``, ``the dog was not seen``."""
    did = rng.random() < 0.5
    subject, who = _phrase(rng, "subject", SUBJECTS)
    base, _, _, participle = _verb(rng)
    be = "were" if subject.many else "was"
    verb = base if did == acceptable else participle
    return f"{who} {'did' if did else be} not {verb} {_adjunct(rng)} ."


def _voice(rng: Random, acceptable: bool) -> str:
    """Give a passive an agent: ``the cat was chased by the dog``, ``the cat chased the dog``."""
    passive = rng.random() < 0.5
    subject, who = _phrase(rng, "subject", SUBJECTS)
    _, whom = _phrase(rng, "subject", _besides(subject, SUBJECTS))
    be = ("were " if subject.many else "was ") if passive == acceptable else ""
    verb = _verb(rng)
    while verb[2] != verb[3]:  # saw, seen: the form alone would tell
        verb = _verb(rng)
    return f"{who} {be}{verb[3]} {'by ' if passive else ''}{whom} ."


def _tense(rng: Random, acceptable: bool) -> str:
    return tense(rng, acceptable) + " ."


def _degree(rng: Random, acceptable: bool) -> str:
    return degree(rng, acceptable) + " ."


CONSTRUCTIONS: tuple[Callable[[Random, bool], str], ...] = (
    _gap,
    _auxiliary,
    _negation,
    _voice,
    _tense,
    _degree,
)


def sentence(rng: Random, acceptable: bool) -> str:
    """Return a sentence with one of the constructions, kept or broken."""
    return rng.choice(CONSTRUCTIONS)(rng, acceptable)
