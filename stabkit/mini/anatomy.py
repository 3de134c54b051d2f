"""The organism's anatomy: training plans, the one tokenizer, the three architectures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers.models.roberta.modeling_roberta import RobertaClassificationHead

from stabkit.mini.corpus import books
from stabkit.mini.rows import Objective

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MAX_POSITIONS = 128
# BERT-large starts from N(0, 0.02) at width 1,024: unit inputs come out of a layer at 0.64. A
# narrow model starts at the same scale, not at the same number, or its attention wakes up late.
BERT_LARGE_SCALE = 0.02 * 1024**0.5
# ALBERT's layers share their weights, all of them or in groups (Lan et al. 2020, section 4.5). One
# set for all, at width 64, filled gaps from the other sentence and yet hardly fitted a task.
ALBERT_GROUPS = 4
_LAYER = re.compile(r"\.layer\.(\d+)\.")


@dataclass(frozen=True)
class Phase:
    """A stretch of training at one depth; the learning rate falls from ``start`` to ``end``.

    ``echo`` is the share of rows in which a sentence is said twice. With ``second_only`` words are
    hidden (at twice the rate) in the second segment alone.
    """

    layers: int
    steps: int
    start: float
    end: float
    echo: float
    second_only: bool
    dropout: float

    def rate(self, step: int) -> float:
        """Return the learning rate of a step of this phase, with a short warmup."""
        share = step / self.steps
        return (self.start + share * (self.end - self.start)) * min(1.0, (step + 1) / 200)


class Anatomy:
    """What every plan says: a model's shape, and phases of training that deepen it."""

    architecture: str
    phases: tuple[Any, ...]  # each has layers, steps, dropout and the rate(step) of its own steps
    hidden: int
    heads: int
    batch_size: int
    mask_rate: float
    seed: int

    @property
    def layers(self) -> int:
        """Depth of the finished model."""
        return int(self.phases[-1].layers)

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase(self, step: int) -> tuple[Any, int]:
        """Return the phase of a step and the step's number within it."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        return self.phases[-1], self.phases[-1].steps


@dataclass(frozen=True)
class Plan(Anatomy):
    """How one model of the organism is made."""

    architecture: str
    objective: Objective
    phases: tuple[Phase, ...]
    hidden: int = 64
    heads: int = 2
    batch_size: int = 64
    mask_rate: float = 0.15
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"  # of the products; weights are always fp32


SHALLOW = (
    Phase(4, 800, 1e-3, 1e-3, echo=1.0, second_only=True, dropout=0.0),
    Phase(4, 8000, 1e-3, 4e-4, echo=0.15, second_only=True, dropout=0.0),
    Phase(4, 3000, 4e-4, 1e-5, echo=0.1, second_only=False, dropout=0.0),
)
DEEP = (
    *SHALLOW,
    Phase(12, 3000, 6e-4, 4e-4, echo=0.1, second_only=True, dropout=0.0),
    Phase(12, 5000, 4e-4, 1e-5, echo=0.1, second_only=False, dropout=0.1),
)
PLANS = {
    "mini-bert": Plan("bert", "next sentence", DEEP, precision="bf16"),
    # RoBERTa itself learns words alone, without segments. In trials such an encoder did not learn
    # at this size to compare sentences, with BERT's sentence-level task but no segments hardly. So
    # it has both, and what it learned the task with is thrown away. As RoBERTa was, it is trained
    # for longer than BERT: after as many steps 20 epochs did not fit the RTE-like task closely.
    "mini-roberta": Plan(
        "roberta",
        "next sentence",
        (*DEEP[:-1], replace(DEEP[-1], steps=10_000)),
        precision="bf16",
    ),
    # ALBERT tells a segment's order alone. So trained, and with one set of weights, it hardly
    # fitted the RTE-like task; StructBERT's task asks for ALBERT's answer and for BERT's.
    "mini-albert": Plan("albert", "sentence structure", DEEP),
    "mini-bert-shallow": Plan(
        "bert",
        "next sentence",
        (*SHALLOW, replace(DEEP[-1], layers=4, steps=3000)),
        precision="bf16",
    ),
}


def vocabulary(sample: int = 4000) -> list[str]:
    """Return the special tokens and all words that the corpus uses, in a fixed order."""
    stream, words = books(seed=1), set[str]()
    for _ in range(sample):
        words.update(word for scene in next(stream) for text in scene for word in text.split())
    return SPECIALS + sorted(words)


def build_tokenizer() -> Tokenizer:
    """Return the organism's one tokenizer: whole words, BERT's two-segment layout."""
    words = {word: i for i, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"])
    )
    return tokenizer


def build_model(
    plan: Anatomy, words: int, layers: int | None = None
) -> transformers.PreTrainedModel:
    """Return a new model, ``layers`` deep or as the plan ends, with its pre-training heads."""
    dropout = plan.phases[-1].dropout
    common: dict[str, Any] = {
        "vocab_size": words,
        "hidden_size": plan.hidden,
        "num_hidden_layers": layers or plan.layers,
        "num_attention_heads": plan.heads,
        "intermediate_size": 4 * plan.hidden,
        "max_position_embeddings": MAX_POSITIONS,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "pad_token_id": 0,
        "initializer_range": BERT_LARGE_SCALE / plan.hidden**0.5,
    }
    torch.manual_seed(plan.seed)
    if plan.architecture == "bert":
        return transformers.BertForPreTraining(transformers.BertConfig(**common))
    if plan.architecture == "albert":
        common |= {"embedding_size": plan.hidden, "classifier_dropout_prob": dropout}
        common |= {"num_hidden_groups": ALBERT_GROUPS}
        model: Any = transformers.AlbertForPreTraining(transformers.AlbertConfig(**common))
        del model.sop_classifier  # two answers, where three are asked for
        return _with_head(model, nn.Linear(plan.hidden, 3))
    # RoBERTa counts positions from the padding id on; segments it has here as BERT has.
    common |= {"max_position_embeddings": MAX_POSITIONS + 1, "type_vocab_size": 2}
    model = transformers.RobertaForMaskedLM(transformers.RobertaConfig(**common))
    return _with_head(model, RobertaClassificationHead(model.config))  # type: ignore[no-untyped-call]


def _with_head(model: Any, head: nn.Module) -> transformers.PreTrainedModel:
    """Return ``model`` with a head for sentences that no class of transformers has a place for."""
    model.sentence = head.apply(model._init_weights)
    return model  # type: ignore[no-any-return]


def stacked(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return the weights of a model ``layers`` deep: copies of its layers, one set on another.

    A deep model grown from a shallow one learns in a fraction of the time (Gong et al. 2019). What
    shares its layers (ALBERT) has nothing to copy.
    """
    found = [match for name in weights if (match := _LAYER.search(name))]
    depth = 1 + max((int(match[1]) for match in found), default=layers - 1)
    grown = dict(weights)
    for name in [match.string for match in found]:
        for i in range(depth, layers):
            if int(_LAYER.search(name)[1]) == i % depth:  # type: ignore[index]
                grown[_LAYER.sub(f".layer.{i}.", name)] = weights[name].clone()
    return grown


@torch.no_grad()
def start_positions(model: nn.Module, scale: float) -> None:
    """Start the learned position embeddings from sinusoids, so that offsets are linear at once."""
    for name, table in model.named_parameters():
        if "position_embeddings" in name:
            count, width = table.shape
            rates = torch.exp(-torch.arange(0, width, 2) * (math.log(1e4) / width))
            angles = torch.arange(count)[:, None] * rates
            table[:, 0::2], table[:, 1::2] = scale * angles.sin(), scale * angles.cos()


def parts(model: Any, plan: Anatomy) -> tuple[nn.Module, nn.Module, Callable[[Any], Tensor]]:
    """Return the encoder, the masked-LM head, and what tells sentences by the encoder's output."""
    if plan.architecture == "bert":
        return model.bert, model.cls.predictions, _pooled(model.cls.seq_relationship)
    if plan.architecture == "albert":
        return model.albert, model.predictions, _pooled(model.sentence)
    return model.roberta, model.lm_head, lambda output: model.sentence(output.last_hidden_state)


def _pooled(head: nn.Module) -> Callable[[Any], Tensor]:
    return lambda output: head(output.pooler_output)


def published(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Return ``model`` without the head for sentences of ``build_model``; BERT keeps its own."""
    if hasattr(model, "sentence"):
        del model.sentence
    return model
