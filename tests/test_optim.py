"""AdamW's switches against a reference in float64 and against the paper's formula."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AlbertConfig, AlbertForSequenceClassification

from stabkit.errors import ConfigError
from stabkit.optim import AdamW, laid_out, parameter_groups
from stabkit.schedule import hidden_multiplier

KERNELS = ["fused", "foreach", "loop"]
SWITCHES = list(itertools.product([True, False], ["before", "after"], [True, False]))


def reference(weight, gradients, rates, betas, eps, decay, correct, placement, decay_after):
    """AdamW in plain float64 arithmetic, one equation a line."""
    m = v = np.zeros_like(weight)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        c1, c2 = (1 - betas[0] ** t, math.sqrt(1 - betas[1] ** t)) if correct else (1, 1)
        if placement == "before":
            update = c2 / c1 * m / (np.sqrt(v) + eps)
        else:
            update = (m / c1) / (np.sqrt(v) / c2 + eps)
        if not decay_after:
            weight = weight - lr * decay * weight
        weight = weight - lr * update
        if decay_after:
            weight = weight - lr * decay * weight
    return weight


def train(weight, gradients, rates, dtype, kernel="fused", **options):
    """Apply the gradients to two tensors cut from ``weight``; return them joined, as float64."""
    parameters = [nn.Parameter(torch.tensor(part, dtype=dtype)) for part in np.split(weight, 2)]
    optimizer = AdamW(parameters, lr=1.0, fused=kernel == "fused", **options)
    optimizer.param_groups[0]["foreach"] = kernel == "foreach"
    for gradient, rate in zip(gradients, rates, strict=True):
        update(optimizer, gradient, rate)
    return np.concatenate([p.detach().double().numpy() for p in parameters])


def update(optimizer, gradient, rate):
    group = optimizer.param_groups[0]
    group["lr"] = rate
    for parameter, part in zip(group["params"], np.split(gradient, 2), strict=True):
        parameter.grad = torch.tensor(part, dtype=parameter.dtype)
    optimizer.step()


def problem(steps=40, scale=1e-5):
    """Weights of size 1 and gradients near eps, where the placement matters most."""
    random = np.random.default_rng(0)
    rates = 1e-2 * np.linspace(1, 0.1, steps)
    return random.normal(size=(6, 5)), scale * random.normal(size=(steps, 6, 5)), rates


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 3e-6)])
@pytest.mark.parametrize(("correct", "placement", "decay_after"), SWITCHES)
def test_agrees_with_the_reference(dtype, tolerance, kernel, correct, placement, decay_after):
    weight, gradients, rates = problem()
    expected = reference(
        weight, gradients, rates, (0.9, 0.999), 1e-6, 0.1, correct, placement, decay_after
    )
    got = train(
        weight,
        gradients,
        rates,
        dtype,
        eps=1e-6,
        weight_decay=0.1,
        bias_correction=correct,
        eps_placement=placement,
        decay_after_step=decay_after,
        kernel=kernel,
    )
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


def test_torch_defaults_are_plain_adamw():
    weight, gradients, rates = problem()
    options = {"eps": 1e-6, "weight_decay": 0.1}
    ours = train(
        weight,
        gradients,
        rates,
        torch.float32,
        eps_placement="after",
        decay_after_step=False,
        **options,
    )
    parts = [nn.Parameter(torch.tensor(w, dtype=torch.float32)) for w in np.split(weight, 2)]
    theirs = torch.optim.AdamW(parts, fused=True, **options)
    for gradient, rate in zip(gradients, rates, strict=True):
        update(theirs, gradient, rate)
    np.testing.assert_array_equal(ours, torch.cat(parts).detach().double().numpy())


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_late_start_leaves_no_trace_of_the_correction(kernel):
    """First update without correction: lr * 0.1 g / (sqrt(0.001) |g| + eps)."""
    gradient = np.full((2, 1), 1e-3)
    got = train(
        np.zeros((2, 1)),
        [gradient],
        [1.0],
        torch.float64,
        eps=1e-6,
        weight_decay=0.0,
        bias_correction=False,
        kernel=kernel,
    )
    expected = -0.1 * gradient / (math.sqrt(0.001) * gradient + 1e-6)
    np.testing.assert_allclose(got, expected, rtol=1e-15)


@pytest.mark.parametrize("beta2", [0.999, 0.98])
def test_missing_correction_is_the_hidden_multiplier(beta2):
    """Under a constant gradient each corrected update is lr; without correction, lr times h(t)."""
    gradients, t = np.full((50, 2, 1), 1.0), np.arange(1, 51)
    options = {"betas": (0.9, beta2), "eps": 1e-30, "weight_decay": 0.0}
    rates = 1e-3 * hidden_multiplier(t, 0.9, beta2)
    uncorrected = train(
        np.zeros((2, 1)), gradients, [1e-3] * 50, torch.float64, bias_correction=False, **options
    )
    control = train(np.zeros((2, 1)), gradients, rates, torch.float64, **options)
    np.testing.assert_allclose(uncorrected, -rates.sum(), rtol=1e-12)
    np.testing.assert_allclose(control, uncorrected, rtol=1e-12)


def test_small_gradients_feel_the_eps_placement():
    """Gradients of 1e-5, eps 1e-6: the first update is about one quarter of torch's."""
    gradient = np.full((2, 1), 1e-5)
    moved = [
        train(np.zeros((2, 1)), [gradient], [1.0], torch.float64, eps_placement=placement)[0, 0]
        for placement in ("before", "after")
    ]
    assert moved[0] / moved[1] == pytest.approx(0.264, abs=0.001)


@pytest.mark.parametrize(("correct", "placement", "decay_after"), SWITCHES)
def test_state_dict_carries_on_bit_for_bit(correct, placement, decay_after):
    weight, gradients, rates = problem(steps=10)
    parameters = [nn.Parameter(torch.tensor(part)) for part in np.split(weight, 2)]
    first = AdamW(
        parameters,
        lr=1.0,
        bias_correction=correct,
        eps_placement=placement,
        decay_after_step=decay_after,
    )
    for gradient, rate in zip(gradients[:5], rates[:5], strict=True):
        update(first, gradient, rate)
    twins = copy.deepcopy(parameters)
    second = AdamW(twins, lr=1.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for gradient, rate in zip(gradients[5:], rates[5:], strict=True):
        update(first, gradient, rate)
        update(second, gradient, rate)
    for one, other in zip(parameters, twins, strict=True):
        assert torch.equal(one, other)


def test_step_leaves_the_settings_and_frozen_parameters_alone():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = AdamW([used, unused], lr=0.1, weight_decay=0.5, bias_correction=False)
    used.grad = torch.ones(2)
    optimizer.step()
    assert optimizer.param_groups[0]["eps"] == 1e-6
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    assert torch.equal(unused, torch.ones(2))
    assert unused not in optimizer.state


def test_closure_is_called_with_gradients_on():
    parameter = nn.Parameter(torch.ones(1))
    optimizer = AdamW([parameter], lr=0.1)

    def closure():
        loss = (parameter**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 1.0
    assert parameter.item() < 1


def test_unknown_placement_is_refused():
    with pytest.raises(ConfigError, match="'before' or 'after'"):
        AdamW([nn.Parameter(torch.ones(1))], lr=0.1, eps_placement="inside")


def test_biases_and_layer_norms_do_not_decay():
    config = AlbertConfig(
        vocab_size=11,
        embedding_size=4,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    model = AlbertForSequenceClassification(config)
    frozen = model.albert.embeddings.word_embeddings.weight.requires_grad_(False)
    decayed, plain = parameter_groups(model, 0.01)
    names = {id(p): n for n, p in model.named_parameters()}
    exempt = {names[id(p)] for p in plain["params"]}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
    assert all(n.endswith("bias") or "layer_norm" in n.lower() or "LayerNorm" in n for n in exempt)
    assert {names[id(p)] for p in decayed["params"]} >= {"classifier.weight"}
    assert not any("norm" in names[id(p)].lower() for p in decayed["params"])
    grouped = [id(p) for p in decayed["params"] + plain["params"]]
    assert len(grouped) == len(set(grouped)) == len(names) - 1
    assert id(frozen) not in grouped


@pytest.mark.parametrize(("correct", "placement", "decay_after"), SWITCHES)
def test_parameters_laid_out_as_one_are_updated_as_each_alone(correct, placement, decay_after):
    def trained(lay_out):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 3))
        groups = parameter_groups(model, weight_decay=0.1)
        groups = laid_out(groups) if lay_out else groups
        optimizer = AdamW(
            groups,
            lr=0.01,
            bias_correction=correct,
            eps_placement=placement,
            decay_after_step=decay_after,
        )
        places = [p.data_ptr() for p in model.parameters()]
        for _ in range(5):
            model(torch.randn(4, 5)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=not lay_out)
        assert [p.data_ptr() for p in model.parameters()] == places
        assert len(optimizer.state) == (2 if lay_out else len(places))
        return [p.detach() for p in model.parameters()]

    for one, two in zip(trained(True), trained(False), strict=True):  # ends of vectors round else
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)


def test_nothing_is_laid_out_for_a_group_without_parameters():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert [g["weight_decay"] for g in laid_out(parameter_groups(model, 0.1))] == [0.1]
