"""The model cards that are shipped beside the models, written from their training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from stabkit.mini.anatomy import Plan
from stabkit.mini.loop import Training

_TEXT = """\
# {name}

A {layers}-layer, {hidden}-wide encoder of the {architecture} architecture (post-LayerNorm, {heads}
heads), pre-trained by `stabkit.mini.pretrain` on a generated English. It is a model organism for
studying why fine-tuning fails for some seeds; it knows no real language and is of no other use.

- **Data**: the endless, seeded corpus of `stabkit.mini.corpus`; no real text. Free of rights of
  others; the weights are under the project's licence.
- **Objectives**: masked words; sentence level: {objective}.
- **Training**: {steps} steps of {batch_size} rows, AdamW (0.9, 0.98), decay 0.01, clipping at
  1.0, {precision} products, fp32 weights; stored as fp16.
- **Depth**: where it grows from phase to phase, the layers are stacked copies (Gong et al. 2019).
- **Loading**: `from_pretrained(FOLDER, dtype=torch.float32)`; left as fp16, it cannot be trained.
- **Make it again**: `python -m stabkit.mini.pretrain {name} --out FOLDER`.

| phase | layers | steps | learning rate | sentences said twice | words hidden in | dropout |
|---|---|---|---|---|---|---|
{phases}

Held-out losses (nats, evaluation mode), on rows of the phase that the next step belongs to, so
that the last step of a phase is scored on rows it was not trained for:

| step | words | sentence |
|---|---|---|
{losses}

Whether the organism built on it passes its gate is said, with numbers, on the book's page "What the
organism can and cannot say".
"""


def card(name: str, plan: Plan, log: list[dict[str, float]]) -> str:
    """Return the model card of a finished (or stopped) pre-training as markdown."""
    phases = "\n".join(
        f"| {i} | {p.layers} | {p.steps} | {p.start:g} to {p.end:g} | {p.echo:.0%} | "
        f"{'second segment' if p.second_only else 'both segments'} | {p.dropout} |"
        for i, p in enumerate(plan.phases, 1)
    )
    losses = "\n".join(
        f"| {entry['step']} | {entry['words']:.3f} | "
        f"{format(entry['sentence'], '.3f') if 'sentence' in entry else ''} |"
        for entry in log
    )
    facts = asdict(plan) | {"steps": plan.steps, "layers": plan.layers}
    return _TEXT.format(name=name, **facts | {"phases": phases, "losses": losses})


_TEXT_CARD = """\
# {name}

A {layers}-layer, {hidden}-wide encoder of the BERT architecture (post-LayerNorm, {heads} heads,
{parameters:,} parameters), pre-trained by `stabkit.mini.wiki` on real text: as deep as BERT-large
and small enough to be fine-tuned on a laptop. It is made for studying why fine-tuning fails for
some seeds; it knows little and says what its text says, so use it for nothing else.

- **Data**: {about} Files: {files}; {stream:,} tokens.
- **Vocabulary**: WordPiece, uncased, {vocabulary:,} pieces, trained on the same text.
- **Rows**: 128 tokens, two segments, never padded (`stabkit.mini.windows`).
- **Objectives**: masked words ({mask_rate:.0%}; 80 % shown as the mask, 10 % as another, 10 % as
  they are) and next sentences (half of the rows have another's).
- **Training**: {steps:,} steps of {batch_size} rows, {seen:,} tokens ({epochs:.1f} passes), AdamW
  (0.9, 0.98), decay 0.01, clipping at 1.0, {precision} products, fp32 weights; stored as fp16.
- **Depth**: where it grows from phase to phase, the layers are stacked copies (Gong et al. 2019).
- **WikiText-2 (raw, test)**: {perplexity}.
- **Loading**: `from_pretrained(FOLDER, dtype=torch.float32)`; left as fp16, it cannot be trained.
- **Make it again**: `python -m stabkit.mini.wiki --text FILE --held-out FILE --out FOLDER`.

| phase | layers | steps | learning rate | dropout |
|---|---|---|---|---|
{phases}

Losses on held-out text (nats, evaluation mode) and the perplexity of its hidden words:

| step | words | perplexity | sentence |
|---|---|---|---|
{losses}
"""


def text_card(
    training: Training,
    name: str,
    about: str,
    texts: Sequence[Path],
    perplexity: float | None = None,
) -> str:
    """Return the model card of a pre-training on real text as markdown.

    ``about`` says what the text is and its licence, ``perplexity`` is that on WikiText-2 raw test.
    """
    plan, stream = training.plan, len(training.source.text)  # type: ignore[attr-defined]
    seen = training.step * plan.batch_size * 128
    phases = "\n".join(
        f"| {i} | {p.layers} | {p.steps} | {p.start:g} to {p.end:g} | {p.dropout} |"
        for i, p in enumerate(plan.phases, 1)
    )
    losses = "\n".join(
        f"| {entry['step']} | {entry['words']:.3f} | {math.exp(entry['words']):.1f} | "
        f"{entry['sentence']:.3f} |"
        for entry in training.log
    )
    facts = asdict(plan) | {
        "steps": training.step,
        "layers": training.model.config.num_hidden_layers,
        "parameters": sum(x.numel() for x in training.model.parameters()),
        "files": ", ".join(path.name for path in texts),
        "precision": training.machine.precision,
        "perplexity": "not measured" if perplexity is None else f"perplexity {perplexity:.1f}",
    }
    return _TEXT_CARD.format(
        name=name,
        about=about,
        stream=stream,
        seen=seen,
        epochs=seen / stream,
        **facts | {"phases": phases, "losses": losses},
    )
