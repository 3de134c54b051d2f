"""Every setting of a run in words: what each field of ``RunConfig`` decides, group by group."""

from __future__ import annotations

import textwrap
from dataclasses import fields

from stabkit.config import CHOICES, RunConfig
from stabkit.report import WIDTH, plain

GROUPS: dict[str, dict[str, str]] = {
    "Model and data": {
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
        "seed": "sets those of the three seeds below that you do not set",
        "head_seed": "draws the new weights: the head, and the pooler if it is new",
        "order_seed": "draws the order of the training examples",
        "dropout_seed": "draws the masks of dropout and Mixout",
    },
    "Length and size": {
        "epochs": "passes over the training set",
        "max_steps": "steps instead of epochs; the rate falls to 0 over them",
        "train_size": "use only this many training examples, drawn once (Fig. 3)",
        "subset_seed": "draws these examples; the same for all seeds of a comparison",
        "batch_size": "examples per step",
        "max_length": "tokens after which a text or pair is cut",
    },
    "Optimizer": {
        "learning_rate": "peak of the learning rate, after warmup",
        "warmup": "share of the steps over which the rate rises from 0; then it falls to 0",
        "zero_first_update": "the first update has rate 0, as in the released code",
        "multiplier": (
            "a control of section 5.1: the rate is multiplied, or divided, by the factor hidden in "
            "a missing bias correction"
        ),
        "beta1": "decay of Adam's mean of gradients",
        "beta2": "decay of Adam's mean of squared gradients",
        "eps": "added to the root of the mean of squared gradients",
        "eps_placement": (
            "before: eps is added to the uncorrected root (the paper's equations); after: to the "
            "bias-corrected root (torch)"
        ),
        "bias_correction": "Adam's means are corrected for having started at 0",
        "weight_decay": "decoupled; biases and layer norms are exempt",
        "decay_after_step": "weights decay after the update (the released code), else before it",
        "clip_norm": "gradients are clipped to this global L2 norm; none: no clipping",
    },
    "Model": {
        "hidden_dropout": "dropout of embeddings and of every sublayer's output",
        "attention_dropout": "dropout of attention weights",
        "classifier_dropout": "dropout before the head's output",
        "init_std": "standard deviation of new weights; new biases are 0",
        "segments": (
            "tells the model which text is which (segment ids), as in BERT's pre-training; the "
            "released code does not, the presets do for the mini models"
        ),
        "pooler": "pretrained: kept, if the model has one (RoBERTa has none); new: drawn anew",
        "pooler_dropout": "dropout before RoBERTa's dense head layer too, as in transformers",
        "mixout": "share of weights swapped for their pre-trained values at each use (Lee)",
        "mixout_mask": "drawn for each input of a matrix (Lee's code), or for each element",
        "mixout_rescale_gradient": "use Mixout's true gradient; Lee's code leaves out 1/(1-p)",
    },
    "Numerics and records": {
        "precision": "number format of the arithmetic; weights and optimizer stay in fp32",
        "evals_per_epoch": "dev set evaluations per epoch, evenly spaced; 0: one, at the end",
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
    note = "Defaults are in brackets. Presets and model families set others: stabkit presets."
    return "\n\n".join([*blocks, note])


def _line(name: str, meaning: str) -> str:
    width = max(map(len, MEANINGS)) + 2
    usual = f" [{default(name)}]" if default(name) else ""
    line = f"  {name:<{width}}{meaning}{usual}"
    return textwrap.fill(line, WIDTH, subsequent_indent=" " * (width + 2), break_on_hyphens=False)
