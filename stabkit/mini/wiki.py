"""A deep small encoder of real text: the plan of ``mini-wiki``, and the command that makes it.

``python -m stabkit.mini.wiki --text train.txt.xz --held-out dev.txt --out models/wiki`` trains a
vocabulary, tokenises the text, pre-trains and writes the model to models/wiki/mini-wiki. It can be
stopped at any time; the same command goes on from the last checkpoint.

As deep as BERT-large (24 post-LN layers), and as wide as ships: at 160 the model has 10.2 million
parameters, 20 MB in fp16; 192, the next width of whole heads of 32, would have 28. New layers that
deep hardly learn, so six are trained first, then stacked to 12 and to 24 (Gong et al. 2019). The
last and longest phase has the dropout of fine-tuning. The pooler learns from next sentences.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch

from stabkit.errors import ModelError
from stabkit.mini import text
from stabkit.mini.anatomy import Anatomy
from stabkit.mini.card import text_card
from stabkit.mini.loop import Machine, Training, at_least_one, in_a_sentence
from stabkit.mini.windows import LENGTH, Windows

NAME = "mini-wiki"
TOKENS = 1_500_000_000
SAVE_EVERY = 500
SHARES = (0.25, 0.25, 0.5)  # of the tokens, at a quarter, a half and all of the depth
RATES = (1.0, 0.7, 0.5, 0.0)  # of the peak rate, at the phases' bounds
WARMUP = 0.05  # of a phase: its optimizer begins anew


@dataclass(frozen=True)
class Stage:
    """Steps at one depth; the learning rate falls from ``start`` to ``end`` after a warmup."""

    layers: int
    steps: int
    start: float
    end: float
    dropout: float

    def rate(self, step: int) -> float:
        """Return the learning rate of a step of this phase."""
        share = step / self.steps
        peak = self.start + share * (self.end - self.start)
        return peak * min(1.0, (step + 1) / max(1, round(WARMUP * self.steps)))


@dataclass(frozen=True)
class TextPlan(Anatomy):
    """How a model of real text is made: BERT's architecture and objectives."""

    phases: tuple[Stage, ...]
    vocabulary: int = 16_384
    hidden: int = 160
    heads: int = 5
    batch_size: int = 256
    mask_rate: float = 0.15
    seed: int = 0
    architecture: str = "bert"


def text_plan(
    tokens: float = TOKENS,
    layers: int = 24,
    rate: float = 1e-3,
    hidden: int = 160,
    batch_size: int = 256,
    vocabulary: int = 16_384,
    seed: int = 0,
) -> TextPlan:
    """Return the plan of so many tokens, each phase of one step or more.

    Raises ModelError for numbers of which no model can be made.
    """
    numbers = 0 < tokens < math.inf and 0 < rate < math.inf and seed >= 0
    if hidden < 32 or hidden % 32 or layers < 1 or batch_size < 2 or not numbers:
        raise ModelError(
            f"{layers} layers of width {hidden}, batches of {batch_size}, {tokens:g} tokens, rate "
            f"{rate:g}, seed {seed}; expected a width in steps of 32, batches of 2 rows or more, a "
            "seed of 0 or more, and finite numbers above 0"
        )
    steps = tokens / (batch_size * LENGTH)
    bounds = [round(steps * share) for share in (0.0, *accumulate(SHARES))]
    phases = tuple(
        Stage(
            max(1, layers * quarters // 4),
            max(1, bounds[i + 1] - bounds[i]),
            rate * RATES[i],
            rate * RATES[i + 1],
            dropout=0.1 if quarters == 4 else 0.0,
        )
        for i, quarters in enumerate((1, 2, 4))
    )
    return TextPlan(phases, vocabulary, hidden, hidden // 32, batch_size, seed=seed)


def begin(
    plan: TextPlan, texts: list[Path], held_out: Path, folder: Path, machine: Machine
) -> Training:
    """Return a pre-training at the last checkpoint in ``folder``, or at its start.

    Vocabulary and tokens are made there unless they are there. Raises DataError for texts that
    cannot be used, ModelError for a vocabulary or checkpoint of something else.
    """
    tokenizer = text.vocabulary(texts, plan.vocabulary, folder)
    streams = [text.stream(paths, tokenizer, folder) for paths in (texts, [held_out])]
    source = Windows(plan, tokenizer, streams[0], streams[1], machine.device)
    training = Training.start(plan, source, machine)
    training.resume(folder)
    return training


def main() -> None:
    """Command line (``in_a_sentence``)."""
    options = _options().parse_args()
    with in_a_sentence():
        _pretrain(options)


def _pretrain(options: argparse.Namespace) -> None:
    at_least_one(threads=options.threads, save_every=options.save_every)
    for path in (
        *options.text,
        options.held_out,
        *([options.wikitext] if options.wikitext else []),
    ):
        next(text.paragraphs(path), None)  # before hours pass: it says what is wrong with a file
    torch.set_num_threads(options.threads)
    machine = Machine.choose(options.device, options.precision, options.compile)
    plan = text_plan(
        options.tokens,
        options.layers,
        options.learning_rate,
        options.hidden,
        options.batch_size,
        options.vocabulary,
        options.seed,
    )
    training = begin(plan, options.text, options.held_out, options.out, machine)
    print(f"{plan.steps} steps on {machine.device}, {machine.precision}", file=sys.stderr)
    training.run(options.out, options.save_every)
    target = options.out / options.name
    training.ship(target, text_card(training, options.name, options.about, options.text))
    if options.wikitext:
        found = _perplexity(target, options.wikitext)
        told = text_card(training, options.name, options.about, options.text, found)
        training.ship(target, told)
    print(f"{options.name} lies in {target}")


def _perplexity(model: Path, file: Path) -> float:
    """Return the masked-LM perplexity of the model on WikiText-2 raw (``stabkit.mlm``)."""
    from stabkit import masking, mlm

    return mlm.perplexity(mlm.masked_lm(str(model)), masking.wikitext(str(model), file))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--text", type=Path, nargs="+", required=True, help="plain text, .xz or .gz, UTF-8")
    add("--held-out", type=Path, required=True, help="text that the model is scored on")
    add("--out", type=Path, required=True, help="folder for tokens, checkpoint and model")
    add("--about", default="not told", help="what the text is and its licence, for the card")
    add("--wikitext", type=Path, help="WikiText-2 raw test, whose perplexity goes into the card")
    add("--name", default=NAME, help="of the model (%(default)s)")
    add("--tokens", type=float, default=TOKENS, help="to be seen, all in all (%(default)g)")
    add("--layers", type=int, default=24, help="at the end (%(default)s)")
    add("--hidden", type=int, default=160, help="a multiple of 32 (%(default)s)")
    add("--vocabulary", type=int, default=16_384, help="pieces (%(default)s)")
    add("--batch-size", type=int, default=256, help="rows of 128 tokens (%(default)s)")
    add("--learning-rate", type=float, default=1e-3, help="peak (%(default)s)")
    add("--seed", type=int, default=0)
    add("--device", help="cpu or cuda (the GPU where there is one)")
    add("--precision", choices=("fp32", "bf16"), help="of the products (bf16 where it is native)")
    add("--compile", action="store_true", help="let torch.compile join the small operations")
    add("--threads", type=int, default=1, help="of the processor (%(default)s)")
    add("--save-every", type=int, default=SAVE_EVERY, help="steps (%(default)s)")
    return parser


if __name__ == "__main__":
    main()
