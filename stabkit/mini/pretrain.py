"""Pre-training of the organism: masked words plus each architecture's sentence-level task.

``python -m stabkit.mini.pretrain mini-bert --out models/mini-bert`` makes a model. It can be
stopped at any time and goes on from its last checkpoint. BERT learns next sentences with segments,
as in its paper, and so does RoBERTa, which in its own learns words alone. ALBERT tells the next
segment from the one before and from another's (``stabkit.mini.anatomy.PLANS`` says why).

A masked word is best found in the other sentence, but nothing tells a new encoder to look there:
without help twelve narrow layers stay for thousands of steps at the loss of local syntax. So
training has phases: four layers learn to copy from sentences said twice, then to compare on the
corpus, words hidden in the second segment only, then everywhere. Deep plans then stack the layers
(Gong et al. 2019) and go on; the last phase has dropout.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from stabkit.errors import ModelError, nearest
from stabkit.mini.anatomy import PLANS, SPECIALS, Phase, Plan, build_tokenizer
from stabkit.mini.batch import Batch
from stabkit.mini.card import card
from stabkit.mini.loop import Machine, Training, at_least_one, in_a_sentence
from stabkit.mini.rows import BLOCK, Objective, Rows, block, mask_words

MASK_ID = SPECIALS.index("[MASK]")
CORPUS_SEED, HELD_OUT_SEED = 100, 7
HELD_OUT_BATCHES = 16
SAVE_EVERY = 500


class Corpus:
    """The generated corpus as a source of rows for one plan (``stabkit.mini.batch.Source``)."""

    def __init__(self, plan: Plan) -> None:
        """Make the tokenizer; rows are made when they are asked for."""
        self.plan, self.tokenizer = plan, build_tokenizer()
        self.identity: dict[str, Any] = {}  # the plan tells all

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        masks = torch.Generator().manual_seed(self.plan.seed * self.plan.steps + step)
        phase, _ = self.plan.phase(step)
        return self._hidden(phase, self._rows(phase, step, CORPUS_SEED + self.plan.seed), masks)

    def held_out(self, step: int) -> Iterator[Batch]:
        """Yield held-out batches as in the phase of a step, with fixed masks."""
        masks = torch.Generator().manual_seed(HELD_OUT_SEED)
        phase, _ = self.plan.phase(step)
        for number in range(HELD_OUT_BATCHES):
            yield self._hidden(phase, self._rows(phase, number, HELD_OUT_SEED), masks)

    def _rows(self, phase: Phase, step: int, seed: int) -> Rows:
        number, place = divmod(step, BLOCK // self.plan.batch_size)
        objective: Objective = "none" if phase.echo == 1 else self.plan.objective
        size = self.plan.batch_size
        return _block(self.tokenizer, seed, number, objective, size, phase.echo)[place]

    def _hidden(self, phase: Phase, rows: Rows, generator: torch.Generator) -> Batch:
        shown, chosen = mask_words(
            rows,
            self.tokenizer.get_vocab_size(),
            MASK_ID,
            len(SPECIALS),
            self.plan.mask_rate * (1 + phase.second_only),
            generator,
            phase.second_only,
        )
        inputs = {
            "input_ids": shown,
            "attention_mask": rows.attention_mask,
            "token_type_ids": rows.token_type_ids,
        }
        places = chosen.flatten().nonzero().squeeze(1)
        label = rows.sentence_label if phase.echo < 1 else None
        return Batch(inputs, places, rows.input_ids[chosen], label)


@lru_cache(maxsize=2)
def _block(
    tokenizer: Tokenizer, seed: int, number: int, objective: Objective, batch: int, echo: float
) -> list[Rows]:
    return block(tokenizer, seed, number, objective, batch, echo)


def start(plan: Plan) -> Training:
    """Return a pre-training of the organism at step 0, on the CPU."""
    return Training.start(plan, Corpus(plan), Machine(precision=plan.precision))


def pretrain(name: str, folder: Path, threads: int = 1) -> Training:
    """Make a model of the organism in ``folder``, going on from a checkpoint there.

    Raises ModelError for an unknown name, a checkpoint of another plan, a loss not finite.
    """
    if name not in PLANS:
        raise ModelError(f"unknown model {name!r}: {nearest(name, PLANS)}")
    at_least_one(threads=threads)
    torch.set_num_threads(threads)
    training = start(PLANS[name])
    training.resume(folder)
    training.run(folder, SAVE_EVERY)
    training.ship(folder, card(name, PLANS[name], training.log))
    return training


def main() -> None:
    """Command line: which model, where to, how many threads (``in_a_sentence``)."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=sorted(PLANS))
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and model")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with in_a_sentence():
        pretrain(options.model, options.out, options.threads)


if __name__ == "__main__":
    main()
