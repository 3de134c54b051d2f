"""What is timed, and where: architectures with random weights, texts with the tasks' lengths.

The time of a step depends on neither weights nor words, so both are drawn at random and nothing is
fetched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BATCH, LONGEST = 16, 128


def here() -> str:
    """Return what a table was measured on, with what, and when: the head of its first line."""
    import torch

    from stabkit.records import hardware

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cores = f"{os.cpu_count()} cores"
    return f"{hardware(device)}, {cores}, torch {torch.__version__}, {time.strftime('%F')}"


@dataclass(frozen=True)
class Lengths:
    """Tokens an example: log-normal, cut to ``shortest`` and LONGEST.

    Fitted to two facts of each task under its tokenizer: the mean, and the mean of the longest of
    16, to which a batch is padded (tests/test_benchmarks.py holds them).
    """

    mu: float
    sigma: float
    shortest: int

    def draw(self, examples: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the lengths of so many examples."""
        normal = np.random.default_rng(seed).standard_normal(examples)
        lengths = np.round(np.exp(self.mu + self.sigma * normal))
        return np.clip(lengths, self.shortest, LONGEST).astype(np.int64)


LENGTHS = {
    "RTE": Lengths(4.0598, 0.7314, 20),
    "MRPC": Lengths(3.9506, 0.2148, 15),
    "CoLA": Lengths(2.3565, 0.3681, 4),
    "mini-RTE": Lengths(3.0808, 0.1421, 8),
}

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}


def _bert_large() -> Any:
    from transformers import BertConfig

    return BertConfig(**LARGE)


def _roberta_large() -> Any:
    from transformers import RobertaConfig

    return RobertaConfig(
        vocab_size=50265,
        **LARGE,
        max_position_embeddings=514,
        type_vocab_size=1,
    )


def _albert_large() -> Any:
    from transformers import AlbertConfig

    return AlbertConfig(
        embedding_size=128,
        **LARGE,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )


def _mini() -> Any:
    from transformers import AutoConfig

    from stabkit.models import MINI_WEIGHTS

    return AutoConfig.from_pretrained(MINI_WEIGHTS / "mini-bert")


@dataclass(frozen=True)
class Workload:
    """A model, the lengths of a task's texts, and the steps of one run of 3 epochs on it."""

    model: Callable[[], Any]
    task: str
    steps_of_a_run: int

    def save(self, folder: Path) -> None:
        """Write the model with random weights in Hugging Face layout, which has a tokenizer."""
        from tokenizers import Tokenizer, models
        from transformers import AutoModelForSequenceClassification

        Tokenizer(models.WordLevel({"[UNK]": 0}, "[UNK]")).save(str(folder / "tokenizer.json"))
        AutoModelForSequenceClassification.from_config(self.model()).save_pretrained(folder)

    def rows(self, steps: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return token ids (examples x LONGEST) and lengths for so many steps."""
        lengths = LENGTHS[self.task].draw(BATCH * steps)
        words = self.model().vocab_size
        ids = np.random.default_rng(1).integers(5, words, (len(lengths), LONGEST))
        return np.where(np.arange(LONGEST) < lengths[:, None], ids, 0), lengths


WORKLOADS = {
    "mini, mini-RTE": Workload(_mini, "mini-RTE", 468),
    "BERT-large, RTE": Workload(_bert_large, "RTE", 468),
    "BERT-large, MRPC": Workload(_bert_large, "MRPC", 690),
    "BERT-large, CoLA": Workload(_bert_large, "CoLA", 1605),
    "RoBERTa-large, RTE": Workload(_roberta_large, "RTE", 468),
    "ALBERT-large, RTE": Workload(_albert_large, "RTE", 468),
}
