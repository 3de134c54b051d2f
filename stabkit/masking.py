"""Text for masked language models: rows of tokens, some of them hidden, prepared once.

The masks are part of the text: every model and every layer swap (``stabkit.mlm``) that is given the
same text is asked for the same tokens in the same places. Models of one tokenizer can be compared,
others not: their perplexities count different tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedTokenizerBase

from stabkit import models
from stabkit.errors import ConfigError, DataError, ModelError, nearest
from stabkit.mini.anatomy import PLANS, SPECIALS
from stabkit.mini.pretrain import HELD_OUT_SEED
from stabkit.mini.rows import BLOCK, block
from stabkit.presets import is_organism
from stabkit.sources import DATA_VARIABLE

MASK_RATE = 0.15  # Devlin et al. (2019), as is how the hidden tokens are shown
AS_MASK, AS_ANOTHER = 0.8, 0.1
IGNORED = -100  # the target where nothing is asked; the one that torch's losses leave out
BATCH = 32
WIKITEXT, WIKITEXT_HUB = "wikitext-2-raw", ("Salesforce/wikitext", "wikitext-2-raw-v1")
SPLITS = {"test": "test", "valid": "validation"}  # as files and as the hub name them


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of tokens (rows x longest), padded on the right; no segments where a row has one."""

    input_ids: Tensor
    attention_mask: Tensor
    segments: Tensor | None


@dataclass(frozen=True, eq=False)
class MaskedText(Rows):
    """What a masked LM is shown, and in ``targets`` (rows x longest) what it is asked.

    Targets are the true ids of the hidden tokens, IGNORED elsewhere.
    """

    targets: Tensor

    @property
    def tokens(self) -> int:
        """How many tokens are asked for."""
        return int((self.targets != IGNORED).sum())

    def batches(self, device: torch.device) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Yield a model's arguments and the targets, shortest rows first so that little is padded.

        Rows in which nothing is asked are left out.
        """
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if self.segments is not None:
            inputs["token_type_ids"] = self.segments
        asked = (self.targets != IGNORED).any(1).nonzero().squeeze(1)
        lengths = self.attention_mask.sum(1)
        for rows in torch.split(asked[lengths[asked].argsort(stable=True)], BATCH):
            longest = int(lengths[rows].max())
            batch = {name: x[rows, :longest].to(device) for name, x in inputs.items()}
            yield batch, self.targets[rows, :longest].to(device)


def prepare(
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    rate: float | None = MASK_RATE,
    seed: int = 0,
    max_length: int = 128,
    limit: int | None = None,
) -> MaskedText:
    """Return texts as one stream of tokens, cut into windows, with the share ``rate`` hidden.

    A window is one segment of ``max_length`` tokens, special ones included; the last may be
    shorter, and only the first ``limit`` are kept. A hidden token is shown as the mask (80 %), as
    any other (10 %) or as it is (10 %). ``rate=None`` masks each token in turn, in a row that shows
    all others: the pseudo-perplexity of Salazar et al. (2020), which takes a row for every token.
    Special and unknown tokens are never hidden.

    Raises DataError where there is nothing to hide, ConfigError for a rate or length that cannot
    be, ModelError for a tokenizer without a mask or, in Python alone, without windows.
    """
    ids, attention = (part[:limit] for part in _windows(texts, tokenizer, max_length))
    return hide(Rows(ids, attention, None), tokenizer, rate, seed)


def _windows(texts: Iterable[str], tokenizer: Any, max_length: int) -> tuple[Tensor, Tensor]:
    """Return the token ids and the attention mask of all windows."""
    fixed = tokenizer.num_special_tokens_to_add()
    if not fixed < max_length <= tokenizer.model_max_length:
        raise ConfigError(
            f"max_length is {max_length}; expected {fixed + 1} to {tokenizer.model_max_length}, "
            "the special tokens and the longest text that the model takes"
        )
    if not tokenizer.is_fast:  # which would keep the first window alone, and say nothing
        raise ModelError(
            f"the tokenizer {type(tokenizer).__name__} cannot cut a text into windows; expected a "
            "fast one, as AutoTokenizer loads from tokenizer.json"
        )
    stream = " ".join(text.strip() for text in texts if text.strip())
    if not stream:
        raise DataError("the text is empty; expected at least one line that is not blank")
    windows = tokenizer(
        stream,
        truncation=True,
        max_length=max_length,
        return_overflowing_tokens=True,
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )
    return windows["input_ids"], windows["attention_mask"]


def hide(
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    rate: float | None = MASK_RATE,
    seed: int = 0,
) -> MaskedText:
    """Return rows with tokens hidden as ``prepare`` says; it raises as that does."""
    if rate is not None and not 0 < rate <= 1:
        raise ConfigError(f"the mask rate is {rate}; expected a share above 0 and up to 1, or None")
    if tokenizer.mask_token_id is None:
        raise ModelError(
            f"the tokenizer {type(tokenizer).__name__} has no mask token; expected that of a "
            "model which was pre-trained on masked words"
        )
    special = torch.tensor(tokenizer.all_special_ids)
    ordinary = ~torch.isin(rows.input_ids, special) & rows.attention_mask.bool()
    if rate is None:
        text = _in_turn(rows, ordinary, tokenizer)
    else:
        text = _at_random(rows, ordinary, tokenizer, rate, seed)
    if not text.tokens:
        raise DataError(
            f"no token is hidden: {int(ordinary.sum())} could be, at the rate {rate}; give more "
            "text or a higher rate"
        )
    return text


def _in_turn(rows: Rows, ordinary: Tensor, tokenizer: Any) -> MaskedText:
    row, place = ordinary.nonzero(as_tuple=True)
    copy, shown = torch.arange(len(row)), rows.input_ids[row]
    targets = torch.full_like(shown, IGNORED)
    targets[copy, place] = shown[copy, place]
    shown[copy, place] = tokenizer.mask_token_id
    segments = None if rows.segments is None else rows.segments[row]
    return MaskedText(shown, rows.attention_mask[row], segments, targets)


def _at_random(rows: Rows, ordinary: Tensor, tokenizer: Any, rate: float, seed: int) -> MaskedText:
    ids, generator = rows.input_ids, torch.Generator().manual_seed(seed)
    chosen = (torch.rand(ids.shape, generator=generator) < rate) & ordinary
    action = torch.rand(ids.shape, generator=generator)
    known, special = torch.arange(len(tokenizer)), torch.tensor(tokenizer.all_special_ids)
    words = known[~torch.isin(known, special)]
    others = words[torch.randint(len(words), ids.shape, generator=generator)]
    shown = ids.masked_fill(chosen & (action < AS_MASK), tokenizer.mask_token_id)
    shown = torch.where(chosen & (action >= 1 - AS_ANOTHER), others, shown)
    targets = ids.masked_fill(~chosen, IGNORED)
    return MaskedText(shown, rows.attention_mask, rows.segments, targets)


def held_out_text(
    model: str = "mini-bert", rate: float | None = MASK_RATE, seed: int = 0, blocks: int = 4
) -> MaskedText:
    """Return rows of the organism's corpus that no pre-training saw: 256 in each block.

    A row has two segments, in or out of place as in the pre-training of the model's architecture.
    ``model`` is a shipped one or a folder. Raises ModelError for a model that has not the
    organism's tokenizer, and as ``prepare`` does.
    """
    tokenizer = models.load_tokenizer(model)
    first = tokenizer.convert_ids_to_tokens(list(range(len(SPECIALS))))
    if first != SPECIALS or isinstance(_bare(tokenizer).model, WordPiece):
        raise ModelError(
            f"{model} does not read the organism's language; expected a model with its tokenizer "
            f"({', '.join(filter(is_organism, models.mini_models()))}). For real text there is "
            "wikitext"
        )
    settings = AutoConfig.from_pretrained(models.locate(model))
    plan = next((plan for plan in PLANS.values() if plan.architecture == settings.model_type), None)
    words = _bare(tokenizer)
    batches = [
        rows
        for number in range(blocks)
        for rows in block(words, HELD_OUT_SEED, number, plan.objective if plan else "none", BLOCK)
    ]
    ids = _stack([rows.input_ids for rows in batches])
    attention = _stack([rows.attention_mask for rows in batches])
    types = _stack([rows.token_type_ids for rows in batches])
    segments = types if getattr(settings, "type_vocab_size", 1) > 1 else None
    return hide(Rows(ids, attention, segments), tokenizer, rate, seed)


def _bare(tokenizer: Any) -> Tokenizer:
    """Return a copy without the padding and truncation that earlier calls have left in it."""
    words = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    words.no_padding()
    words.no_truncation()
    return words


def _stack(parts: list[Tensor]) -> Tensor:
    """Return the parts (rows x their longest) as one, padded with 0."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts])


def wikitext(
    model: str,
    file: Path | str | None = None,
    split: str = "test",
    rate: float | None = MASK_RATE,
    seed: int = 0,
    max_length: int = 128,
    limit: int | None = None,
) -> MaskedText:
    """Return WikiText-2 (raw), hidden and cut for a model's tokenizer as ``prepare`` says.

    Read from ``file`` (plain text, UTF-8), else from wikitext-2-raw/test.txt (or valid.txt) in the
    folder that the environment variable STABKIT_DATA names, else from the hub or its cache. Raises
    DataError where it cannot be read, and as ``prepare`` does.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}: {nearest(split, SPLITS)}")
    tokenizer = models.load_tokenizer(model)
    folder = os.environ.get(DATA_VARIABLE)
    here = Path(folder, WIKITEXT, f"{split}.txt") if folder else None
    if file is None and here is not None and here.is_file():
        file = here
    lines = _read_hub(split) if file is None else _read(Path(file).expanduser())
    return prepare(lines, tokenizer, rate, seed, max_length, limit)


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 (byte {error.start}); save it with that encoding"
        raise DataError(message) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; expected plain text") from error


def _read_hub(split: str) -> list[str]:
    try:
        return list(datasets.load_dataset(*WIKITEXT_HUB, split=SPLITS[split])["text"])
    except Exception as error:  # the hub client's, HTTP client's and cache's errors share no base
        raise DataError(
            f"{' '.join(WIKITEXT_HUB)} could not be loaded from the Hugging Face hub or its cache: "
            f"{error}. To read a local copy, name the file, or in {DATA_VARIABLE} a folder in "
            f"which {WIKITEXT}/{split}.txt lies"
        ) from error
