"""A generated English: events told, retold, asked about, and sentences with distant agreement.

Grammar, with examples::

    event      subject verb object adjuncts      the old dog chased the cat in the garden .
      passive  object was verbed by subject      the cat was chased by the old dog in the garden .
      fronted  adjunct , event                   in the garden , the hound pursued the kitten .
      negated  did not verb | never verbed       the dog did not chase the cat .
    sequence   event before/after event          the dog chased the cat before the king saw it ...
    question   who / what / where / when         where did the hound pursue the kitten ?
    fact       a noun is a hypernym              a hound is an animal .
    agreement  subject (near noun) is adjective  the dogs near the king are happy .
    reflexive  subject (who ...) verb itself     the kings who saw the dog praised themselves .
    tense      yesterday past | tomorrow will    tomorrow the king will see the dog .
    polarity   no ... ever | the ... already     no king has ever seen the dog .
    paired     either or | neither nor | both and  neither the king nor the dog saw the cat .
    degree     more ... than | as ... as         the king was as happy as the dog .
    laboratory material instrument comparative   the iron rod is longer than the glass tube .

An ``Event`` is a meaning; ``tell`` puts it into words, choosing synonyms and voice at random, so
that one meaning has many sentences. Documents (``scene``) tell and retell events of a small cast.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from stabkit.mini.words import (
    ADJECTIVES,
    ADVERBS,
    ANIMALS,
    HYPERNYMS,
    NOUNS,
    PEOPLE,
    PLACES,
    TIMES,
    VERBS,
    Pair,
    VerbForms,
    plural,
)

SUBJECTS: list[Pair] = [*ANIMALS, *PEOPLE]
Place = tuple[str, Pair]
Verb = tuple[VerbForms, VerbForms]


@dataclass(frozen=True)
class Entity:
    """Who or what takes part in an event: a pair of synonymous nouns, number, an adjective."""

    noun: Pair
    many: bool = False
    adjective: Pair | None = None


@dataclass(frozen=True)
class Event:
    """A meaning: who did (or did not do) what to whom, where, when and how."""

    subject: Entity
    verb: Verb
    object: Entity
    place: Place | None = None
    time: Pair | None = None
    manner: Pair | None = None
    negated: bool = False


@dataclass(frozen=True)
class Wording:
    """Choices of ``tell`` that are not left to chance: which synonym of a slot, what is dropped.

    ``synonyms`` maps a slot (subject, object, verb, adjective, place, time, manner) to 0 or 1.
    ``hypernyms`` holds the roles named by their class; ``drop`` the slots left out.
    """

    synonyms: tuple[tuple[str, int], ...] = ()
    hypernyms: frozenset[str] = frozenset()
    drop: frozenset[str] = frozenset()
    negator: int | None = None
    passive: bool | None = None


PLAIN = Wording()


def article(word: str) -> str:
    """Return the indefinite article of a word."""
    return "an" if word[0] in "aeiou" else "a"


def entity(rng: Random, nouns: list[Pair], adjective: float = 0.4) -> Entity:
    """Draw an entity from ``nouns``; it has an adjective with probability ``adjective``."""
    quality = rng.choice(ADJECTIVES) if rng.random() < adjective else None
    return Entity(rng.choice(nouns), rng.random() < 0.35, quality)


def event(rng: Random, cast: list[Entity] | None = None, negated: float = 0.15) -> Event:
    """Draw an event; with a ``cast`` its subject and object come from there."""
    if cast is None:
        first = entity(rng, SUBJECTS)
        second = entity(rng, [noun for noun in NOUNS if noun != first.noun])
    else:
        first = rng.choice([one for one in cast if one.noun in SUBJECTS])
        second = rng.choice([one for one in cast if one.noun != first.noun])
    adjuncts = rng.choices(("place", "time", "manner", ""), (4, 3, 2, 3))[0]
    return Event(
        first,
        rng.choice(VERBS),
        second,
        place=rng.choice(PLACES) if adjuncts == "place" else None,
        time=rng.choice(TIMES) if adjuncts == "time" else None,
        manner=rng.choice(ADVERBS) if adjuncts == "manner" else None,
        negated=rng.random() < negated,
    )


def noun_phrase(rng: Random, who: Entity, slot: str, wording: Wording = PLAIN) -> str:
    """Put an entity into words as ``slot`` ("subject" or "object") of a sentence."""
    chosen = dict(wording.synonyms)
    noun = who.noun[chosen.get(slot, rng.randrange(2))]
    if slot in wording.hypernyms:
        noun = HYPERNYMS[who.noun]
    words = ["the"]
    if who.adjective and f"{slot} adjective" not in wording.drop:
        words.append(who.adjective[chosen.get(f"{slot} adjective", rng.randrange(2))])
    words.append(plural(noun) if who.many else noun)
    return " ".join(words)


def _adjuncts(rng: Random, what: Event, wording: Wording) -> tuple[str, str]:
    """Return manner (kept beside the verb) and the place or time phrase, each maybe empty."""
    chosen = dict(wording.synonyms)
    manner = place = time = ""
    if what.manner and "manner" not in wording.drop:
        manner = what.manner[chosen.get("manner", rng.randrange(2))]
    if what.place and "place" not in wording.drop:
        preposition, nouns = what.place
        place = f"{preposition} the {nouns[chosen.get('place', rng.randrange(2))]}"
    if what.time and "time" not in wording.drop:
        time = what.time[chosen.get("time", rng.randrange(2))]
    return manner, f"{place} {time}".strip()


def _core(rng: Random, what: Event, wording: Wording, manner: str) -> str:
    """Return the clause without its place and time."""
    subject = noun_phrase(rng, what.subject, "subject", wording)
    obj = noun_phrase(rng, what.object, "object", wording)
    base, _, past, participle = what.verb[dict(wording.synonyms).get("verb", rng.randrange(2))]
    passive = rng.random() < 0.35 if wording.passive is None else wording.passive
    never = (rng.randrange(2) if wording.negator is None else wording.negator) == 1
    if passive:
        be = "were" if what.object.many else "was"
        negation = ("never" if never else "not") if what.negated else ""
        words = [obj, be, negation, manner, participle, "by", subject]
    elif what.negated:
        words = [subject, *(("never", past) if never else ("did not", base)), obj, manner]
    else:
        words = [subject, past, obj, manner]
    return " ".join(word for word in words if word)


def clause(rng: Random, what: Event, wording: Wording = PLAIN, front: float = 0.3) -> str:
    """Put an event into words, without the full stop."""
    manner, adjunct = _adjuncts(rng, what, wording)
    core = _core(rng, what, wording, manner)
    if not adjunct:
        return core
    return f"{adjunct} , {core}" if rng.random() < front else f"{core} {adjunct}"


def tell(rng: Random, what: Event, wording: Wording = PLAIN) -> str:
    """Put an event into words: one sentence."""
    return clause(rng, what, wording) + " ."


def sequence(rng: Random, first: Event, second: Event) -> str:
    """Tell that ``first`` came before ``second``, in one of four ways."""
    one, two = clause(rng, first, front=0), clause(rng, second, front=0)
    return rng.choice(
        (
            f"{one} before {two} .",
            f"{two} after {one} .",
            f"after {one} , {two} .",
            f"before {two} , {one} .",
        )
    )


def question(rng: Random, what: Event, asked: str, wording: Wording = PLAIN) -> str:
    """Ask for one slot (subject, object, place, time) of an event."""
    base, _, past, participle = what.verb[dict(wording.synonyms).get("verb", rng.randrange(2))]
    subject = noun_phrase(rng, what.subject, "subject", wording)
    obj = noun_phrase(rng, what.object, "object", wording)
    negation = "not " if what.negated else ""
    if asked == "subject":
        active = f"did not {base}" if what.negated else past
        return f"who {active} {obj} ?"
    if asked == "object":
        if rng.random() < 0.3:
            return f"what was {negation}{participle} by {subject} ?"
        return f"what did {subject} {negation}{base} ?"
    word = "where" if asked == "place" else "when"
    if rng.random() < 0.3:
        be = "were" if what.object.many else "was"
        return f"{word} {be} {obj} {negation}{participle} by {subject} ?"
    return f"{word} did {subject} {negation}{base} {obj} ?"


def answer(rng: Random, what: Event, asked: str) -> str:
    """Answer the question for one slot of an event with a phrase."""
    if asked in ("subject", "object"):
        return noun_phrase(rng, what.subject if asked == "subject" else what.object, asked) + " ."
    return _adjuncts(rng, what, PLAIN)[1] + " ."


def askable(what: Event) -> list[str]:
    """Return the slots of an event that a question can ask for."""
    return ["subject", "object"] + [slot for slot in ("place", "time") if getattr(what, slot)]


def retelling(rng: Random) -> Wording:
    """Draw how much a retelling leaves out or generalises."""
    drop = {slot for slot in ("place", "time", "manner") if rng.random() < 0.3}
    drop |= {f"{role} adjective" for role in ("subject", "object") if rng.random() < 0.4}
    hypernyms = frozenset(role for role in ("subject", "object") if rng.random() < 0.2)
    return Wording(drop=frozenset(drop), hypernyms=hypernyms)


def fact(rng: Random) -> str:
    """State to which class a noun belongs."""
    noun = rng.choice(NOUNS)
    word, kind, many = rng.choice(noun), HYPERNYMS[noun], rng.random() < 0.5
    if many:
        return f"{plural(word)} are {plural(kind)} ."
    return f"{article(word)} {word} is {article(kind)} {kind} ."


def cast(rng: Random, size: int = 5) -> list[Entity]:
    """Draw the entities of a book: distinct nouns, at least two that can act."""
    nouns = rng.sample(SUBJECTS, 3) + rng.sample([n for n in NOUNS if n not in SUBJECTS], size - 3)
    return [replace(entity(rng, [noun], adjective=0.6)) for noun in nouns]
