"""The model card that is shipped beside each model of the organism, written from its training."""

from __future__ import annotations

from dataclasses import asdict

from stabkit.mini.anatomy import Plan

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
