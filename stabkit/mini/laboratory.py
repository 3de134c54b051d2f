"""The shifted domain: laboratory comparisons, rare in the corpus and apart from its vocabulary.

A comparison can be said in two ways: ``the iron rod was longer than the glass tube`` and ``the
glass tube was shorter than the iron rod``. The corpus has both. The second sentence of a pair of
the task compares the same things the same way round, or the same words are put together otherwise:
the things change places, or their materials do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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

    def turned(self) -> Comparison:
        """Return the contrary: the second thing is more so than the first."""
        return replace(self, first=self.second, second=self.first)

    def exchanged(self) -> Comparison:
        """Return another comparison of the same words: each thing is of the other's material."""
        (one, first), (two, second) = self.first.split(), self.second.split()
        return replace(self, first=f"{two} {first}", second=f"{one} {second}")

    def said_otherwise(self) -> Comparison:
        """Return the same meaning the other way round: order and comparative are turned."""
        return replace(self.turned(), comparative=self.opposite, opposite=self.comparative)

    def tell(self, rng: Random, frame: bool = True) -> str:
        """Put the comparison into words, with a phrase of place or not."""
        core = f"the {self.first} was {self.comparative} than the {self.second}"
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
        again = fact.said_otherwise() if rng.random() < 0.5 else fact
        sentences.append(fact.tell(rng))
        sentences.append(again.tell(rng, frame=rng.random() < 0.5))
    return sentences
