"""Planes through checkpoints: exact at the checkpoints, mesh-free, resumable, nothing touched."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from torch import Tensor, nn
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
)

from stabkit import batches, models
from stabkit.batches import Encoded, encode
from stabkit.errors import StabkitError, StoreError
from stabkit.geometry import Plane, grid, project
from stabkit.store import Store
from stabkit.surface import Value, _Scratch, evaluate, line, surface
from stabkit.train import Learner, pin, task_of, trained_model

CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
Weights = dict[str, Tensor]


@cache
def model(architecture: str = "bert") -> PreTrainedModel:
    """Return a model to be left alone, with dropout and in training mode to make that hard."""
    return models.build(tiny.config(architecture), 2).train()


@cache
def data(architecture: str = "bert", examples: int = 40) -> Encoded:
    config = tiny.config(architecture)
    return encode(config, task_of(config).train.take(np.arange(examples)))


def moved(weights: Weights, seed: int, size: float = 0.1) -> Weights:
    """Return weights a random step away, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: x + size * torch.randn(x.shape, generator=generator).to(x.dtype)
        for name, x in weights.items()
    }


@cache
def plane(architecture: str = "bert") -> Plane:
    origin = {name: x.clone() for name, x in model(architecture).state_dict().items()}
    return Plane(origin, moved(origin, 1), moved(origin, 2))


def loaded(weights: Any, architecture: str = "bert") -> PreTrainedModel:
    fresh = models.build(tiny.config(architecture), 2)
    fresh.load_state_dict(weights)
    return fresh


def values(table: pd.DataFrame) -> list[Value]:
    return [Value(*row) for row in table[["loss", "gradient_norm"]].itertuples(index=False)]


# --- the surface --------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_at_the_corners_are_the_checkpoints_to_the_bit(architecture: str) -> None:
    chosen, examples = plane(architecture), data(architecture)
    checkpoints = (chosen.origin, chosen.first, chosen.second)
    expected = [evaluate(loaded(w, architecture), examples, gradient=True) for w in checkpoints]
    table = surface(chosen, model(architecture), examples, [*CORNERS, (0.5, 0.5)], gradient=True)
    assert list(table.columns) == ["a", "b", "loss", "gradient_norm", "examples"]
    assert values(table)[:3] == expected
    assert len(set(values(table))) == 4
    assert (table["examples"] == 40).all()
    losses = surface(chosen, model(architecture), examples, CORNERS)["loss"]
    assert losses.tolist() == [value.loss for value in expected]


def test_the_corner_of_a_run_is_its_training_loss() -> None:
    config = pin(tiny.config(learning_rate=3e-3))
    recorded = tiny.train(config).summary["train_loss"]
    tuned = trained_model(config, device=tiny.CPU)
    chosen = Plane(plane().origin, plane().first, tuned.state_dict())
    assert surface(chosen, model(), data(), CORNERS)["loss"][2] == recorded
    assert evaluate(tuned, data()).loss == recorded


def test_a_point_has_the_weights_of_the_formula() -> None:
    a, b = 0.3, -0.7
    chosen = plane()
    weights = {
        name: (1 - a - b) * p.double() + a * chosen.first[name] + b * chosen.second[name]
        for name, p in chosen.origin.items()
    }
    expected = evaluate(loaded(weights), data(), gradient=True)
    (found,) = values(surface(chosen, model(), data(), [(a, b)], gradient=True))
    assert found == pytest.approx(expected, rel=1e-4)
    assert abs(found.loss - evaluate(loaded(chosen.origin), data()).loss) > 1e-4


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_loss_and_gradient_are_the_plain_model_s(architecture: str) -> None:
    """Against torch.autograd on the whole set as one batch, in float64, without the executor."""
    weights, examples = plane(architecture).first, data(architecture)
    plain = loaded(weights, architecture).double().eval()  # type: ignore[no-untyped-call]
    logits = plain(**examples.batch(np.arange(40))).logits
    loss = nn.functional.cross_entropy(logits, torch.tensor(examples.labels))
    gradients = torch.autograd.grad(loss, list(plain.parameters()), allow_unused=True)
    norm = math.sqrt(sum((g**2).sum().item() for g in gradients if g is not None))
    found = surface(plane(architecture), model(architecture), examples, CORNERS, gradient=True)
    assert values(found)[1] == pytest.approx((loss.item(), norm), rel=1e-4)


def test_batches_are_no_part_of_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient is that of the mean loss over all examples, however many go through at once."""
    whole = evaluate(loaded(plane().first), data(), gradient=True)
    monkeypatch.setattr(batches, "EVALUATION_BATCH", 12)  # 12, 12, 12 and 4 of 40
    (parts,) = values(surface(plane(), model(), data(), [(1.0, 0.0)], gradient=True))
    assert parts == evaluate(loaded(plane().first), data(), gradient=True)
    assert parts == pytest.approx(whole, rel=1e-5)


def test_a_frozen_parameter_is_no_part_of_the_gradient() -> None:
    frozen, whole = loaded(plane().first), loaded(plane().first)
    for name, parameter in frozen.named_parameters():
        parameter.requires_grad = "classifier" in name
    points = [(1.0, 0.0)]
    part = values(surface(plane(), frozen, data(), points, gradient=True))[0]
    frozen.classifier.bias.grad = torch.ones(2)  # of whatever the user did before
    assert part == evaluate(frozen, data(), gradient=True)
    assert 0 < part.gradient_norm < 0.9 * evaluate(whole, data(), gradient=True).gradient_norm
    assert not any("classifier" not in n for n, p in frozen.named_parameters() if p.requires_grad)


def test_a_model_that_the_fast_executor_does_not_know() -> None:
    torch.manual_seed(0)
    other = DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=900, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
    )
    origin = {name: x.clone() for name, x in other.state_dict().items()}
    chosen = Plane(origin, moved(origin, 1), moved(origin, 2))
    found = values(surface(chosen, other, data(), CORNERS, gradient=True))
    for weights, value in zip((chosen.origin, chosen.first, chosen.second), found, strict=True):
        other.load_state_dict(weights)
        assert evaluate(other, data(), gradient=True) == value


def test_a_model_that_has_the_fast_executor_already() -> None:
    learner = Learner.build(tiny.config(), 2, tiny.CPU, "fast")
    expected = surface(plane(), model(), data(), CORNERS, gradient=True)
    assert_frame_equal(surface(plane(), learner.model, data(), CORNERS, gradient=True), expected)
    learner.model.load_state_dict(plane().first)
    logits = torch.from_numpy(learner.evaluate(data())).double()
    loss = nn.functional.cross_entropy(logits, torch.tensor(data().labels))
    assert loss.item() == expected["loss"][1]


def test_weights_of_another_precision_and_parameters_alone() -> None:
    half = {name: x.half() for name, x in plane().first.items()}
    chosen = Plane(dict(model().named_parameters()), half, plane().second)
    table = surface(chosen, model(), data(), [*CORNERS, (0.5, 0.0)])
    assert table["loss"][1] == evaluate(loaded(half), data()).loss
    assert table["loss"][0] == evaluate(model(), data()).loss
    rounded = surface(plane(), model(), data(), [(0.5, 0.0)])["loss"][0]
    assert table["loss"][3] == pytest.approx(rounded, rel=1e-3)


def test_weights_that_are_not_numbers_are_data() -> None:
    diverged = {name: x * math.nan for name, x in plane().first.items()}
    chosen = Plane(plane().origin, diverged, plane().second)
    table = surface(chosen, model(), data(), [*CORNERS, (0.5, 0.5), (0.0, 0.5)], gradient=True)
    assert table["loss"].isna().tolist() == [False, True, False, True, False]
    assert table["gradient_norm"].isna().tolist() == [False, True, False, True, False]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_surface_is_measured_where_the_model_is() -> None:
    there = loaded(plane().origin).to("cuda")  # type: ignore[arg-type]
    found = surface(plane(), there, data(), CORNERS, gradient=True)
    here = surface(plane(), model(), data(), CORNERS, gradient=True)
    np.testing.assert_allclose(found.to_numpy(), here.to_numpy(), rtol=1e-3)
    assert evaluate(there, data()).loss == found["loss"][0]


# --- nothing is touched -------------------------------------------------------------------------


def state(of: PreTrainedModel) -> list[Any]:
    """Return all that a user could find changed."""
    return [
        {name: x.clone() for name, x in of.state_dict().items()},
        {n: p.grad.clone() for n, p in of.named_parameters() if p.grad is not None},
        [(name, p.requires_grad) for name, p in of.named_parameters()],
        [(type(part), part.training, len(part._forward_hooks)) for part in of.modules()],
        of.config.to_dict() | {"attention": of.config._attn_implementation},
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
    ]


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_model_is_untouched_also_after_an_error(
    error: type[BaseException] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, calls = loaded(plane().second).train(), iter(range(100))
    for i, parameter in enumerate(mine.parameters()):
        parameter.requires_grad = i % 3 > 0
        parameter.grad = torch.full_like(parameter, 7.0) if i % 2 else None
    mine.classifier.eval()
    measure = _Scratch.measure

    def failing(scratch: _Scratch) -> Value:
        if error and next(calls) == 2:
            raise error
        return measure(scratch)

    monkeypatch.setattr(_Scratch, "measure", failing)
    before, corners = state(mine), [list(w.values()) for w in vars(plane()).values()]
    copies = [[x.clone() for x in tensors] for tensors in corners]
    try:
        surface(plane(), mine, data(), grid(-1, 2, 2), gradient=True)
    except (RuntimeError, KeyboardInterrupt) as raised:
        assert type(raised) is error
    torch.testing.assert_close(state(mine)[:2], before[:2], rtol=0, atol=0)
    assert state(mine)[2:] == before[2:]
    torch.testing.assert_close(corners, copies, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_stays_near_four_copies_of_the_weights() -> None:
    script = """
import torch, numpy as np
from transformers import BertConfig, BertForSequenceClassification
from stabkit.batches import Encoded
from stabkit.surface import Plane, surface
sizes = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64)
model = BertForSequenceClassification(BertConfig(vocab_size=400_000, **sizes))
origin = model.state_dict()
first, second = ({n: x + step for n, x in origin.items()} for step in (0.1, 0.2))
plane = Plane(origin, first, second)
data = Encoded(torch.ones(4, 5, dtype=torch.long), None, np.full(4, 5), np.array([0, 1, 0, 1]))
def memory(kind):  # getrusage's peak would be that of the process which started this one
    return 1024 * int(open("/proc/self/status").read().split(kind + ":")[1].split()[0])
before = memory("VmRSS")
surface(plane, model, data, [(0.5, 0.5), (0.5, 0.7)], gradient=True)
print((memory("VmHWM") - before) / sum(4 * x.numel() for x in origin.values()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The copy, its gradient, a new gradient and a step; threads and libraries take some more.
    assert 1 < float(done.stdout) < 4.5


# --- any mesh -----------------------------------------------------------------------------------

coordinate = st.integers(-3, 6).map(lambda quarters: quarters / 4)
meshes = st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=5)


@cache
def alone(at: tuple[float, float]) -> Value:
    """Return the value at one point, in a surface of its own."""
    (value,) = values(surface(plane(), model(), data(examples=8), [at], gradient=True))
    return value


@settings(max_examples=15)
@given(meshes)
def test_a_value_depends_neither_on_the_mesh_nor_on_the_order(mesh: Any) -> None:
    table = surface(plane(), model(), data(examples=8), mesh, gradient=True)
    assert list(zip(table["a"], table["b"], strict=True)) == mesh
    assert values(table) == [alone(at) for at in mesh]


@given(st.integers(-20, 20), st.integers(1, 40), st.integers(1, 8))
def test_a_grid_meets_the_round_numbers(start: int, steps: int, fine: int) -> None:
    low, high = start / 10, (start + steps) / 10
    coarse, dense = grid(low, high, steps + 1), grid(low, high, fine * steps + 1)
    assert coarse.shape == ((steps + 1) ** 2, 2)
    assert set(map(tuple, coarse)) <= set(map(tuple, dense))
    assert set(coarse[:, 0]) == {(start + i) / 10 for i in range(steps + 1)}


def test_a_grid_is_a_mesh() -> None:
    assert grid(-1, 1, 3)[:4].tolist() == [[-1, -1], [-1, 0], [-1, 1], [0, -1]]


# --- resuming -----------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count evaluations; the user interrupts the twelfth."""
    count: list[int] = []
    measure = _Scratch.measure

    def counted(scratch: _Scratch) -> Value:
        if len(count) == 11:
            raise KeyboardInterrupt
        count.append(1)
        return measure(scratch)

    monkeypatch.setattr(_Scratch, "measure", counted)
    yield count


def test_a_killed_surface_goes_on(tmp_path: Path, measured: list[int]) -> None:
    points = grid(-0.5, 1, 4)
    with pytest.raises(KeyboardInterrupt):
        surface(plane(), model(), data(), points, store=Store(tmp_path))
    assert len(measured) == 11
    measured.clear()
    table = surface(plane(), model(), data(), points, store=Store(tmp_path))
    assert len(measured) == 16 - 11
    measured.clear()
    assert_frame_equal(surface(plane(), model(), data(), points, store=Store(tmp_path)), table)
    assert not measured
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    for start in (0, 8):
        assert_frame_equal(
            table[start : start + 8].reset_index(drop=True),
            surface(plane(), model(), data(), points[start : start + 8]),
        )
        measured.clear()


def test_a_kill_without_warning_loses_a_few_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[int]
) -> None:
    """What is in the file when the process is gone, before any clean-up could run."""
    kept: list[int] = []
    measure = _Scratch.measure

    def looking(scratch: _Scratch) -> Value:
        files = list(tmp_path.rglob("*.parquet"))
        kept.append(len(pd.read_parquet(files[0])) if files else 0)
        return measure(scratch)

    monkeypatch.setattr(_Scratch, "measure", looking)
    surface(plane(), model(), data(), grid(0, 1, 3), store=Store(tmp_path))
    assert kept == [0] * 8 + [8]


def test_points_are_shared_between_meshes(tmp_path: Path, measured: list[int]) -> None:
    store = Store(tmp_path)
    coarse = surface(plane(), model(), data(), grid(0, 1, 2), store=store)
    measured.clear()
    dense = surface(plane(), model(), data(), grid(0, 1, 3), store=store)
    assert len(measured) == 9 - 4
    both = coarse.merge(dense, on=["a", "b"])
    assert (both["loss_x"] == both["loss_y"]).all()
    assert len(both) == 4


def test_what_a_surface_depends_on_is_in_its_name(tmp_path: Path, measured: list[int]) -> None:
    store, points = Store(tmp_path), [(0.5, 0.5)]

    def evaluations(**changes: Any) -> int:
        asked: dict[str, Any] = {"plane": plane(), "model": model(), "data": data()}
        measured.clear()
        surface(**(asked | changes), points=points, store=store)
        return len(measured)

    frozen = loaded(plane().origin)
    frozen.classifier.requires_grad_(False)
    swapped = Plane(plane().origin, plane().second, plane().first)
    fewer = replace(data(), labels=1 - data().labels)
    assert evaluations() == 1
    assert evaluations() == 0
    assert evaluations(model=loaded(plane().second).eval()) == 0
    assert evaluations(model=frozen) == 0
    assert evaluations(plane=Plane(*({**w} for w in vars(plane()).values()))) == 0
    assert evaluations(plane=swapped) == 1
    assert evaluations(data=fewer) == 1
    assert evaluations(data=data(examples=20)) == 1
    assert evaluations(gradient=True) == 1
    assert evaluations(gradient=True, model=frozen) == 1
    other = loaded(plane().origin)
    other.config.layer_norm_eps = 1e-6
    assert evaluations(model=other) == 1


def test_published_points_are_read_from_the_base(tmp_path: Path, measured: list[int]) -> None:
    published = Store(tmp_path / "published")
    table = surface(plane(), model(), data(), grid(0, 1, 2), store=published)
    (tmp_path / "published" / "runs.parquet").touch()  # what makes it a base
    store = Store(tmp_path / "own", base=tmp_path / "published")
    measured.clear()
    assert_frame_equal(surface(plane(), model(), data(), grid(0, 1, 2), store=store), table)
    assert not measured
    assert not list((tmp_path / "own").rglob("*.parquet"))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    surface(plane(), model(), data(), CORNERS, store=store)
    (file,) = tmp_path.rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(StoreError, match=f"{file.name} is truncated.* remove it to measure"):
        surface(plane(), model(), data(), CORNERS, store=store)


# --- the line -----------------------------------------------------------------------------------


def test_a_line_is_exact_at_its_ends_and_the_axis_of_a_plane(tmp_path: Path) -> None:
    at = np.linspace(0, 1, 5)
    table = line(plane().origin, plane().first, model(), data(), at, True, Store(tmp_path))
    assert list(table.columns) == ["a", "loss", "gradient_norm", "examples"]
    axis = surface(plane(), model(), data(), np.stack([at, 0 * at], 1), gradient=True)
    assert_frame_equal(table, axis.drop(columns="b"))
    assert table["a"].tolist() == at.tolist()
    back = line(plane().first, plane().origin, model(), data(), [0, 1], gradient=True)
    assert values(back) == values(table)[::-4]


# --- projection ---------------------------------------------------------------------------------

share = st.floats(-3, 3)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(share, share), min_size=1, max_size=3))
def test_projection_recovers_the_points_of_the_plane(points: list[tuple[float, float]]) -> None:
    chosen = plane()
    trajectory = (
        {
            name: p.double()
            + a * (chosen.first[name].double() - p)
            + b * (chosen.second[name].double() - p)
            for name, p in chosen.origin.items()
        }
        for a, b in points
    )
    table = project(chosen, trajectory)
    np.testing.assert_allclose(table[["a", "b"]], points, rtol=0, atol=1e-9)
    assert table["residual"].max() < 1e-5  # of steps that are about 20 long


def test_projection_leaves_the_distance_from_the_plane() -> None:
    """A step at right angles to the plane changes nothing but the residual."""
    chosen = plane()
    corners = list(vars(chosen).values())
    table = project(chosen, corners)
    np.testing.assert_allclose(table[["a", "b"]], CORNERS, rtol=0, atol=1e-12)
    name = "bert.embeddings.word_embeddings.weight"
    d1, d2 = ((end[name] - corners[0][name]).double()[:, 0] for end in corners[1:])
    step = torch.zeros_like(corners[0][name], dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    free = torch.randn(len(d1), generator=generator, dtype=torch.float64)
    axes = torch.linalg.qr(torch.stack([d1, d2], 1))[0]
    step[:, 0] = free - axes @ (axes.T @ free)
    off = {n: x.double() + (step if n == name else 0) for n, x in chosen.first.items()}
    a, b, residual, distance = project(chosen, [off]).iloc[0]
    assert (a, b) == pytest.approx((1, 0), abs=1e-6)
    assert residual == pytest.approx(step.norm().item(), rel=1e-6)
    way = torch.cat([(x - chosen.origin[n].double()).flatten() for n, x in off.items()])
    assert distance == pytest.approx(way.norm().item(), rel=1e-6)


def test_a_diverged_checkpoint_has_no_place() -> None:
    diverged = {name: x * math.nan for name, x in plane().first.items()}
    assert project(plane(), [diverged, plane().first]).isna().all(axis=1).tolist() == [True, False]
    assert project(plane(), []).empty


# --- what is refused ----------------------------------------------------------------------------


def test_checkpoints_that_span_no_plane() -> None:
    origin, first, second = vars(plane()).values()
    with pytest.raises(StabkitError, match="checkpoints origin and second are equal"):
        Plane(origin, first, {name: x.clone() for name, x in origin.items()})
    with pytest.raises(
        StabkitError, match=r"first and second are equal; .*copy a state dict before"
    ):
        Plane(origin, first, first)
    with pytest.raises(StabkitError, match="start and end are equal"):
        line(first, first, model(), data(), [0, 1])
    lacking = {name: x for name, x in second.items() if name != "classifier.bias"}
    message = "origin and second differ in names or shapes, first in classifier.bias"
    with pytest.raises(StabkitError, match=message):
        Plane(origin, first, lacking)
    with pytest.raises(StabkitError, match=message):
        Plane(origin, first, second | {"classifier.bias": torch.zeros(3)})
    straight = Plane(origin, first, {name: 2 * first[name] - x for name, x in origin.items()})
    with pytest.raises(StabkitError, match="lie on one line"):
        project(straight, [origin])
    with pytest.raises(StabkitError, match="origin and the projected one differ"):
        project(plane(), [lacking])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": lambda: model("roberta")}, "the model and the checkpoints differ in names"),
        ({"data": lambda: replace(data(), labels=data().labels + 1)}, "labels up to 2; .* below 2"),
        (
            {"data": lambda: replace(data(), labels=data().labels[:0])},
            "0 examples .* expected some",
        ),
        ({"points": lambda: [0.5, 0.5]}, r"no finite numbers of shape \(n, 2\)"),
        ({"points": lambda: [(0.5, math.nan)]}, "no finite numbers"),
        ({"gradient": lambda: True, "model": lambda: frozen()}, "no parameter .* is trainable"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"model": model(), "data": data(), "points": CORNERS}
    with pytest.raises(StabkitError, match=message):
        surface(plane(), **(asked | {name: make() for name, make in changes.items()}))


def frozen() -> PreTrainedModel:
    return loaded(plane().origin).requires_grad_(False)


@pytest.mark.parametrize("asked", [(1, 0, 5), (0, 1, 1), (0, math.inf, 3), (math.nan, 1, 3)])
def test_a_grid_needs_two_ends_and_two_points(asked: tuple[float, float, int]) -> None:
    with pytest.raises(StabkitError, match=r"grid\(.*\): expected low < high and 2 points"):
        grid(*asked)


def test_a_line_takes_a_row_of_numbers() -> None:
    with pytest.raises(StabkitError, match=r"shape \(n,\)"):
        line(plane().origin, plane().first, model(), data(), CORNERS)
