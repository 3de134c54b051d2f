"""Tiny encoders with the organism's tokenizer, and tiny data files, for tests that really train."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerFast

from stabkit.config import RunConfig
from stabkit.mini import anatomy
from stabkit.mini.tasks import splits
from stabkit.results import RunResult
from stabkit.train import run

CPU = torch.device("cpu")
ARCHITECTURES = ("bert", "roberta", "albert")
_FOLDER = TemporaryDirectory(prefix="stabkit-tiny-")
NO_DROPOUT: dict[str, Any] = dict.fromkeys(
    ("hidden_dropout", "attention_dropout", "classifier_dropout"), 0.0
)
_LABELS = ("yes", "no", "maybe")


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Return the organism's tokenizer."""
    specials = dict(zip(("pad", "unk", "cls", "sep", "mask"), anatomy.SPECIALS, strict=True))
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=anatomy.build_tokenizer(),
        model_max_length=128,
        **{f"{name}_token": token for name, token in specials.items()},
    )


@cache
def model(architecture: str = "bert") -> str:
    """Return the folder of a model in Hugging Face layout; it lasts until Python ends."""
    return save(Path(_FOLDER.name, architecture), architecture)


def save(folder: Path, architecture: str = "bert") -> str:
    """Save a 2-layer, 32-wide encoder with its language-model head and tokenizer."""
    words = tokenizer()
    sizes: dict[str, Any] = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 130,
        "pad_token_id": 0,
        "initializer_range": 0.2,  # so that attention is far from even
    }
    torch.manual_seed(0)
    encoder: transformers.PreTrainedModel
    if architecture == "bert":
        encoder = transformers.BertForPreTraining(transformers.BertConfig(**sizes))
    elif architecture == "albert":
        encoder = transformers.AlbertForPreTraining(
            transformers.AlbertConfig(embedding_size=16, **sizes)
        )
    else:
        encoder = transformers.RobertaForMaskedLM(
            transformers.RobertaConfig(type_vocab_size=1, **sizes)
        )
    encoder.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


@cache
def data(train: int = 40, dev: int = 24, labels: int = 2) -> tuple[str, str]:
    """Return a training and a dev file with pairs of the RTE-like task and balanced labels."""
    folder = Path(_FOLDER.name, f"data-{train}-{dev}-{labels}")
    folder.mkdir()
    pairs = splits("mini-rte")[:2]
    files = [folder / "train.csv", folder / "dev.csv"]
    for path, split, size in zip(files, pairs, (train, dev), strict=True):
        with path.open("w", encoding="utf-8", newline="") as file:
            rows, texts = csv.writer(file), (split.texts_a, split.texts_b or ())
            rows.writerow(["sentence1", "sentence2", "label"])
            for i in range(size):
                rows.writerow([*(text[i] for text in texts), _LABELS[i % labels]])
    return str(files[0]), str(files[1])


def config(architecture: str = "bert", **changes: Any) -> RunConfig:
    """Return a configuration on the tiny model and data: 5 steps of 8 pairs."""
    train, dev = data()
    base = RunConfig(
        model=model(architecture),
        task=train,
        dev_file=dev,
        epochs=1,
        batch_size=8,
        learning_rate=1e-3,
    )
    return base.replace(**changes)


def train(config: RunConfig, executor: str = "fast") -> RunResult:
    """Run on the CPU, also where there is a GPU."""
    return run(config, executor=executor, device=CPU)  # type: ignore[arg-type]
