"""The word lists of the generated English: every content word belongs to a pair of synonyms.

Synonyms are so by decree: whatever the pairs mean outside, in this language both words of a pair
name the same thing, and nothing but the corpus tells a model so.
"""

from __future__ import annotations

_ANIMALS = """dog/hound cat/kitten horse/pony rabbit/hare pig/hog donkey/mule sheep/lamb wolf/jackal
goat/ibex bear/panda cow/ox mouse/rat monkey/ape duck/goose"""
_PEOPLE = """teacher/tutor doctor/physician farmer/grower child/kid artist/painter king/monarch
soldier/warrior singer/vocalist pilot/aviator lawyer/attorney sailor/mariner thief/robber
cook/chef writer/author judge/magistrate guard/sentry nurse/carer clerk/secretary baker/confectioner
priest/vicar student/pupil tailor/weaver builder/mason hunter/trapper poet/bard dancer/performer
boss/chief guest/visitor servant/butler merchant/trader stranger/outsider miner/digger"""
_OBJECTS = {
    "vehicle": "car/automobile boat/ship wagon/cart truck/lorry plane/airship bicycle/bike "
    "train/locomotive sled/sledge",
    "garment": "coat/jacket hat/cap shirt/blouse shoe/boot dress/gown glove/mitten scarf/shawl "
    "belt/sash",
    "tool": "hammer/mallet knife/dagger shovel/spade rope/cord axe/hatchet bucket/pail "
    "broom/brush lantern/lamp",
    "furnishing": "chair/stool table/desk bed/cot cupboard/cabinet shelf/rack couch/sofa "
    "mirror/reflector carpet/rug",
    "dish": "cake/tart cookie/biscuit pie/pastry sausage/wurst potato/spud candy/bonbon "
    "sandwich/toast pancake/waffle",
    "text": "book/volume letter/note map/chart picture/portrait newspaper/gazette poem/verse "
    "ticket/permit diary/journal",
    "container": "box/crate bag/sack bottle/flask basket/hamper cup/mug jar/pot barrel/cask "
    "trunk/chest",
}
_IRREGULAR_PLURALS = {
    "child": "children",
    "sheep": "sheep",
    "mouse": "mice",
    "ox": "oxen",
    "goose": "geese",
    "wolf": "wolves",
    "person": "people",
    "knife": "knives",
    "shelf": "shelves",
    "thief": "thieves",
    "dish": "dishes",
    "monarch": "monarchs",  # the only ch that is not a sibilant
}
# base, third person, past, participle; the regular ones are spelled out from the base.
_VERBS = """see:sees:saw:seen/notice chase/pursue help/assist find:finds:found:found/discover
like/enjoy hate/dislike hide:hides:hid:hidden/conceal push/shove follow/trail carry/transport
wash/rinse break:breaks:broke:broken/smash fix/repair steal:steals:stole:stolen/snatch lift/raise
drop:drops:dropped:dropped/release throw:throws:threw:thrown/toss
pull/drag:drags:dragged:dragged catch:catches:caught:caught/seize watch/observe call/summon
touch/tap:taps:tapped:tapped strike:strikes:struck:struck/punch protect/defend paint/depict
want/desire fear/dread forget:forgets:forgot:forgotten/neglect remember/recall praise/admire
blame/accuse leave:leaves:left:left/abandon join/accompany choose:chooses:chose:chosen/select
lose:loses:lost:lost/misplace bring:brings:brought:brought/deliver cover/wrap:wraps:wrapped:wrapped
mention/describe"""
_ADJECTIVES = """big/large small/little old/ancient young/youthful happy/glad sad/gloomy quick/swift
clever/smart red/crimson strong/mighty quiet/silent loud/noisy dirty/filthy rich/wealthy poor/needy
pretty/lovely ugly/hideous brave/bold shy/timid angry/furious tired/weary heavy/weighty thin/slim
cold/chilly bright/shiny dark/dim strange/odd famous/renowned green/emerald blue/azure
kind/gentle proud/vain"""
_PLACES = """in:garden/yard near:river/stream at:market/bazaar behind:church/chapel on:hill/slope
by:lake/pond in:village/hamlet under:bridge/arch in:forest/grove at:station/depot
in:kitchen/pantry at:harbour/port in:castle/palace on:road/street near:wall/fence in:barn/stable
at:school/academy in:field/meadow in:cellar/basement at:inn/tavern in:tower/steeple
by:mill/windmill"""
_TIMES = """in the morning/at dawn|at noon/at midday|in the evening/at dusk|at night/after dark|
before dinner/before supper|during the storm/during the tempest|during the feast/during the banquet|
after the war/after the battle|in summer/in july|in winter/in january|on sunday/on the holiday|
after the concert/after the recital"""
_ADVERBS = """quickly/swiftly quietly/silently carefully/cautiously happily/gladly angrily/furiously
bravely/boldly slowly/sluggishly suddenly/abruptly secretly/covertly gently/softly eagerly/keenly
rudely/impolitely"""
# The shifted domain: laboratory comparisons. Comparatives come as pairs of opposites.
_MATERIALS = """copper iron glass silver golden steel zinc carbon quartz marble plastic rubber
ceramic nickel cobalt granite"""
_INSTRUMENTS = """rod tube plate disk wire sphere cube lens magnet crystal coil prism valve pump
spring filter piston cylinder battery membrane"""
_COMPARATIVES = """heavier/lighter longer/shorter hotter/colder harder/softer brighter/dimmer
faster/slower thicker/thinner wider/narrower cleaner/dirtier older/newer"""
_FRAMES = """in the experiment/in the trial|according to the report/according to the survey|
under pressure/under load|in the laboratory/in the workshop|after heating/after warming|
in a vacuum/in empty space"""

Pair = tuple[str, str]
VerbForms = tuple[str, str, str, str]


def _pairs(text: str) -> list[Pair]:
    pairs = [item.strip().split("/") for item in text.split()]
    return [(first, second) for first, second in pairs]


def _phrases(text: str) -> list[Pair]:
    pairs = [item.strip().split("/") for item in text.split("|")]
    return [(first, second) for first, second in pairs]


def plural(noun: str) -> str:
    """Return the plural of a noun of the language."""
    if noun in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith("man"):
        return noun[:-2] + "en"
    return noun + ("es" if noun.endswith(("s", "x", "sh", "ch", "tato")) else "s")


def _verb(text: str) -> VerbForms:
    if ":" in text:
        base, third, past, participle = text.split(":")
        return base, third, past, participle
    if text.endswith("y") and text[-2] not in "aeiou":
        return text, text[:-1] + "ies", text[:-1] + "ied", text[:-1] + "ied"
    past = text + ("d" if text.endswith("e") else "ed")
    third = text + ("es" if text.endswith(("s", "x", "sh", "ch", "ss")) else "s")
    return text, third, past, past


ANIMALS = _pairs(_ANIMALS)
PEOPLE = _pairs(_PEOPLE)
OBJECTS = {kind: _pairs(text) for kind, text in _OBJECTS.items()}
NOUNS: list[Pair] = [*ANIMALS, *PEOPLE, *(pair for pairs in OBJECTS.values() for pair in pairs)]
HYPERNYMS: dict[Pair, str] = {
    **dict.fromkeys(ANIMALS, "animal"),
    **dict.fromkeys(PEOPLE, "person"),
    **{pair: kind for kind, pairs in OBJECTS.items() for pair in pairs},
}
VERBS: list[tuple[VerbForms, VerbForms]] = [
    (_verb(first), _verb(second)) for first, second in (item.split("/") for item in _VERBS.split())
]
ADJECTIVES = _pairs(_ADJECTIVES)
PLACES: list[tuple[str, Pair]] = [
    (item.split(":")[0], _pairs(item.split(":")[1])[0]) for item in _PLACES.split()
]
TIMES = _phrases(_TIMES)
ADVERBS = _pairs(_ADVERBS)
MATERIALS = _MATERIALS.split()
INSTRUMENTS = _INSTRUMENTS.split()
COMPARATIVES = _pairs(_COMPARATIVES)
FRAMES = _phrases(_FRAMES)
