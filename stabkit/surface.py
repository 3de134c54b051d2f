"""Loss and gradient norm on planes and lines through checkpoints (Fig. 7 and 13).

The axes are the paper's, f(a, b) = L(w_p + a (w_f - w_p) + b (w_s - w_p)): pre-trained weights
under the run's new head, a failed run, a successful one. L is the mean cross-entropy (nats) over
all given examples in evaluation mode; ``stabkit.tasks.subset`` gives a fixed part of a set.
``stabkit.geometry`` has the planes. Only a copy of the model ever
changes: beside the caller's weights there are that copy's and, if asked for, its gradient.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from transformers import PreTrainedModel

from stabkit import parquet, results, storage
from stabkit.batches import Encoded, evaluation_batches
from stabkit.errors import StabkitError, StoreError
from stabkit.fast import FastExecutor, supports
from stabkit.geometry import Plane, Weights, check_alike, check_apart
from stabkit.parquet import DamagedError
from stabkit.store import Store

Point: TypeAlias = tuple[float, ...]

SAVE_EVERY = 8  # points: what a kill can cost


class Value(NamedTuple):
    """What is measured at a point: mean loss (nats), L2 norm of its whole gradient or NaN."""

    loss: float
    gradient_norm: float


def evaluate(model: PreTrainedModel, data: Encoded, gradient: bool = False) -> Value:
    """Measure a model as it is; with its weights ``surface`` and ``line`` find the same bits."""
    _check_use(model, model.state_dict(), data, gradient)
    return _Scratch(model, data, gradient).measure()


def surface(
    plane: Plane,
    model: PreTrainedModel,
    data: Encoded,
    points: ArrayLike,
    gradient: bool = False,
    store: Store | None = None,
) -> pd.DataFrame:
    """Measure a model at ``points`` (n x 2: a, b) of a plane: a, b, loss, gradient_norm, examples.

    One row per point, in order. Values are those of ``evaluate``, at (0, 0), (1, 0) and (0, 1)
    the checkpoints' own to the bit. ``model`` says what the weights are for; what weights it has
    itself does not matter. With a ``store``, no point is measured twice, whatever grid it belongs
    to, and a killed call goes on where it was. Raises StabkitError when model, weights, data and
    points do not fit each other, StoreError when the store cannot be used.
    """
    corners = (plane.origin, plane.first, plane.second)
    return _measured(corners, model, data, _coordinates(points, 2), gradient, store)


def line(
    start: Weights,
    end: Weights,
    model: PreTrainedModel,
    data: Encoded,
    points: ArrayLike,
    gradient: bool = False,
    store: Store | None = None,
) -> pd.DataFrame:
    """Measure a model on the line start + a (end - start): a, loss, gradient_norm, examples.

    ``points`` (n,) are the values of a: 0 is ``start``, 1 is ``end``. All else as in ``surface``.
    """
    check_apart({"start": start, "end": end})
    at = _coordinates(np.asarray(points, dtype=float)[..., None], 1)
    return _measured((start, end), model, data, at, gradient, store)


class _Scratch:
    """A copy of a model that takes on the weights of any point and measures them."""

    def __init__(self, model: PreTrainedModel, data: Encoded, gradient: bool) -> None:
        self.data, self.gradient = data, gradient
        self.model: Any = copy.deepcopy(model).eval()  # type: ignore[no-untyped-call]
        self.weights = self.model.state_dict()
        self.fast: FastExecutor | None = None
        if model.device.type == "cpu" and supports(model):
            self.fast = getattr(self.model, "fast", None) or FastExecutor(self.model, seed=0)

    @torch.no_grad()
    def move(self, corners: Sequence[Weights], at: Point) -> _Scratch:
        for name in corners[0]:
            target = self.weights[name]
            _place(target, [weights[name].to(target) for weights in corners], at)
        return self

    def measure(self) -> Value:
        """Loss, as ``records.train_summary`` has it, and gradient norm of the copy as it is."""
        logits = torch.zeros(len(self.data), self.model.config.num_labels)
        labels = torch.tensor(self.data.labels)
        with torch.set_grad_enabled(self.gradient):
            for rows, batch in evaluation_batches(self.data):
                found = self._logits(batch)
                logits[rows] = found.detach().cpu()
                if self.gradient:
                    right = labels[rows].to(found.device)
                    loss = nn.functional.cross_entropy(found, right, reduction="sum")
                    (loss / len(labels)).backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients).item() if self.gradient else math.nan
        self.model.zero_grad()
        return Value(nn.functional.cross_entropy(logits.double(), labels).item(), norm)

    def _logits(self, batch: dict[str, Tensor]) -> Tensor:
        inputs: dict[str, Any] = {name: x.to(self.model.device) for name, x in batch.items()}
        if self.fast:
            inputs = self.fast.inputs(inputs, self.model.dtype)
        logits: Tensor = self.model(**inputs).logits
        return logits.float()


def _place(target: Tensor, tensors: Sequence[Tensor], at: Point) -> None:
    """Make ``target`` p + a (f - p) + b (s - p) of the tensors p, f, s: always from p itself."""
    origin, *ends = tensors
    steps = [(share, end) for share, end in zip(at, ends, strict=True) if share]
    if len(steps) == 1 and steps[0][0] == 1:
        origin, steps = steps[0][1], []  # in floats p + 1 * (f - p) need not be f
    target.copy_(origin)
    if target.is_floating_point():  # counters have nothing between them
        for share, end in steps:
            target.add_(end - origin, alpha=share)


def _measured(
    corners: Sequence[Weights],
    model: PreTrainedModel,
    data: Encoded,
    points: Sequence[Point],
    gradient: bool,
    store: Store | None,
) -> pd.DataFrame:
    """Return one row per point: coordinates, value, number of examples."""
    _check_use(model, corners[0], data, gradient)
    columns = [*"ab"[: len(corners) - 1], *Value._fields]
    key = "" if store is None else _key(corners, model, data, gradient)
    file, scratch = f"surfaces/{key}.parquet", _Scratch(model, data, gradient)
    with nullcontext() if store is None else store.claim(key, wait=True):
        found = {} if store is None else _stored(store, file, columns)
        missing = [at for at in dict.fromkeys(points) if at not in found]
        for start in range(0, len(missing), SAVE_EVERY):
            try:
                for at in missing[start : start + SAVE_EVERY]:
                    found[at] = scratch.move(corners, at).measure()
            finally:  # also what was measured before an error or the user's interrupt
                if store is not None:
                    known = results.steps(_frame(found, found, columns))
                    parquet.write(store.path / file, known)
    return _frame(points, found, columns).assign(examples=len(data))


def _frame(points: Iterable[Point], found: dict[Point, Value], columns: list[str]) -> Any:
    return pd.DataFrame([(*at, *found[at]) for at in points], columns=columns, dtype=float)


def _stored(store: Store, file: str, columns: list[str]) -> dict[Point, Value]:
    """Return the values that the store and its base have."""
    found: dict[Point, Value] = {}
    for folder in (store.base, store.path):
        if folder is None or not storage.exists(folder / file):
            continue
        try:
            rows = parquet.read(folder / file, columns).select(columns).to_pydict()
        except DamagedError as problem:
            raise StoreError(f"{problem}; remove it to measure its points again") from None
        for *at, loss, norm in zip(*rows.values(), strict=True):
            found[tuple(at)] = Value(loss, norm)
    return found


def _key(corners: Sequence[Weights], model: PreTrainedModel, data: Encoded, gradient: bool) -> str:
    """Digest all that decides a value: weights, model, examples, whose gradient is measured."""
    unrelated = ("_name_or_path", "transformers_version")
    settings = {n: value for n, value in model.config.to_dict().items() if n not in unrelated}
    learned = [name for name, p in model.named_parameters() if gradient and p.requires_grad]
    total = hashlib.sha256(json.dumps([settings, learned], sort_keys=True, default=str).encode())
    buffers = {name: x for name, x in model.named_buffers() if name not in corners[0]}
    arrays = {name: torch.tensor(np.asarray(x)) for name, x in vars(data).items() if x is not None}
    for tensors in (*corners, buffers, arrays):
        for name, x in sorted(tensors.items()):
            total.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
            total.update(x.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]


def _coordinates(points: ArrayLike, axes: int) -> list[Point]:
    array = np.asarray(points, dtype=float)
    if array.ndim != 2 or array.shape[1] != axes or not np.isfinite(array).all():
        raise StabkitError(
            f"points that are no finite numbers of shape {'(n, 2)' if axes == 2 else '(n,)'}; "
            "expected what grid() gives for a plane, numpy.linspace() for a line"
        )
    return [tuple(row) for row in array.tolist()]


def _check_use(model: PreTrainedModel, weights: Weights, data: Encoded, gradient: bool) -> None:
    needed = {name for name, _ in model.named_parameters()} | weights.keys()
    own = {name: x for name, x in model.state_dict().items() if name in needed}
    check_alike("the model", own, "the checkpoints", weights)
    if not 0 <= data.labels.max(initial=-1) < model.config.num_labels:
        raise StabkitError(
            f"{len(data)} examples with labels up to {data.labels.max(initial=-1)}; expected some, "
            f"with labels below {model.config.num_labels}, the number of the model's outputs"
        )
    if gradient and not any(p.requires_grad for p in model.parameters()):
        raise StabkitError("no parameter of the model is trainable; expected some, or no gradient")
