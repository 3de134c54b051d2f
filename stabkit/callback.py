"""A Trainer of Hugging Face, watched: its runs are judged and stored as this package's own are.

For whoever has a training script: it stays as it is, and ``StabilityCallback`` tells how many of
its seeds fail, why, and what the paper would change.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from stabkit import diagnosis, report
from stabkit.answers import Scored, model_of, scored
from stabkit.config import RunConfig
from stabkit.errors import ConfigError, StabkitError, nearest
from stabkit.metrics import METRICS, Metric
from stabkit.recipes import by_recipe, recipes, seedless
from stabkit.records import Records, dev_summary, gradients, history, provenance, train_summary
from stabkit.results import RunResult
from stabkit.store import Store
from stabkit.sweep import patiently
from stabkit.tasks import Task
from stabkit.trainers import check, doubts, optimizer_of, peak_rate, recipe


class _Gradients:
    """L2 norms of the gradients of all weight matrices of a model, taken as backward makes them.

    Gradients are then as they are before clipping; of several passes before an update, the last
    one's are whole.
    """

    def __init__(self, model: nn.Module) -> None:
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad and p.ndim > 1]
        self.names = [name for name, _ in named]
        self._found = torch.zeros(len(named), device=next(model.parameters()).device)
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._noting(at))  # type: ignore[no-untyped-call]
            for at, (_, parameter) in enumerate(named)
        ]

    def _noting(self, at: int) -> Callable[[Tensor], None]:
        def note(parameter: Tensor) -> None:
            if (grad := parameter.grad) is not None:
                dense = grad.coalesce().values() if grad.is_sparse else grad
                self._found[at] = torch.linalg.vector_norm(dense, dtype=torch.float32)

        return note

    def take(self, scale: float) -> Tensor:
        """Return the norms (matrices,) since they were last taken, over the scale of the loss."""
        found = self._found / scale
        self._found.zero_()
        return found

    def release(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()


class StabilityCallback(TrainerCallback):
    """Judge and store the runs of a Trainer, and tell what is wrong with their recipe.

    Make one for each Trainer, before it trains, and train with several seeds
    (``TrainingArguments(seed=...)``)::

        trainer.add_callback(StabilityCallback(trainer, "watched"))
        trainer.train()

    After training, the model as ``train`` leaves it is scored on the training and the dev set,
    which takes a pass over each. The run goes to ``store``, a folder or the URL of an object store,
    which ``stabkit table``, ``show`` and ``explain`` read; ``tell`` is called with the verdict
    and, from a recipe's second seed on, with its diagnosis. Once the remedy of a recipe has been
    trained on two seeds, the diagnosis compares the two. Training is the same to the bit, watched
    or not. A run of the same recipe, data and seed that is stored already stays.

    ``task`` names the data and ``metric`` what runs are compared by; ``dev`` stands for the
    Trainer's ``eval_dataset``. Gradient norms are L2, of every weight matrix that is trained from
    the start, at every step, before clipping. Losses on the way are those that the Trainer logs.

    Raises StoreError for a ``store`` that cannot be one, or, at the start of training, that cannot
    be written; ConfigError for an unknown metric, and at that start where training cannot be
    watched: without a dev set, by several processes, by another optimizer than one of Adam's kind,
    for regression or several labels a text. What goes wrong later is told, not raised: no finished
    training is lost.
    """

    _watched: _Gradients

    def __init__(
        self,
        trainer: Trainer,
        store: str | Store,
        *,
        task: str = "my data",
        metric: Metric = "accuracy",
        dev: Any = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        if metric not in METRICS:
            raise ConfigError(f"unknown metric {metric!r}: {nearest(metric, METRICS)}")
        self._trainer = weakref.ref(trainer)  # which holds this: its model must not outlive it
        self.task, self.metric, self.tell = task, metric, tell
        self.store = store if isinstance(store, Store) else Store(store)
        self._dev, self._trains = dev, False

    @property
    def trainer(self) -> Trainer:
        """The Trainer, while it is there."""
        found = self._trainer()
        assert found is not None  # it is who calls
        return found

    @property
    def dev(self) -> Any:
        """The data set that runs are judged on."""
        return self.trainer.eval_dataset if self._dev is None else self._dev

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Refuse what cannot be watched, and begin to."""
        check(self.trainer, self.dev)
        patiently(partial(_write, self.store))
        for doubt in doubts(self.trainer):
            self.tell(f"Mind: {doubt}.")
        self._trains, self._rate = True, peak_rate(self.trainer)
        self._began, self._steps_before = time.perf_counter(), state.global_step
        self._losses: dict[int, float] = {}
        self._accuracies: list[float] = []
        self._rates: list[float] = []
        self._norms: list[Tensor] = []
        if hasattr(self, "_watched"):  # by a training that was interrupted
            self._watched.release()
        self._watched = _Gradients(model_of(self.trainer))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the step's rate and gradients; with fp16 alone, this waits for the device."""
        scaler = self.trainer.accelerator.scaler
        self._norms.append(self._watched.take(1.0 if scaler is None else scaler.get_scale()))
        self._rates.append(max(g["lr"] for g in optimizer_of(self.trainer).param_groups))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Note the training loss, which the Trainer gives as a mean since it last did."""
        if self._trains and logs and "loss" in logs:
            self._losses[state.global_step] = float(logs["loss"])

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any
    ) -> None:
        """Note the accuracy on the way, if the Trainer's metrics have that of the dev set."""
        if self._trains and self._dev is None and metrics and "eval_accuracy" in metrics:
            self._accuracies.append(float(metrics["eval_accuracy"]))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Score, store and tell."""
        self._watched.release()
        self._trains = False
        try:
            told = self._keep(self._result())
        except Exception as problem:  # whatever it is, it must not cost a finished training
            kind = "" if isinstance(problem, StabkitError) else f"{type(problem).__name__}: "
            told = f"stabkit could not judge this run; the model is unharmed: {kind}{problem}"
        self._norms.clear()
        self.tell(told)

    def _result(self) -> RunResult:
        trainer, steps = self.trainer, self.trainer.state.global_step
        seconds = time.perf_counter() - self._began
        train, dev = scored(trainer, trainer.train_dataset), scored(trainer, self.dev)
        names = [str(label) for label in range(dev.logits.shape[1])]
        task = Task(self.task, train.split(), dev.split(), tuple(names), self.metric)
        records = self._records(steps, dev)
        summary = dev_summary(records, task) | train_summary(train.logits, records, task)
        summary["best_accuracy"] = max([summary["best_accuracy"], *self._accuracies])
        summary["diverged"] = self._diverged(summary["train_loss"])
        made = provenance(trainer.args.device, torch.get_num_threads(), "Trainer")
        config = recipe(trainer, self.task, self._rate, train, dev)
        kept = history(records, task), gradients(records)
        return RunResult(config, {**summary, "seconds": seconds, **made}, *kept)

    def _records(self, steps: int, dev: Scored) -> Records:
        """Return what was noted: NaN where nothing was, as before a resumed training."""
        names, before = self._watched.names, self._steps_before
        norms, rates = torch.full((steps, len(names)), np.nan), np.full(steps, np.nan)
        if self._norms:
            norms[before:], rates[before:] = torch.stack(self._norms).cpu(), self._rates
        losses = [self._losses.get(step, np.nan) for step in range(1, steps + 1)]
        found = {steps: dev.logits.argmax(1)}
        return Records(names, torch.tensor(losses), norms, rates, found)

    def _diverged(self, loss: float) -> bool:
        """Tell whether the loss was lost; with fp16, infinite gradients are skipped and no sign."""
        lost = not all(map(np.isfinite, (loss, *self._losses.values())))
        if self.trainer.accelerator.scaler is None and self._norms:
            lost |= not bool(torch.isfinite(torch.stack(self._norms)).all())
        return lost

    def _keep(self, result: RunResult) -> str:
        """Store a run, and say what it and those of its recipe say."""
        there = result.config.key in self.store
        patiently(partial(self.store.put, result))
        row = self.store.table(key=result.config.key).iloc[0]
        stored = f"  kept in {self.store.path}"
        if there:
            stored = (
                f"  not kept: {self.store.path} already has a run of this recipe, these data and "
                f"seed {row['seed']}, which is the one shown; change TrainingArguments(seed=...) "
                "or name another store"
            )
        runs = self.store.table(model=row["model"], task=row["task"], executor="Trainer")
        config = RunConfig.from_row(row.to_dict())
        return "\n\n".join([f"{report.outcome(row)}\n{stored}", *_diagnosed(runs, config)])


def _write(store: Store) -> None:
    """Raise StoreError where a run could not be stored: before training, not after it."""
    with store.claim("watched"):
        pass


def _diagnosed(runs: pd.DataFrame, config: RunConfig) -> Iterator[str]:
    """Yield the diagnosis of the recipe, and that of the recipe which it is to mend, if any."""
    this = seedless(config)
    here = {"data": this.data, "max_length": this.max_length}  # the length is that of the data
    if any(one != this and one.replace(**here) == this for one in by_recipe(runs)):
        yield (
            "Other seeds of this recipe had other data and count separately: a diagnosis needs the "
            "same training and dev set for all seeds."
        )
    for one in recipes(runs):
        if this in (one.config, one.remedy):
            yield diagnosis.text(one.blocks())
