"""Every setting of a run in words: what each field of ``RunConfig`` decides, group by group."""

from __future__ import annotations

import textwrap
from dataclasses import fields

from stabkit.config import CHOICES, RunConfig
from stabkit.report import WIDTH, plain

GROUPS: dict[str, dict[str, str]] = {
    "What is trained on what": {
        "model": "a mini model, a folder in Hugging Face layout, or a name on the hub",
        "task": "a task's name, or your own csv, tsv, jsonl or parquet",
        "dev_file": "your own dev set; without it a fifth of your file is held out",
        "text_columns": "the one or two columns of your file that hold the texts",
        "label_column": "the column of your file that holds the labels",
        "weights": "digest of the model's weights, filled in when the run is pinned",
        "tokenizer": "digest of its tokenizer, likewise",
        "data": "digest of the texts and labels, likewise",
    },
    "Randomness": {
        "seed": "sets the three seeds below where they are not set themselves",
        "head_seed": "of the weights that are new: the head, and a new pooler",
        "order_seed": "of the order of the training examples",
        "dropout_seed": "of dropout and Mixout",
    },
    "How long, on how much": {
        "epochs": "passes over the training set",
        "max_steps": "steps instead of epochs; the rate falls to 0 over them",
        "train_size": "so many training examples only, drawn once (Fig. 3)",
        "subset_seed": "draws these; the same for all seeds of a comparison",
        "batch_size": "examples a step",
        "max_length": "tokens after which a text or pair is cut",
    },
    "Optimizer": {
        "learning_rate": "at its peak, after warmup",
        "warmup": "share of the steps over which the rate rises from 0; then it falls to 0",
        "zero_first_update": "the first update has rate 0, as in the released code",
        "multiplier": (
            "a control of section 5.1: the rate times, or divided by, what a missing bias "
            "correction multiplies it by in secret"
        ),
        "beta1": "decay of Adam's mean of gradients",
        "beta2": "decay of Adam's mean of squared gradients",
        "eps": "added to the root of these",
        "eps_placement": (
            "before: to the root as it is (the paper's equations); after: to the corrected root "
            "(torch)"
        ),
        "bias_correction": "Adam's means are corrected for having started at 0",
        "weight_decay": "decoupled; not of biases and layer norms",
        "decay_after_step": "weights decay after the update (the released code), else before it",
        "clip_norm": "gradients are clipped to this global L2 norm; none: they are not",
    },
    "Model": {
        "hidden_dropout": "of embeddings and of every sublayer's output",
        "attention_dropout": "of attention's weights",
        "classifier_dropout": "before the head's output",
        "init_std": "standard deviation of new weights; new biases are 0",
        "segments": (
            "the model is told which text is which (segment ids), as BERT was in pre-training; the "
            "released code does not, the presets do for the mini models"
        ),
        "pooler": "pretrained: kept, where the model has one; new: drawn anew (RoBERTa has none)",
        "pooler_dropout": "RoBERTa's head drops out before its dense layer too, as in transformers",
        "mixout": "share of weights put back to their pre-trained values at each use (Lee)",
        "mixout_mask": "drawn for each input of a matrix (Lee's code), or for each element",
        "mixout_rescale_gradient": "its gradient is the true one; Lee's code leaves out 1/(1-p)",
    },
    "Numerics and records": {
        "precision": "of the arithmetic; weights and optimizer stay in fp32",
        "evals_per_epoch": "looks at the dev set in each epoch, evenly spread; 0: one, at the end",
    },
}
MEANINGS = {name: meaning for group in GROUPS.values() for name, meaning in group.items()}
_DEFAULTS = {field.name: field.default for field in fields(RunConfig)}


def default(name: str) -> str:
    """Return a setting's default as one would write it, "" where it is no value of its own.

    Where there is a list to choose from, the rest of it stands beside the default.
    """
    value, others = _DEFAULTS[name], [x for x in CHOICES.get(name, ()) if x != _DEFAULTS[name]]
    if value is None or value in ("", ()):
        return ""
    return f"{plain(value)}; or {', '.join(others)}" if others else plain(value)


def text() -> str:
    """Return all settings with their meanings and defaults, as text for a terminal."""
    blocks = [
        "\n".join([title, *(_line(name, meaning) for name, meaning in group.items())])
        for title, group in GROUPS.items()
    ]
    note = "In brackets the default. Presets and model families set others: stabkit presets."
    return "\n\n".join([*blocks, note])


def _line(name: str, meaning: str) -> str:
    width = max(map(len, MEANINGS)) + 2
    usual = f" [{default(name)}]" if default(name) else ""
    line = f"  {name:<{width}}{meaning}{usual}"
    return textwrap.fill(line, WIDTH, subsequent_indent=" " * (width + 2), break_on_hyphens=False)
