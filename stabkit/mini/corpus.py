"""The pre-training corpus: books of short scenes, and their rows for masked-LM training.

A book has a cast of five; its scenes tell events of this cast, retell them in other words, ask
about them, and mix in facts and sentences with distant agreement. So neighbouring sentences speak
of the same event, and distant sentences of the same book of the same entities in other events:
telling them apart takes comparing, which is what makes the pooler useful (sentence-level tasks)
and the encoder look at the other sentence (masked words).
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from stabkit.mini.dependencies import sentence
from stabkit.mini.laboratory import laboratory_scene
from stabkit.mini.language import (
    Entity,
    answer,
    askable,
    cast,
    event,
    fact,
    question,
    retelling,
    sequence,
    tell,
)

Scene = list[str]
LABORATORY_SHARE = 0.08
RETOLD = 0.85
VERBATIM = 0.35


def scene(rng: Random, people: list[Entity]) -> Scene:
    """Return a scene: two or three events of the cast, told, retold and asked about."""
    sentences: Scene = []
    for _ in range(rng.randint(2, 3)):
        what = event(rng, people)
        told = tell(rng, what)
        sentences.append(told)
        if rng.random() < RETOLD:
            again = rng.random() < VERBATIM
            sentences.append(told if again else tell(rng, what, retelling(rng)))
        if rng.random() < 0.4:
            asked = rng.choice(askable(what))
            sentences += [question(rng, what, asked), answer(rng, what, asked)]
    if rng.random() < 0.35:
        first, second = event(rng, people), event(rng, people)
        sentences += [sequence(rng, first, second), sequence(rng, first, second)]
    if rng.random() < 0.5:
        sentences.append(sentence(rng))
    if rng.random() < 0.15:
        sentences.append(fact(rng))
    return sentences


def book(rng: Random) -> list[Scene]:
    """Return a book: five scenes of one cast, or of laboratory comparisons."""
    if rng.random() < LABORATORY_SHARE:
        return [laboratory_scene(rng) for _ in range(5)]
    people = cast(rng)
    return [scene(rng, people) for _ in range(5)]


def books(seed: int) -> Iterator[list[Scene]]:
    """Return an endless, seeded stream of books."""
    rng = Random(seed)
    while True:
        yield book(rng)
