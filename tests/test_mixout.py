"""Mixout's definition, its limits and gradient, and its use on Hugging Face models."""

import copy

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from stabkit.errors import ConfigError, ModelError
from stabkit.mixout import Mixout, apply_mixout, plain_name, remove_mixout

SIZES = {
    "vocab_size": 13,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 20,
}
FAMILIES = {
    "bert": (BertForSequenceClassification, BertConfig, {}),
    "roberta": (RobertaForSequenceClassification, RobertaConfig, {}),
    "albert": (
        AlbertForSequenceClassification,
        AlbertConfig,
        {"embedding_size": 4, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    ),
}
TOKENS = torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(family="bert"):
    torch.manual_seed(0)
    model_class, config_class, extra = FAMILIES[family]
    return model_class(config_class(**SIZES, **extra)).train()


def pair(dtype=torch.float64, shape=(3, 5)):
    """A pre-trained weight and where fine-tuning has moved it."""
    pretrained = torch.randn(shape, dtype=dtype, generator=seeded(1))
    return pretrained, pretrained + torch.randn(shape, dtype=dtype, generator=seeded(2))


def move(model):
    """Stand in for training: shift every weight."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)


@pytest.mark.parametrize("mask", ["column", "element"])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_mixed_weight_is_that_of_the_paper(p, mask):
    pretrained, weight = pair()
    mixed = Mixout(pretrained, p, seeded(), mask)(weight)
    shape = (1, 5) if mask == "column" else (3, 5)
    m = 1 - torch.empty(shape, dtype=torch.float64).bernoulli_(1 - p, generator=seeded())
    expected = (m * pretrained + (1 - m) * weight - p * pretrained) / (1 - p)
    torch.testing.assert_close(mixed, expected, rtol=1e-13, atol=1e-13)


def test_p_zero_is_the_identity():
    pretrained, weight = pair()
    generator = seeded()
    assert torch.equal(Mixout(pretrained, 0.0, generator)(weight), weight)
    assert torch.equal(generator.get_state(), seeded().get_state())


@pytest.mark.parametrize("rescale", [True, False])
def test_p_one_is_the_pretrained_weight_and_has_no_gradient(rescale):
    pretrained, weight = pair()
    weight.requires_grad_()
    mixed = Mixout(pretrained, 1.0, seeded(), rescale_gradient=rescale)(weight)
    assert torch.equal(mixed, pretrained)
    mixed.sum().backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))


@pytest.mark.parametrize("mask", ["column", "element"])
def test_expectation_is_the_plain_weight(mask):
    pretrained, weight = pair()
    mixout = Mixout(pretrained, 0.7, seeded(), mask)
    draws = torch.stack([mixout(weight) for _ in range(4000)])
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - weight).abs() < 4.5 * error).all()


def test_evaluation_mode_gives_the_plain_weight():
    pretrained, weight = pair()
    assert torch.equal(Mixout(pretrained, 0.9, seeded()).eval()(weight), weight)


def test_column_mask_is_shared_by_all_output_rows():
    pretrained, weight = pair(shape=(6, 40))
    column = Mixout(pretrained, 0.5, seeded(), "column")(weight) == pretrained
    element = Mixout(pretrained, 0.5, seeded(), "element")(weight) == pretrained
    assert (column == column[0]).all()
    assert 0 < column[0].sum() < 40
    assert not (element == element[0]).all()
    assert 0.3 < element.double().mean() < 0.7


@pytest.mark.parametrize("mask", ["column", "element"])
def test_gradient_is_the_derivative(mask):
    pretrained, weight = pair()
    x = torch.randn(4, 5, dtype=torch.float64, generator=seeded(3))

    def output(w):
        return x @ Mixout(pretrained, 0.6, seeded(), mask)(w).T

    assert torch.autograd.gradcheck(output, weight.requires_grad_())


def test_gradient_of_the_reference_code_lacks_the_factor():
    pretrained, weight = pair()
    gradients = []
    for rescale in (True, False):
        leaf = weight.clone().requires_grad_()
        Mixout(pretrained, 0.5, seeded(), rescale_gradient=rescale)(leaf).sum().backward()
        gradients.append(leaf.grad)
    assert set(gradients[0].unique().tolist()) == {0.0, 2.0}
    assert torch.equal(gradients[1], (gradients[0] > 0).double())


@pytest.mark.parametrize("family", FAMILIES)
def test_trains_every_linear_of_a_model_and_switches_dropout_off(family):
    model = tiny(family)
    before = dict(model.named_parameters())
    apply_mixout(model, 0.5, seeded())
    assert {plain_name(n): id(p) for n, p in model.named_parameters()} == {
        n: id(p) for n, p in before.items()
    }
    assert all(m.p == 0 for m in model.modules() if isinstance(m, nn.Dropout))
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert all(isinstance(m.parametrizations.weight[0], Mixout) for m in linears)
    model(TOKENS, labels=torch.tensor([0, 1])).loss.backward()
    assert all(m.parametrizations.weight.original.grad is not None for m in linears)


@pytest.mark.parametrize("family", FAMILIES)
def test_generator_alone_decides_the_masks(family):
    def losses(seed):
        model = apply_mixout(tiny(family), 0.5, seeded(seed))
        move(model)
        torch.manual_seed(seed + 99)
        return [model(TOKENS, labels=torch.tensor([0, 1])).loss.item() for _ in range(3)]

    assert losses(0) == losses(0)
    assert len(set(losses(0))) == 3
    assert losses(0) != losses(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_evaluation_is_that_of_the_plain_model(family):
    plain = tiny(family)
    mixed = apply_mixout(copy.deepcopy(plain), 0.9, seeded())
    for model in (plain, mixed):
        move(model)
        model.eval()
    assert torch.equal(plain(TOKENS).logits, mixed(TOKENS).logits)


def test_shared_layers_are_mixed_once_and_drawn_at_each_use():
    model = apply_mixout(tiny("albert"), 0.5, seeded())
    draws = []
    query = model.albert.encoder.albert_layer_groups[0].albert_layers[0].attention.query
    query.parametrizations.weight[0].register_forward_hook(lambda _m, _i, out: draws.append(out))
    move(model)
    model(TOKENS)
    assert len(draws) == SIZES["num_hidden_layers"]
    assert not torch.equal(draws[0], draws[1])


def test_removal_gives_back_a_plain_model(tmp_path):
    model = apply_mixout(tiny(), 0.9, seeded())
    move(model)
    logits = model.eval()(TOKENS).logits
    parameters = {plain_name(n): id(p) for n, p in model.named_parameters()}
    remove_mixout(model)
    assert set(model.state_dict()) == set(tiny().state_dict())
    assert {n: id(p) for n, p in model.named_parameters()} == parameters
    model.save_pretrained(tmp_path)
    loaded = BertForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.eval()(TOKENS).logits, logits)


def test_state_dict_of_a_mixed_model_has_no_pretrained_copies():
    model = apply_mixout(tiny(), 0.9, seeded())
    assert {plain_name(n) for n in model.state_dict()} == set(tiny().state_dict())


def test_skipped_modules_are_left_alone():
    skip = ("*.intermediate.dense", "classifier", "dropout")
    model = apply_mixout(tiny(), 0.9, seeded(), skip=skip)
    plain = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not hasattr(module, "parametrizations")
    }
    assert plain == {"classifier"} | {
        f"bert.encoder.layer.{k}.intermediate.dense" for k in range(2)
    }
    assert model.dropout.p == 0.1
    assert model.bert.embeddings.dropout.p == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, "probability from 0 to 1"),
        ({"p": 0.5, "mask": "colum"}, "did you mean 'column'"),
        ({"p": 0.5, "generator": "meta"}, "make it with torch.Generator"),
    ],
)
def test_bad_options_are_refused(options, message):
    class Elsewhere:
        device = torch.device("cuda")

    generator = Elsewhere() if "generator" in options else seeded()
    with pytest.raises(ConfigError, match=message):
        apply_mixout(tiny(), **{**options, "generator": generator})


def test_models_that_cannot_be_mixed_are_refused():
    model = apply_mixout(tiny(), 0.5, seeded())
    with pytest.raises(ModelError, match="already"):
        apply_mixout(model, 0.5, seeded())
    with pytest.raises(ModelError, match=r"no nn\.Linear"):
        apply_mixout(nn.Sequential(nn.Dropout(0.1)), 0.5, seeded())


def test_gradient_of_the_reference_code_lacks_the_factor_at_any_rate():
    pretrained, weight = pair()
    leaf = weight.clone().requires_grad_()
    Mixout(pretrained, 0.3, seeded(), rescale_gradient=False)(leaf).sum().backward()
    assert leaf.grad.unique().tolist() == pytest.approx([0.0, 1.0])
