"""Models: where they come from, their digests, and a fresh classifier on top of them.

A name is a model of the organism (``mini-bert``, ...), a folder in Hugging Face layout, or a hub
id. What is new in a classifier (the head, a missing pooler) is drawn from the run's head seed and
nothing else.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.roberta.modeling_roberta import RobertaClassificationHead
from transformers.utils import logging
from transformers.utils.hub import cached_file

from stabkit.config import RunConfig
from stabkit.errors import ModelError, nearest
from stabkit.files import Stamp, digest, stamp
from stabkit.presets import REAL_TEXT

MINI_WEIGHTS = Path(__file__).parent / "mini" / "weights"
WEIGHT_FILES = (  # transformers loads the first that there is; an index names further files
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
)
FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
DROPOUTS = {  # what families call them
    "hidden_dropout": (
        *("hidden_dropout_prob", "dropout"),
        *("mlp_dropout", "embedding_dropout"),  # ModernBERT
    ),
    "attention_dropout": ("attention_probs_dropout_prob", "attention_dropout"),
    "classifier_dropout": (
        *("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout"),
        "cls_dropout",  # DeBERTa, which knows it though its settings may lack it
    ),
}


def mini_models() -> list[str]:
    """Return the names of the shipped models."""
    return sorted(path.parent.name for path in MINI_WEIGHTS.glob("*/config.json"))


def locate(model: str) -> str:
    """Return the folder of a shipped or local model, or the hub id as it is.

    Raises ModelError for a mini model that does not exist and for a folder without a model.
    """
    if model.startswith("mini-"):
        if not (MINI_WEIGHTS / model / "config.json").exists():
            raise ModelError(_not_shipped(model))
        return str(MINI_WEIGHTS / model)
    path = Path(model).expanduser()
    if path.is_dir() and not (path / "config.json").exists():
        raise ModelError(
            f"{path} has no config.json; expected a model folder in Hugging Face layout "
            "(config.json, model.safetensors, tokenizer files)"
        )
    if not path.is_dir() and (path.is_absolute() or model.startswith((".", "~"))):
        raise ModelError(f"no folder {path}; expected a model folder or a hub id")
    return str(path) if path.is_dir() else model


def _not_shipped(model: str) -> str:
    if model == REAL_TEXT:
        return f"{model} is not shipped yet: python -m stabkit.mini.wiki makes it of any text"
    return f"unknown shipped model {model!r}: {nearest(model, mini_models())}"


def digests(model: str) -> tuple[str, str]:
    """Return the sha256 digests of a model's weights (with its configuration) and tokenizer.

    Files are read once, and again when they change. Raises ModelError when there are none.
    """
    place = locate(model)
    return _digests(place, stamp(place))


@lru_cache
def _digests(place: str, _stamp: Stamp) -> tuple[str, str]:
    weights = digest([_settings_file(place), *_weight_files(place)])
    tokenizer = _files(place, TOKENIZER_FILES)
    if not tokenizer:
        raise ModelError(f"{place} has no tokenizer; expected one of {', '.join(TOKENIZER_FILES)}")
    return weights, digest([*tokenizer, *_files(place, TOKENIZER_SETTINGS)])


def _files(place: str, names: tuple[str, ...]) -> list[Path]:
    """Return the files among ``names`` that a folder has, or a hub id (its cache; or fetched)."""
    found = []
    for name in names:
        try:
            found.append(cached_file(place, name, _raise_exceptions_for_missing_entries=False))
        except Exception as error:  # of the hub's client, its transport, or this disk
            raise ModelError(f"{name} of {place} cannot be had: {error}") from error
    return [Path(path) for path in found if path is not None]


def _settings_file(place: str) -> Path:
    try:
        found, reason = _files(place, ("config.json",)), "nor does its cache have it"
    except ModelError as error:
        found, reason = [], str(error)
    if not found:
        raise ModelError(
            f"no model {place!r}: no folder of that name, and the hub did not give it ({reason}). "
            f"Give a folder in Hugging Face layout or one of the shipped models: "
            f"{', '.join(mini_models())}"
        )
    return found[0]


def _weight_files(place: str) -> list[Path]:
    first = next((file for name in WEIGHT_FILES for file in _files(place, (name,))), None)
    if first is None:
        raise ModelError(f"{place} has no weights; expected one of {', '.join(WEIGHT_FILES)}")
    if first.suffix != ".json":
        return [first]
    shards = tuple(sorted(set(json.loads(first.read_text("utf-8"))["weight_map"].values())))
    files = _files(place, shards)
    if len(files) < len(shards):
        raise ModelError(f"{place} has {len(files)} of the {len(shards)} files of {first.name}")
    return [first, *files]


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer, the same object while its files are the same.

    Raises ModelError where there is none.
    """
    return _load_tokenizer(locate(model), digests(model)[1])


@lru_cache
def _load_tokenizer(place: str, _digest: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(place)
    except Exception as error:  # the tokenizers library raises nothing more special
        raise ModelError(f"the tokenizer of {place} cannot be read: {error}") from error


class Limits(NamedTuple):
    """What a model takes at most: ``tokens`` of a text, token ids below ``words`` (None: any)."""

    tokens: int
    words: int | None


def limits(model: str) -> Limits:
    """Return what a model takes: as much as its tokenizer says and it has embeddings for.

    RoBERTa's family counts positions from its padding id on; relative positions have no end.
    """
    settings, told = AutoConfig.from_pretrained(locate(model)), load_tokenizer(model)
    words = getattr(settings, "vocab_size", None)
    places = getattr(settings, "max_position_embeddings", None)
    if places is None or getattr(settings, "relative_attention", False):
        return Limits(int(told.model_max_length), words)
    before = settings.pad_token_id + 1 if settings.model_type in FROM_PADDING else 0
    return Limits(int(min(told.model_max_length, places - before)), words)


def _settings(config: RunConfig, labels: int) -> Any:
    """Return the model's configuration with the run's dropouts and number of labels."""
    settings = AutoConfig.from_pretrained(locate(config.model), num_labels=labels)
    if settings.model_type.startswith("deberta"):
        settings.cls_dropout = None
    for field, names in DROPOUTS.items():
        known = [name for name in names if hasattr(settings, name)]
        for name in known:
            setattr(settings, name, getattr(config, field))
        if not known:
            message = f"{config.model} has no {field} of its own: the field changes nothing"
            warnings.warn(message, stacklevel=2)
    if settings.pad_token_id is None:
        settings.pad_token_id = load_tokenizer(config.model).pad_token_id
    if config.segments and getattr(settings, "type_vocab_size", 2) < 2:
        raise ModelError(f"{config.model} knows no segments; expected segments=False")
    return settings


def build(config: RunConfig, labels: int) -> PreTrainedModel:
    """Return a classifier with ``labels`` outputs, fp32, its new parts drawn from the head seed.

    New are the head, even if the checkpoint has one, all parameters that the checkpoint lacks, and
    the pooler if the run says so: weights N(0, init_std), biases 0 (section 7.3). Raises ModelError
    when no classifier can be made.
    """
    return Origin(config, labels).start(config)


class Origin:
    """A checkpoint as a classifier, read once: what runs of one shape start from, seed by seed."""

    def __init__(self, config: RunConfig, labels: int) -> None:
        """Read the checkpoint; raises as ``build``, which is this for a single run."""
        digests(config.model)
        self.model, loaded = _load(config, labels)
        named = dict(self.model.named_parameters())
        self._missing = named.keys() - loaded
        self._pooler = {name: p.detach().clone() for name, p in named.items() if "pooler" in name}
        if not config.pooler_dropout:
            _drop_only_before_output(self.model)

    @torch.no_grad()
    def start(self, config: RunConfig) -> PreTrainedModel:
        """Return the model as a run starts; it is one model, which the next call changes."""
        for name, kept in self._pooler.items():
            self.model.get_parameter(name).copy_(kept)
        new = self._missing | (self._pooler.keys() if config.pooler == "new" else set())
        _initialise(self.model, new, config)
        return self.model


def _load(config: RunConfig, labels: int) -> tuple[PreTrainedModel, set[str]]:
    """Return the classifier and the names of the encoder's parameters that the checkpoint has."""
    try:
        with quiet():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                locate(config.model),
                config=_settings(config, labels),
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"no classifier can be made of {config.model}: {error}") from error
    encoder = {
        f"{model.base_model_prefix}.{name}" for name, _ in model.base_model.named_parameters()
    }
    if misfits := sorted(encoder & {name for name, *_ in report["mismatched_keys"]}):
        raise ModelError(f"the weights of {config.model} do not fit its config.json: {misfits}")
    return model, encoder - set(report["missing_keys"])


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from reporting each loading: that parts are new is meant here."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _initialise(model: nn.Module, new: set[str], config: RunConfig) -> None:
    generator = torch.Generator().manual_seed(_seed(config.head_seed))
    for name, parameter in model.named_parameters():
        if name in new and parameter.ndim > 1:
            parameter.normal_(0.0, config.init_std, generator=generator)
        elif name in new and name.endswith("bias"):
            parameter.zero_()


def _seed(seed: int | None) -> int:
    assert seed is not None, "RunConfig resolves its seeds"
    return seed


class _OneDropoutHead(RobertaClassificationHead):
    """RoBERTa's head as in the paper's code: no dropout before its dense layer."""

    def forward(self, features: Tensor, **kwargs: Any) -> Tensor:
        """Return the logits (batch x labels) of features (batch x length x hidden)."""
        pooled = torch.tanh(self.dense(features[:, 0, :]))
        return self.out_proj(self.dropout(pooled))  # type: ignore[no-any-return]


def _drop_only_before_output(model: nn.Module) -> None:
    for module in model.modules():
        if type(module) is RobertaClassificationHead:
            module.__class__ = _OneDropoutHead
