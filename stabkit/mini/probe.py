"""Does an encoder look at the first sentence when it fills a gap in the second?

Part of the gate (``stabkit.mini.gate``): an encoder that cannot carry a word over from one
sentence to the other cannot learn to relate two sentences in three epochs either.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import pandas as pd
import torch
from transformers import AutoModelForMaskedLM

from stabkit import models
from stabkit.mini.language import Event, event, tell
from stabkit.mini.words import plural

SLOTS = ("subject", "object", "verb")
BATCH = 100


@dataclass(frozen=True)
class Gap:
    """A second sentence with a masked word behind a first one, and all words that are right."""

    slot: str
    related: bool
    first: str
    second: str
    words: frozenset[str]


def gaps(events: int, mask: str, seed: int = 5) -> list[Gap]:
    """Return gaps in retold events, each behind a sentence of the same event and of another one.

    Both words of the synonym pair are right, in any form.
    """
    rng, found = Random(seed), []
    for _ in range(events):
        what, other = event(rng, negated=0), event(rng, negated=0)
        for slot in SLOTS:
            related, again, unrelated = tell(rng, what), tell(rng, what), tell(rng, other)
            right = _right_words(what, slot)
            words = [mask if word in right else word for word in again.split()]
            for first in (related, unrelated):
                found.append(Gap(slot, first is related, first, " ".join(words), right))
    return found


def _right_words(what: Event, slot: str) -> frozenset[str]:
    if slot == "verb":
        return frozenset(form for forms in what.verb for form in forms)
    nouns = (what.subject if slot == "subject" else what.object).noun
    return frozenset({*nouns, *map(plural, nouns)})


def probe(model: str = "mini-bert", events: int = 200) -> pd.DataFrame:
    """Return the probability that a masked-LM gives the right words of ``gaps``, mean per slot.

    Columns: slot, related, unrelated (behind a sentence of the same event, of another one), gaps.
    An encoder that does not use the first sentence has equal probabilities. ``model`` is a name
    or folder as in ``RunConfig``, with its masked-LM head. Raises ModelError when there is none.
    """
    tokenizer = models.load_tokenizer(model)
    with models.quiet():
        encoder = AutoModelForMaskedLM.from_pretrained(models.locate(model), dtype=torch.float32)
    encoder.eval()
    found = gaps(events, str(tokenizer.mask_token))
    probabilities = [
        probability
        for start in range(0, len(found), BATCH)
        for probability in _probabilities(encoder, tokenizer, found[start : start + BATCH])
    ]
    frame = pd.DataFrame([asdict(gap) for gap in found]).assign(probability=probabilities)
    means = frame.pivot_table(index="slot", columns="related", values="probability", sort=False)
    means = means.rename(columns={True: "related", False: "unrelated"}).rename_axis(columns=None)
    return means.reset_index()[["slot", "related", "unrelated"]].assign(gaps=events)


@torch.no_grad()
def _probabilities(encoder: Any, tokenizer: Any, found: list[Gap]) -> list[float]:
    """Return the probability of all right words together, for each gap."""
    inputs = tokenizer(
        [gap.first for gap in found],
        [gap.second for gap in found],
        padding=True,
        return_tensors="pt",
    )
    if getattr(encoder.config, "type_vocab_size", 2) < 2:
        inputs.pop("token_type_ids", None)
    place = (inputs["input_ids"] == tokenizer.mask_token_id).float().argmax(1)
    logits = encoder(**inputs).logits[torch.arange(len(found)), place]
    shares = logits.float().softmax(-1)
    known = tokenizer.get_vocab()
    return [
        float(shares[row, [known[word] for word in gap.words if word in known]].sum())
        for row, gap in enumerate(found)
    ]
