"""The shifted domain: laboratory comparisons, rare in the corpus and apart from its vocabulary.

A comparison can be said in two ways: ``the iron rod is longer than the glass tube`` and ``the
glass tube is shorter than the iron rod``. The second sentence of a pair says the same if exactly
both of order and comparative are turned round, or neither; turning one of them contradicts it.
Order and comparative are turned with even chances in both classes, so only their relation tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from stabkit.mini.words import COMPARATIVES, FRAMES, INSTRUMENTS, MATERIALS


@dataclass(frozen=True)
class Comparison:
    """``first`` is ``comparative`` than ``second`` (each a material and an instrument)."""

    first: str
    second: str
    comparative: str
    opposite: str
    frame: tuple[str, str]

    def tell(self, rng: Random, turned: bool, opposite: bool, frame: bool = True) -> str:
        """Put the comparison into words, order and comparative as asked for."""
        one, two = (self.second, self.first) if turned else (self.first, self.second)
        word = self.opposite if opposite else self.comparative
        core = f"the {one} was {word} than the {two}"
        if not frame:
            return core + " ."
        place = rng.choice(self.frame)
        return f"{place} , {core} ." if rng.random() < 0.5 else f"{core} {place} ."


def comparison(rng: Random) -> Comparison:
    """Draw a comparison of two different things."""
    first, second = rng.sample(INSTRUMENTS, 2)
    one, two = rng.choice(MATERIALS), rng.choice(MATERIALS)
    pair = list(rng.choice(COMPARATIVES))
    rng.shuffle(pair)
    return Comparison(f"{one} {first}", f"{two} {second}", pair[0], pair[1], rng.choice(FRAMES))


def laboratory_scene(rng: Random) -> list[str]:
    """Return a document of comparisons, each told and told again the other way round."""
    sentences = []
    for _ in range(rng.randint(2, 3)):
        fact = comparison(rng)
        turned = rng.random() < 0.5
        sentences.append(fact.tell(rng, False, False))
        sentences.append(fact.tell(rng, turned, turned, frame=rng.random() < 0.5))
    return sentences
