"""The graph executor: the plain loop's steps, each a fixed sequence of kernels on fixed tensors.

The mathematics and the batches are those of ``stabkit.loop.fine_tune``. What differs: texts lie
on the device and batches are padded to a multiple of 16 tokens, so that one CUDA graph a shape
holds the whole step (forward, backward, norms, clipping, update, records); nothing in it waits
for the host. Checkpoint, model, graphs and buffers serve the next seed, too: all that distinguishes
it is copied into place. On a CPU the same functions run without a graph, which is how they are
tested.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig

from stabkit import models
from stabkit.batches import Encoded, training_rows
from stabkit.config import RunConfig
from stabkit.fast import FAMILIES
from stabkit.geometry import Weights
from stabkit.graph import Captured
from stabkit.loop import Watch, evaluation_steps, rates, unwatched
from stabkit.mixout import plain_name, plain_state
from stabkit.network import Network, Single, dropout_seed
from stabkit.precision import HALF, set_precision
from stabkit.records import Records
from stabkit.scoring import Scoring
from stabkit.static_adamw import StaticAdamW
from stabkit.walk import Walk

START_SCALE, GROW_AFTER = 2.0**16, 2000  # as torch's GradScaler


class StaticLearner:
    """Runs of one shape, one after the other or (of a network of several seeds) at once."""

    def __init__(self, config: RunConfig, network: Network, train: Encoded, seeds: int = 1) -> None:
        """Allocate everything that the runs need; ``config`` stands for all of their shape."""
        self.network, self.train, self.seeds = network, train, seeds
        self.model, self.device = network.model, network.model.device
        self.half = HALF.get(config.precision)
        steps, limit = config.steps(len(train)), config.max_length
        padding = self.model.config.pad_token_id or 0
        size = config.batch_size
        self.walk = Walk(train, steps, size, limit, padding, self.device, seeds)
        self.optimizer = StaticAdamW(network.groups, config, steps)
        self.parameters = [p for group in network.groups for p in group["params"]]
        named = [(plain_name(name), p) for name, p in self.model.named_parameters()]
        self.matrices = [name for name, p in named if p.requires_grad and p.ndim > 1]
        kept = [network.names.index(name) for name in self.matrices]
        self.kept = torch.tensor(kept, device=self.device)
        self.losses = torch.zeros(steps, seeds, device=self.device)
        self.norms = torch.zeros(steps, seeds, len(kept), device=self.device)
        self.clip = torch.zeros((), device=self.device)
        scaled = config.precision == "fp16"
        self.scale = torch.ones(1, device=self.device) if scaled else None
        self.unbroken = torch.zeros(1, dtype=torch.int32, device=self.device)
        self.steps = Captured(self._step, self.device, self._rewind, network.generators)
        self._scores: dict[Encoded, Scoring] = {}

    def fine_tune(
        self, configs: Sequence[RunConfig], dev: Encoded, watch: Watch = unwatched
    ) -> list[Records]:
        """Train from the start as each seed's configuration says; return what was measured."""
        config, schedule = configs[0], rates(configs[0], len(self.walk.order))
        self._restart(configs, schedule, dev)
        evaluate_at = evaluation_steps(config, len(self.train))
        looks: dict[int, NDArray[np.int64]] = {}
        if 0 in evaluate_at:
            looks[0] = self.evaluate(dev).argmax(-1)
        watch(0, self.model)
        for step, shape in enumerate(self.walk.shapes, start=1):
            self.steps(shape)
            if step in evaluate_at:
                looks[step] = self.evaluate(dev).argmax(-1)
            watch(step, self.model)
        return [
            Records(
                self.matrices,
                self.losses[:, i].clone(),
                self.norms[:, i].clone(),
                schedule,
                {step: found[i] for step, found in looks.items()},
            )
            for i in range(len(configs))
        ]

    def evaluate(self, data: Encoded) -> NDArray[np.float32]:
        """Return the logits (seeds x examples x labels) in evaluation mode."""
        self.model.eval()  # type: ignore[no-untyped-call]
        found = self._scorer(data).logits().cpu()
        self.model.train()
        return found.numpy()

    def weights(self) -> Weights:
        """Return the weights as they are, under their plain names; the next run changes them."""
        return plain_state(self.model)

    def _restart(
        self, configs: Sequence[RunConfig], schedule: NDArray[np.float64], dev: Encoded
    ) -> None:
        """Record what is new, which spoils the state, then set all of it as a run starts."""
        config, examples, steps = configs[0], len(self.train), len(schedule)
        set_precision(config)
        self.walk.restart([list(training_rows(examples, c, steps)) for c in configs])
        self.model.eval()  # type: ignore[no-untyped-call]
        self._scorer(dev)
        self.model.train()
        self.steps.prepare(self.walk.shapes)
        self._rewind()
        self.network.load(configs)
        self.optimizer.restart(config, schedule)
        self.clip.fill_(float("inf") if config.clip_norm is None else config.clip_norm)
        if self.scale is not None:
            self.scale.fill_(START_SCALE)
            self.unbroken.zero_()
        torch.manual_seed(dropout_seed(config))

    def _rewind(self) -> None:
        """Set back what counts steps: the tables that it reads have no more rows than a run."""
        self.walk.at.zero_()
        self.optimizer.updates.zero_()

    def _step(self, size: int, length: int) -> None:
        at = self.walk.at
        batch = self.walk.batch(size, length, self.half or torch.float32)
        logits = self._logits(batch.inputs)
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), reduction="none"
        )
        losses = losses.view(batch.labels.shape).mean(1)
        total = losses.sum() if self.scale is None else losses.sum() * self.scale.squeeze(0)
        # The optimizer's kernel reads memory in order, and a batched product's may be transposed.
        gradients = [g.contiguous() for g in torch.autograd.grad(total, self.parameters)]
        with torch.no_grad():
            norms = self._update(gradients)
            self.losses.index_copy_(0, at, losses.detach()[None])
            self.norms.index_copy_(0, at, norms.index_select(1, self.kept)[None])
            at.add_(1)

    def _update(self, gradients: Sequence[Tensor]) -> Tensor:
        """Clip and step; return the norms (seeds x parameters) before clipping."""
        norms, overflow = self.network.norms(gradients), None
        if self.scale is not None:
            norms = norms / self.scale
        whole = norms.norm(dim=1)
        divisor = ((whole + 1e-6) / self.clip).clamp(min=1.0)
        if self.scale is not None:
            divisor = divisor * self.scale
            overflow = 1 - torch.isfinite(whole).all().float()
        left = self.network.divide(gradients, divisor)
        self.optimizer.step(gradients, self.walk.at, left, overflow)
        if self.scale is not None and overflow is not None:
            torch._amp_update_scale_(
                self.scale, self.unbroken, overflow[None], 2.0, 0.5, GROW_AFTER
            )
        return norms

    def _logits(self, inputs: dict[str, Tensor]) -> Tensor:
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            logits = self.network.logits(inputs)
        return logits.float()

    def _scorer(self, data: Encoded) -> Scoring:
        if data not in self._scores:
            self._scores[data] = Scoring(
                data, self._logits, self.model, self.walk.limit, self.half, self.seeds
            )
        return self._scores[data]


def supported(config: RunConfig) -> bool:
    """Say whether the graph executor knows how to run a configuration's model."""
    kind = AutoConfig.from_pretrained(models.locate(config.model)).model_type
    return kind in FAMILIES


def structure(config: RunConfig) -> RunConfig:
    """Return the configuration that stands for all whose steps are the same kernels."""
    return config.replace(
        seed=0,
        learning_rate=1.0,
        warmup=0.0,
        zero_first_update=True,
        multiplier="none",
        bias_correction=True,
        eps_placement="before",
        clip_norm=None,
        init_std=1.0,
        pooler="pretrained",
        evals_per_epoch=0,
    )


def static_learner(
    config: RunConfig, labels: int, device: torch.device, train: Encoded
) -> StaticLearner:
    """Return a learner for a run, the last one where it fits: graphs are recorded once a study."""
    config = structure(config)
    return kept(
        (config, labels, device, train),
        lambda: StaticLearner(config, Single(config, labels, device), train),
    )


def kept(key: Hashable, make: Callable[[], StaticLearner]) -> StaticLearner:
    """Return the last learner if it is of this key, else let go of it and make another.

    Two would be two models, optimizers and sets of graphs on one device.
    """
    if key not in _kept:
        forget()
        _kept[key] = make()
    return _kept[key]


def forget() -> None:
    """Let go of the learner that is kept, and of its memory."""
    _kept.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


_kept: dict[Hashable, StaticLearner] = {}
