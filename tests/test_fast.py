"""The fast executor: the same mathematics as the plain one, dropout of the right rate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from tiny import NO_DROPOUT
from torch import Tensor, nn
from transformers import ElectraConfig

from stabkit.batches import encode, training_batches
from stabkit.config import RunConfig
from stabkit.fast import DrawnDropout, DropoutFactors, supports
from stabkit.fused import ROUND, Drawn, Formula, Layer, Layout
from stabkit.models import build
from stabkit.train import Learner, task_of


def batches(config: RunConfig, padded: bool) -> Iterator[dict[str, Tensor]]:
    """Yield some training batches, of mixed lengths or of one length."""
    data = encode(config, task_of(config).train)
    if padded:
        yield from training_batches(data, config, 3)
    else:
        common = np.bincount(data.lengths).argmax()
        rows = np.flatnonzero(data.lengths == common)
        for few in np.array_split(rows, 2):
            yield {**data.batch(few), "labels": torch.from_numpy(data.labels[few])}


def learner(config: RunConfig, executor: str) -> Learner:
    return Learner.build(config, 2, tiny.CPU, executor)  # type: ignore[arg-type]


def measured(config: RunConfig, executor: str, padded: bool) -> Tensor:
    """Return loss and gradient norms (batches x (1 + parameters))."""
    trained = learner(config, executor)
    assert trained.executor == executor
    trained.model.train()
    rows = []
    for batch in batches(config, padded):
        mixed = not bool(batch["attention_mask"].all())
        assert mixed == padded
        labels = batch.pop("labels")
        trained.model.zero_grad()
        loss = nn.functional.cross_entropy(trained.logits(batch), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        norms = [p.grad.norm() for p in trained.model.parameters() if p.grad is not None]
        rows.append(torch.stack([loss.detach(), *norms]))
    return torch.stack(rows)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_without_dropout_it_agrees_with_the_plain_executor(architecture: str, padded: bool) -> None:
    config = tiny.config(architecture, init_std=0.5, **NO_DROPOUT)
    fast, plain = (measured(config, name, padded) for name in ("fast", "plain"))
    assert fast.shape[1] > 20
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_it_normalises_with_the_model_s_own_epsilon(architecture: str, tmp_path: Path) -> None:
    """Published models differ in it, by seven orders of magnitude."""
    folder = Path(tiny.save(tmp_path, architecture))
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    changed = json.dumps(settings | {"layer_norm_eps": 0.1})
    (folder / "config.json").write_text(changed, encoding="utf-8")
    config = tiny.config(model=str(folder), init_std=0.5, **NO_DROPOUT)
    fast, plain = (measured(config, name, padded=True) for name in ("fast", "plain"))
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ["bert", "albert"])
def test_it_agrees_with_segments(architecture: str) -> None:
    config = tiny.config(architecture, segments=True, **NO_DROPOUT)
    fast, plain = (measured(config, name, padded=True) for name in ("fast", "plain"))
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_it_agrees_in_bf16_as_far_as_that_goes(architecture: str) -> None:
    config = tiny.config(architecture, precision="bf16", init_std=0.5, **NO_DROPOUT)
    fast, plain = (measured(config, name, padded=True) for name in ("fast", "plain"))
    torch.testing.assert_close(fast, plain, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_evaluation_agrees_although_training_drops(architecture: str) -> None:
    config = tiny.config(architecture)
    data = encode(config, task_of(config).dev)
    fast, plain = (learner(config, name).evaluate(data) for name in ("fast", "plain"))
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-5)


def test_logits_do_not_depend_on_the_padding() -> None:
    config = tiny.config(init_std=0.5)
    data = encode(config, task_of(config).dev)
    trained = learner(config, "fast")
    trained.model.eval()  # type: ignore[no-untyped-call]
    short = int(data.lengths.argmin())
    alone = trained.logits(data.batch(np.array([short])))
    together = trained.logits(data.batch(np.arange(len(data))))
    torch.testing.assert_close(together[short], alone[0], rtol=1e-5, atol=1e-6)


def test_dropout_does_on_average_what_the_plain_executor_s_does() -> None:
    """Mean and spread of the logits under dropout are those of the plain executor."""
    config = tiny.config(hidden_dropout=0.3, attention_dropout=0.3, classifier_dropout=0.3)

    def mean_logits(executor: str) -> tuple[Tensor, Tensor]:
        trained = learner(config, executor)
        trained.model.train()
        batch = next(batches(config, padded=True))
        del batch["labels"]
        with torch.no_grad():
            draws = torch.stack([trained.logits(batch) for _ in range(200)])
        return draws.mean(0), draws.std(0)

    (fast, spread), (plain, plain_spread) = mean_logits("fast"), mean_logits("plain")
    error = (spread**2 + plain_spread**2).sqrt() / 200**0.5
    assert ((fast - plain).abs() < 5 * error).all()
    torch.testing.assert_close(spread, plain_spread, rtol=0.3, atol=0)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_factors_drop_the_asked_share_and_scale_the_rest(p: float) -> None:
    factors = DropoutFactors(0).take(torch.Size((1000, 400)), p)
    assert factors.dtype == torch.float32
    kept = factors[factors > 0].unique()
    torch.testing.assert_close(kept, torch.tensor([1 / (1 - p)]), rtol=1e-7, atol=0)
    error = 5 * (p * (1 - p) / factors.numel()) ** 0.5
    dropped = (factors == 0).double()
    assert dropped.mean().item() == pytest.approx(p, abs=error + 2**-16)
    if p:  # neighbours in a row and rows are independent
        for shifted in (dropped.roll(1, 0), dropped.roll(1, 1)):
            together = (dropped * shifted).mean().item()
            assert together == pytest.approx(p * p, abs=5 * p / factors.numel() ** 0.5 + 2**-15)


def test_factors_are_cut_from_one_seeded_stream_and_stay() -> None:
    shape = torch.Size((7, 9))
    one, two, other = DropoutFactors(1, block=100), DropoutFactors(1, block=100), DropoutFactors(2)
    drawn = [one.take(shape, 0.4) for _ in range(5)]
    copies = [factors.clone() for factors in drawn]
    assert all(torch.equal(two.take(shape, 0.4), factors) for factors in copies)
    assert not torch.equal(other.take(shape, 0.4), copies[0])
    assert len({tuple(factors.flatten().tolist()) for factors in drawn}) == 5
    assert all(torch.equal(*pair) for pair in zip(drawn, copies, strict=True))
    large = one.take(torch.Size((50, 50)), 0.4)  # more than a block
    assert large.shape == (50, 50)


def test_dropout_scales_what_it_keeps_and_its_gradient() -> None:
    layer = DrawnDropout(0.25, DropoutFactors(0))
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.full((100, 100), 3.0, requires_grad=True, dtype=dtype)
        y = layer(x)
        assert y.dtype == dtype
        assert set(y.flatten().tolist()) == {0.0, 4.0}
        y.sum().backward()
        assert x.grad is not None
        torch.testing.assert_close(x.grad, (y / 3).detach())
    assert DrawnDropout(0.0, DropoutFactors(0))(x) is x
    assert layer.eval()(x) is x


def test_the_gradient_of_attention_is_that_of_its_formula() -> None:
    """In float64 against finite differences, through a whole tiny encoder with padding."""
    config = tiny.config(**NO_DROPOUT)
    trained = learner(config, "fast")
    trained.model.double().train()
    batch = next(batches(config, padded=True))
    labels = batch.pop("labels")
    assert trained.fast is not None
    weight = trained.model.get_parameter("bert.encoder.layer.0.attention.self.key.weight")

    def loss() -> Tensor:
        assert trained.fast is not None
        inputs = trained.fast.inputs(batch, torch.float64)
        return nn.functional.cross_entropy(trained.model(**inputs).logits, labels)

    loss().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).double()
    expected = (weight.grad * direction).sum().item()
    step = 1e-4
    with torch.no_grad():
        weight.add_(direction, alpha=step)
        above = loss().item()
        weight.sub_(direction, alpha=2 * step)
        below = loss().item()
    assert (above - below) / (2 * step) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("lengths", [(3, 2, 1), (16, 16), (16, 15, 1), (4, 4)])
def test_packed_rows_are_few_kinds_of_many(lengths: tuple[int, ...]) -> None:
    """A kernel of a product is made for every number of rows."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    layout = Layout.of(mask, 2, torch.float32)
    assert layout.tokens == sum(lengths)
    assert layout.padded == (len(set(lengths)) > 1)
    real = mask.flatten().nonzero().squeeze(1)
    assert torch.equal(layout.rows[: layout.tokens], real)
    spare = layout.rows[layout.tokens :]
    assert not mask.flatten()[spare].any()
    assert (len(spare) > 0) == layout.padded  # padding needs one to stand for it
    assert not layout.padded or len(layout.rows) % ROUND == 0


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_every_parameter_has_a_gradient(architecture: str) -> None:
    """As the layout of the optimizer presumes: it decays all of them."""
    trained = learner(tiny.config(architecture), "fast")
    batch = next(batches(trained.config, padded=True))
    labels = batch.pop("labels")
    nn.functional.cross_entropy(trained.logits(batch), labels).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in trained.model.parameters())


@pytest.mark.parametrize("drops", [True, False])
@pytest.mark.parametrize("lengths", [(3, 2), (3, 3)])
@pytest.mark.parametrize("gelu", ["none", "tanh"])
def test_a_layer_s_gradient_is_that_of_finite_differences(
    gelu: str, lengths: tuple[int, int], drops: bool
) -> None:
    """Of the states and of every weight, in float64, with and without padding and dropout."""
    hidden, inner, heads = 4, 6, 2
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    mask = (torch.arange(3) < torch.tensor(lengths)[:, None]).long()
    layout = Layout.of(mask, heads, torch.float64)
    rows = len(layout.rows)

    def factors(*shape: int) -> Tensor:
        return (torch.rand(*shape, generator=generator) < 0.7).double() / 0.7

    tokens = factors(rows, hidden), factors(rows, hidden)
    drawn = Drawn(factors(4, 3, 3), *tokens) if drops else Drawn(None, None, None)
    shapes = [(hidden, hidden), (hidden,)] * 4 + [(hidden,)] * 2
    shapes += [(inner, hidden), (inner,), (hidden, inner), (hidden,), (hidden,), (hidden,)]
    formula = Formula(heads, 0.7, gelu, 1e-12, torch.float64)
    states = draw(1, rows, hidden)

    def layer(x: Tensor, *weights: Tensor) -> Tensor:
        y: Tensor = Layer.apply(x, layout, drawn, formula, *weights)  # type: ignore[no-untyped-call]
        return y[:, : sum(lengths)]

    weights = [draw(*shape) for shape in shapes]
    assert torch.autograd.gradcheck(layer, (states, *weights))  # type: ignore[no-untyped-call]


def test_it_is_for_the_three_architectures_on_a_cpu() -> None:
    model = build(tiny.config(), 2)
    assert supports(model)
    model.config.hidden_act = "relu"
    assert not supports(model)
    model.config = ElectraConfig()
    assert not supports(model)
