"""Masked-LM text, perplexity and layer swap, against computations written out plainly."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from stabkit import masking, mlm, models
from stabkit.errors import ConfigError, DataError, ModelError
from stabkit.masking import IGNORED, MaskedText, Rows, held_out_text, hide, prepare, wikitext
from stabkit.mini import pretrain
from stabkit.mini.anatomy import PLANS
from stabkit.mini.corpus import books
from stabkit.mlm import layer_swap, masked_lm, perplexity
from stabkit.sources import DATA_VARIABLE
from stabkit.train import trained_model

SWAPPABLE = ("bert", "roberta")
SENTENCES = [text for scene in next(books(3)) for text in scene]
REAL = Path(os.environ.get(DATA_VARIABLE) or "nowhere", masking.WIKITEXT, "test.txt")


def finetuned(architecture: str = "bert", **changes: Any) -> PreTrainedModel:
    config = tiny.config(architecture, epochs=2, learning_rate=3e-3, **changes)
    return trained_model(config, device=tiny.CPU)


def short_text(count: int = 12, **options: Any) -> MaskedText:
    return prepare(SENTENCES[:count], tiny.tokenizer(), max_length=24, **options)


def text_for(architecture: str) -> MaskedText:
    """Return rows of uneven lengths, of two segments where the model knows them."""
    text = held_out_text(tiny.model(architecture), blocks=1)
    segments = None if text.segments is None else text.segments[::4]
    return MaskedText(text.input_ids[::4], text.attention_mask[::4], segments, text.targets[::4])


def plain_nll(model: Any, text: MaskedText) -> float:
    """Return the mean negative log-likelihood, row by row without padding, in float64."""
    model, found = deepcopy(model).double().eval(), []
    for row, targets in enumerate(text.targets):
        length = int(text.attention_mask[row].sum())
        inputs = {"input_ids": text.input_ids[row : row + 1, :length]}
        if text.segments is not None:
            inputs["token_type_ids"] = text.segments[row : row + 1, :length]
        with torch.no_grad():
            shares = model(**inputs).logits[0].log_softmax(-1)
        places = (targets != IGNORED).nonzero().squeeze(1)
        found += [-float(shares[place, targets[place]]) for place in places]
    return sum(found) / len(found)


def plain_swap(tuned: PreTrainedModel, architecture: str, k: int, embeddings: bool) -> Any:
    """Return the pre-trained masked LM with copies of the fine-tuned parts below the top k."""
    model: Any = masked_lm(tiny.model(architecture))
    source: Any = tuned.base_model
    layers = model.base_model.encoder.layer
    for i in range(len(layers) - k):
        layers[i].load_state_dict(source.encoder.layer[i].state_dict())
    if not embeddings:
        model.base_model.embeddings = deepcopy(source.embeddings)
    return model


# --- layer swap ---------------------------------------------------------------------------------


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("architecture", SWAPPABLE)
def test_every_k_is_the_swap_written_out(architecture: str, embeddings: bool) -> None:
    tuned, text = finetuned(architecture), text_for(architecture)
    frame = layer_swap(tuned, tiny.model(architecture), text, embeddings)
    assert list(frame.columns) == ["k", "nll", "perplexity", "tokens"]
    assert frame["k"].tolist() == [0, 1, 2]
    assert frame["tokens"].tolist() == [text.tokens] * 3
    np.testing.assert_allclose(frame["perplexity"], np.exp(frame["nll"]), rtol=1e-12)
    expected = [plain_nll(plain_swap(tuned, architecture, k, embeddings), text) for k in range(3)]
    np.testing.assert_allclose(frame["nll"], expected, rtol=1e-5)
    assert np.abs(np.diff(expected)).min() > 1e-3  # so that the layers do differ


@pytest.mark.parametrize("architecture", SWAPPABLE)
def test_all_layers_and_the_embeddings_swapped_are_the_pre_trained_model(architecture: str) -> None:
    tuned, text = finetuned(architecture), text_for(architecture)
    untouched = perplexity(masked_lm(tiny.model(architecture)), text)
    frames = [layer_swap(tuned, tiny.model(architecture), text, e) for e in (True, False)]
    assert frames[0]["perplexity"].iloc[-1] == untouched
    assert frames[1]["perplexity"].iloc[-1] != untouched


def test_without_fine_tuning_every_swap_is_the_pre_trained_model() -> None:
    text = text_for("bert")
    same = models.build(tiny.config(), 2)
    found = [layer_swap(same, tiny.model(), text, embeddings) for embeddings in (False, True)]
    values = {perplexity(masked_lm(tiny.model()), text), *pd.concat(found)["perplexity"]}
    assert len(values) == 1


def test_the_decoder_stays_that_of_the_pre_trained_embeddings() -> None:
    tuned, text = finetuned(), short_text()
    words = tuned.get_input_embeddings().weight
    with torch.no_grad():
        words += 1.0
    frame = layer_swap(tuned, tiny.model(), text)
    moved = plain_swap(tuned, "bert", 0, embeddings=False)
    assert not torch.equal(moved.get_output_embeddings().weight, words)
    assert frame["nll"].iloc[0] == pytest.approx(plain_nll(moved, text), rel=1e-5)


def test_every_k_sees_the_same_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    measure = mlm._nll

    def spy(model: PreTrainedModel, batch: dict[str, Tensor], targets: Tensor) -> float:
        seen.append((batch["input_ids"], targets))
        return measure(model, batch, targets)

    monkeypatch.setattr(mlm, "_nll", spy)
    text = text_for("bert")
    layer_swap(finetuned(), tiny.model(), text)
    batches = list(text.batches(tiny.CPU))
    assert len(batches) == 2
    assert len(seen) == 3 * len(batches)
    for i, (shown, targets) in enumerate(seen):
        expected, asked = batches[i // 3]
        assert torch.equal(shown, expected["input_ids"])
        assert torch.equal(targets, asked)


def test_lower_layers_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Depth 2: two fine-tuned layers, and of the pre-trained ones 1 for k = 1 and 2 for k = 2."""
    layer = transformers.models.bert.modeling_bert.BertLayer
    compute, calls = layer.forward, []

    def counting(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls.append(self)
        return compute(self, *args, **kwargs)

    monkeypatch.setattr(layer, "forward", counting)
    layer_swap(finetuned(), tiny.model(), short_text())
    assert len(calls) == 2 + 1 + 2


def state(model: PreTrainedModel) -> dict[str, Any]:
    """Return a copy of all that a swap might touch, module by module."""
    return {
        "weights": {name: weight.clone() for name, weight in model.state_dict().items()},
        "gradients": [(p.requires_grad, p.grad, id(p)) for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "own": [sorted(vars(module)) for module in model.modules()],
    }


def same_state(one: dict[str, Any], two: dict[str, Any]) -> bool:
    weights = one["weights"].keys() == two["weights"].keys() and all(
        torch.equal(weight, two["weights"][name]) for name, weight in one["weights"].items()
    )
    return weights and all(one[name] == two[name] for name in one if name != "weights")


def unusual(model: PreTrainedModel) -> PreTrainedModel:
    """Put a model into a state that is worth keeping: half in training, partly frozen."""
    model.train()
    model.base_model.get_submodule("encoder.layer.1").eval()
    for parameter in model.base_model.get_submodule("encoder.layer.0").parameters():
        parameter.requires_grad_(False)
    return model


@pytest.mark.parametrize("architecture", SWAPPABLE)
def test_the_model_comes_back_untouched(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = unusual(finetuned(architecture)), text_for(architecture)
    before = state(model)
    first = layer_swap(model, tiny.model(architecture), text)
    assert same_state(before, state(model))
    assert layer_swap(model, tiny.model(architecture), text).equals(first)
    calls: list[int] = []

    def failing(*_: Any) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return 0.0

    monkeypatch.setattr(mlm, "_nll", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        layer_swap(model, tiny.model(architecture), text)
    assert same_state(before, state(model))


def test_a_diverged_model_has_no_perplexity_and_no_error() -> None:
    diverged = finetuned()
    with torch.no_grad():
        diverged.base_model.get_parameter("encoder.layer.1.output.dense.bias").fill_(math.nan)
    frame = layer_swap(diverged, tiny.model(), short_text())
    assert math.isnan(frame["perplexity"].iloc[0])
    assert np.isfinite(frame["perplexity"].iloc[1:]).all()
    assert mlm._perplexity(1e4) == math.inf


def test_half_precision_weights_are_swapped_in_full() -> None:
    tuned, text = finetuned(), short_text()
    half = layer_swap(deepcopy(tuned).bfloat16(), tiny.model(), text)
    full = layer_swap(tuned, tiny.model(), text)
    np.testing.assert_allclose(half["nll"], full["nll"], rtol=0.02)
    assert half["nll"].iloc[0] != full["nll"].iloc[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_swap_is_made_where_the_model_is() -> None:
    tuned, text = finetuned(), text_for("bert")
    here = layer_swap(tuned, tiny.model(), text)
    there = layer_swap(deepcopy(tuned).to("cuda"), tiny.model(), text)  # type: ignore[arg-type]
    np.testing.assert_allclose(there["nll"], here["nll"], rtol=1e-3)


# --- what is refused ----------------------------------------------------------------------------


def test_shared_layers_are_refused_with_what_a_swap_would_mean() -> None:
    model = models.build(tiny.config("albert"), 2)
    with pytest.raises(ModelError, match=r"1 set\(s\) of weights 2 times.* would replace all"):
        layer_swap(model, tiny.model("albert"), short_text())


def test_albert_has_a_perplexity() -> None:
    model, text = masked_lm(tiny.model("albert")), text_for("albert")
    assert text.segments is not None
    assert math.log(perplexity(model, text)) == pytest.approx(plain_nll(model, text), rel=1e-5)


def test_a_model_without_the_head_is_refused(tmp_path: Path) -> None:
    classifier = finetuned()
    classifier.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"has no masked-LM head: it lacks cls\.predictions\.bias"):
        layer_swap(classifier, str(tmp_path), short_text())


def test_no_model_no_masked_lm(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown shipped model 'mini-bart'"):
        masked_lm("mini-bart")
    tiny.save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="no masked LM can be made of"):
        masked_lm(str(tmp_path))


def test_another_depth_is_refused() -> None:
    settings = transformers.AutoConfig.from_pretrained(tiny.model(), num_hidden_layers=3)
    deeper = transformers.BertForSequenceClassification(settings)
    with pytest.raises(ModelError, match=r"has 3 layers, .* 2; expected the model from which"):
        layer_swap(deeper, tiny.model(), short_text())


def test_another_architecture_is_refused() -> None:
    with pytest.raises(ModelError, match=r"the fine-tuned model is a bert, .* a roberta; expected"):
        layer_swap(models.build(tiny.config(), 2), tiny.model("roberta"), short_text())


def test_another_width_is_refused() -> None:
    settings = transformers.AutoConfig.from_pretrained(tiny.model(), intermediate_size=48)
    other = transformers.BertForSequenceClassification(settings)
    with pytest.raises(ModelError, match=r"another shape: encoder\.layer\.0\.intermediate\.dense"):
        layer_swap(other, tiny.model(), short_text())


def test_an_encoder_without_a_list_of_layers_is_refused() -> None:
    model = models.build(tiny.config(), 2)
    model.base_model.encoder = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(ModelError, match="BertModel has no list of 2 layers to swap"):
        layer_swap(model, tiny.model(), short_text())


def test_text_of_another_vocabulary_is_refused() -> None:
    text, model = short_text(), masked_lm(tiny.model())
    for name in ("input_ids", "targets"):
        values = {**vars(text), name: getattr(text, name).clone()}
        values[name][0, 3] = 9999
        with pytest.raises(ModelError, match=r"the token id 9999, BertForMaskedLM knows \d+;"):
            perplexity(model, MaskedText(**values))


# --- perplexity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", SWAPPABLE)
def test_perplexity_is_that_of_the_hidden_tokens(architecture: str) -> None:
    model, text = masked_lm(tiny.model(architecture)), text_for(architecture)
    assert math.log(perplexity(model, text)) == pytest.approx(plain_nll(model, text), rel=1e-5)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity() -> None:
    model = masked_lm(tiny.model())
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert perplexity(model, short_text()) == pytest.approx(len(tiny.tokenizer()), rel=1e-5)


def test_perplexity_leaves_the_model_as_it_was() -> None:
    model, text = unusual(masked_lm(tiny.model())), short_text()
    before = state(model)
    assert perplexity(model, text) == perplexity(masked_lm(tiny.model()), text)
    assert same_state(before, state(model))
    layer: Any = model.base_model.get_submodule("encoder.layer.1")
    layer.forward = lambda *_, **__: 1 / 0
    before = state(model)
    with pytest.raises(ZeroDivisionError):
        perplexity(model, text)
    assert same_state(before, state(model))


@pytest.mark.parametrize("architecture", SWAPPABLE)
def test_pseudo_perplexity_is_a_loop_over_the_tokens(architecture: str) -> None:
    words, model = tiny.tokenizer(), masked_lm(tiny.model(architecture))
    text = short_text(4, rate=None)
    inputs = words(" ".join(SENTENCES[:4]), add_special_tokens=False)["input_ids"]
    losses = []
    for start in range(0, len(inputs), 22):
        window = [words.cls_token_id, *inputs[start : start + 22], words.sep_token_id]
        for place in range(1, len(window) - 1):
            shown = torch.tensor([window])
            shown[0, place] = words.mask_token_id
            with torch.no_grad():
                logits = model(input_ids=shown).logits[0, place]
            losses.append(nn.functional.cross_entropy(logits, torch.tensor(window[place])).item())
    assert text.tokens == len(losses) == len(inputs)
    assert perplexity(model, text) == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)


# --- text and masks -----------------------------------------------------------------------------


def true_ids(text: MaskedText) -> Tensor:
    return torch.where(text.targets == IGNORED, text.input_ids, text.targets)


def test_windows_hold_the_whole_stream_in_order() -> None:
    words, text = tiny.tokenizer(), short_text()
    stream = words(" ".join(SENTENCES[:12]), add_special_tokens=False)["input_ids"]
    assert len(stream) % 22  # so that the last window is shorter
    rows = [
        row[:length].tolist()
        for row, length in zip(true_ids(text), text.attention_mask.sum(1), strict=True)
    ]
    assert [len(row) for row in rows] == [24] * (len(stream) // 22) + [len(stream) % 22 + 2]
    assert all((row[0], row[-1]) == (words.cls_token_id, words.sep_token_id) for row in rows)
    assert [token for row in rows for token in row[1:-1]] == stream
    assert text.segments is None
    first = short_text(limit=2)
    assert torch.equal(true_ids(first), true_ids(text)[:2])


def test_tokens_are_hidden_as_devlin_et_al_do() -> None:
    words = tiny.tokenizer()
    text = held_out_text(tiny.model(), blocks=2)
    again = held_out_text(tiny.model(), blocks=2)
    other = held_out_text(tiny.model(), blocks=2, seed=1)
    for name in ("input_ids", "targets", "segments", "attention_mask"):
        assert torch.equal(getattr(text, name), getattr(again, name))
    assert torch.equal(true_ids(text), true_ids(other))
    assert not torch.equal(text.targets, other.targets)
    hidden = text.targets != IGNORED
    special = torch.isin(true_ids(text), torch.tensor(words.all_special_ids))
    assert not (hidden & special).any()
    assert text.tokens / int((~special).sum()) == pytest.approx(0.15, abs=0.01)
    shown, truth = text.input_ids[hidden], text.targets[hidden]
    assert (shown == words.mask_token_id).float().mean() == pytest.approx(0.8, abs=0.03)
    assert (shown == truth).float().mean() == pytest.approx(0.1, abs=0.03)
    replaced = shown[(shown != words.mask_token_id) & (shown != truth)]
    assert len(replaced.unique()) > 50
    assert not torch.isin(replaced, torch.tensor(words.all_special_ids)).any()


def test_unknown_words_are_never_hidden() -> None:
    text = prepare([f"{SENTENCES[0]} xylophone"], tiny.tokenizer(), rate=None)
    assert tiny.tokenizer().unk_token_id in text.input_ids
    assert tiny.tokenizer().unk_token_id not in text.targets


def test_batches_hold_each_row_with_a_hidden_token_once_shortest_first() -> None:
    text = text_for("bert")
    assert len(text.input_ids) > masking.BATCH
    text.targets[5] = IGNORED
    batches = list(text.batches(tiny.CPU))
    assert sum(int((targets != IGNORED).sum()) for _, targets in batches) == text.tokens
    asked = (text.targets != IGNORED).any(1)
    assert sum(len(targets) for _, targets in batches) == int(asked.sum()) < len(text.targets)
    lengths = torch.cat([batch["attention_mask"].sum(1) for batch, _ in batches])
    assert torch.equal(lengths, text.attention_mask.sum(1)[asked].sort().values)
    for batch, targets in batches:
        assert batch["input_ids"].shape == targets.shape == batch["token_type_ids"].shape
        assert bool(batch["attention_mask"].any(0)[-1])


def test_held_out_rows_look_like_those_of_pre_training() -> None:
    """Two segments for BERT, no segment ids for RoBERTa, other wrong rows for ALBERT."""
    bert, roberta, albert = (held_out_text(tiny.model(a), blocks=1) for a in tiny.ARCHITECTURES)
    assert len(bert.input_ids) == len(roberta.input_ids) == len(albert.input_ids) == 256
    assert bert.segments is not None
    assert bert.segments.any(1).float().mean() > 0.9
    assert roberta.segments is None
    assert torch.equal(true_ids(bert), true_ids(roberta))
    assert not torch.equal(true_ids(bert), true_ids(albert)[:, : bert.input_ids.shape[1]])


def test_held_out_rows_do_not_depend_on_what_was_tokenised_before() -> None:
    before = held_out_text(tiny.model(), blocks=1)
    tokenizer = models.load_tokenizer(tiny.model())
    tokenizer(SENTENCES, padding="max_length", truncation=True, max_length=12)
    after = held_out_text(tiny.model(), blocks=1)
    assert torch.equal(before.input_ids, after.input_ids)


@pytest.mark.parametrize("texts", [[], [""], [" \n", "\t"]], ids=repr)
def test_empty_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(DataError, match="the text is empty; expected at least one line"):
        prepare(texts, tiny.tokenizer())


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: short_text(rate=1e-9), r"no token is hidden: \d+ could be, at the rate 1e-09"),
        (lambda: prepare(["xylophone"], tiny.tokenizer(), None), "no token is hidden: 0 could be"),
        (lambda: held_out_text(tiny.model(), rate=1e-9, blocks=1), "no token is hidden"),
    ],
)
def test_text_in_which_nothing_is_hidden_is_refused(
    use: Callable[[], MaskedText], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        use()


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, math.nan])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match=f"the mask rate is {rate}; expected a share"):
        short_text(rate=rate)


@pytest.mark.parametrize("length", [2, 129])
def test_a_length_that_the_model_does_not_take_is_refused(length: int) -> None:
    with pytest.raises(ConfigError, match=f"max_length is {length}; expected 3 to 128"):
        prepare(SENTENCES, tiny.tokenizer(), max_length=length)


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    plain = transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tiny.tokenizer().backend_tokenizer, pad_token="[PAD]"
    )
    rows = Rows(torch.full((1, 3), 9), torch.ones(1, 3), None)
    with pytest.raises(ModelError, match="has no mask token; expected that of a model which"):
        hide(rows, plain)


def test_held_out_text_is_for_models_of_the_organism(tmp_path: Path) -> None:
    tiny.save(tmp_path)
    words = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "the"])}
    tokenizer = tiny.tokenizer().backend_tokenizer.__class__(
        tiny.tokenizer().backend_tokenizer.model.__class__(words, unk_token="<unk>")
    )
    transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, mask_token="<mask>"
    ).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"does not read the organism's language; .*wikitext"):
        held_out_text(str(tmp_path))


# --- WikiText-2 ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data folder with a WikiText-2 of our own, known to the environment."""
    place = tmp_path / "data" / "wikitext-2-raw"
    place.mkdir(parents=True)
    lines = [f" {text} \n" for text in SENTENCES[:12]]
    (place / "test.txt").write_text(" \n = dogs = \n \n" + "".join(lines), encoding="utf-8")
    (place / "valid.txt").write_text("".join(lines[:3]), encoding="utf-8")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    return place


def test_wikitext_is_read_from_the_data_folder_a_file_or_the_hub(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def hub(*args: Any, **kwargs: Any) -> dict[str, list[str]]:
        asked.append((*args, kwargs["split"]))
        return {"text": (folder / "valid.txt").read_text().splitlines()}

    monkeypatch.setattr(datasets, "load_dataset", hub)
    expected = prepare(["= dogs =", *SENTENCES[:12]], tiny.tokenizer())
    here = wikitext(tiny.model())
    assert torch.equal(here.input_ids, expected.input_ids)
    assert torch.equal(here.targets, expected.targets)
    valid = wikitext(tiny.model(), split="valid")
    assert torch.equal(true_ids(valid), true_ids(prepare(SENTENCES[:3], tiny.tokenizer())))
    named = wikitext(tiny.model(), folder / "valid.txt")
    assert torch.equal(named.input_ids, valid.input_ids)
    assert not asked
    monkeypatch.delenv(DATA_VARIABLE)
    fetched = wikitext(tiny.model(), split="valid")
    assert torch.equal(fetched.input_ids, valid.input_ids)
    assert asked == [("Salesforce/wikitext", "wikitext-2-raw-v1", "validation")]


def test_wikitext_that_cannot_be_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="unknown split 'tset': did you mean 'test'"):
        wikitext(tiny.model(), split="tset")
    with pytest.raises(DataError, match=r"none\.txt cannot be read: No such file"):
        wikitext(tiny.model(), folder / "none.txt")
    (folder / "test.txt").write_bytes(b"caf\xe9 ")
    with pytest.raises(DataError, match=r"test\.txt is not UTF-8 \(byte 3\)"):
        wikitext(tiny.model())

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    (folder / "test.txt").unlink()
    with pytest.raises(DataError, match=r"offline\. To read a local copy, .*wikitext-2-raw/test"):
        wikitext(tiny.model())


@pytest.mark.skipif(not REAL.is_file(), reason=f"{DATA_VARIABLE} names no folder with WikiText-2")
def test_the_real_wikitext_is_read_whole() -> None:
    text = wikitext(tiny.model())
    assert int(text.attention_mask.sum()) - 2 * len(text.input_ids) == 241_211  # its words
    few = wikitext(tiny.model(), limit=8)
    assert torch.equal(true_ids(few), true_ids(text)[:8])
    assert len(layer_swap(finetuned(), tiny.model(), few)) == 3


def test_wikitext_is_cut_and_hidden_as_asked(folder: Path) -> None:
    options: dict[str, Any] = {"rate": 0.5, "seed": 3, "max_length": 16, "limit": 2}
    lines, words = ["= dogs =", *SENTENCES[:12]], tiny.tokenizer()
    found, expected = wikitext(tiny.model(), **options), prepare(lines, words, **options)
    assert torch.equal(found.input_ids, expected.input_ids)
    assert torch.equal(found.targets, expected.targets)
    other = prepare(lines, words, **(options | {"seed": 4}))
    assert torch.equal(true_ids(other), true_ids(found))
    assert not torch.equal(other.targets, found.targets)


def test_held_out_blocks_are_new_ones_that_no_pre_training_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn, draw = list[tuple[int, int]](), masking.block

    def noted(words: Any, seed: int, number: int, *more: Any) -> Any:
        drawn.append((seed, number))
        return draw(words, seed, number, *more)

    monkeypatch.setattr(masking, "block", noted)
    held_out_text(tiny.model(), blocks=3)
    trained_on = {pretrain.CORPUS_SEED + plan.seed for plan in PLANS.values()}
    assert [number for _, number in drawn] == [0, 1, 2]
    assert trained_on.isdisjoint(seed for seed, _ in drawn)


def test_tokens_masked_in_turn_keep_their_row_s_segments_and_rate_1_hides_all() -> None:
    whole = text_for("bert")
    assert whole.segments is not None
    rows = Rows(true_ids(whole)[:3], whole.attention_mask[:3], whole.segments[:3])
    text = hide(rows, tiny.tokenizer(), None)
    special = torch.isin(rows.input_ids, torch.tensor(tiny.tokenizer().all_special_ids))
    owner = torch.arange(3).repeat_interleave((~special).sum(1))
    assert torch.equal(true_ids(text), rows.input_ids[owner])
    assert text.segments is not None and rows.segments is not None
    assert torch.equal(text.segments, rows.segments[owner])
    assert torch.equal(text.attention_mask, rows.attention_mask[owner])
    assert hide(rows, tiny.tokenizer(), 1.0).tokens == text.tokens


@pytest.mark.parametrize("name", ["input_ids", "targets"])
def test_the_first_id_beyond_the_vocabulary_is_refused(name: str) -> None:
    text, model = short_text(), masked_lm(tiny.model())
    values = {**vars(text), name: getattr(text, name).clone()}
    values[name][0, 3] = model.config.vocab_size
    with pytest.raises(ModelError, match="the text has the token id"):
        perplexity(model, MaskedText(**values))


def test_a_tokenizer_that_cuts_no_windows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["<cls>", "<pad>", "<eos>", "<unk>", *"LAGV", "<mask>"]))
    words = transformers.EsmTokenizer(str(path), model_max_length=128)
    with pytest.raises(ModelError, match="cannot cut a text into windows; expected a fast one"):
        prepare(["L A G V " * 40], words, max_length=16)
