"""The graph executor: the plain loop's steps, each a fixed sequence of kernels on fixed tensors.

The mathematics and the batches are those of ``stabkit.loop.fine_tune``. What differs: texts lie
on the device and batches are padded to a multiple of 16 tokens, so that one CUDA graph a shape
holds the whole step (forward, backward, norms, clipping, update, records); nothing in it waits
for the host. Model, graphs and buffers serve the next seed, too: all that distinguishes it is
copied into place. On a CPU the same functions run without a graph, which is how they are tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from stabkit import models
from stabkit.batches import EVALUATION_BATCH, Encoded, evaluation_rows, training_rows
from stabkit.config import RunConfig
from stabkit.fast import FAMILIES
from stabkit.geometry import Weights
from stabkit.graph import Captured
from stabkit.loop import HALF, Watch, evaluation_steps, rates, set_precision
from stabkit.mixout import Mixout, apply_mixout, plain_name
from stabkit.optim import parameter_groups
from stabkit.records import Records
from stabkit.static_adamw import StaticAdamW
from stabkit.walk import Walk

START_SCALE, GROW_AFTER = 2.0**16, 2000  # as torch's GradScaler


class Network(Protocol):
    """One model or several of one shape: what a static step needs of it."""

    model: PreTrainedModel
    names: list[str]
    groups: list[dict[str, Any]]
    generators: list[torch.Generator]

    def load(self, configs: Sequence[RunConfig], labels: int) -> None:
        """Take on the weights with which the runs start, and reseed what is random."""

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return logits (seeds x examples x labels) for arguments with seeds first, or 1."""

    def norms(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the L2 norm of each gradient (seeds x parameters)."""

    def divide(self, gradients: Sequence[Tensor], divisor: Tensor) -> Tensor | None:
        """Divide each seed's gradients by its divisor, or return what the optimizer divides by."""


class Single:
    """One model, with Mixout where the run has it."""

    def __init__(self, config: RunConfig, labels: int, device: torch.device) -> None:
        """Build a model of the run's shape on the device; ``load`` gives it its weights."""
        self.model = models.build(config, labels)
        self.model.to(device)  # type: ignore[arg-type]
        self.generators: list[torch.Generator] = []
        if config.mixout:
            self.generators = [torch.Generator(device)]
            masks = (config.mixout_mask, config.mixout_rescale_gradient)
            apply_mixout(self.model, config.mixout, self.generators[0], *masks)
        self.groups = parameter_groups(self.model, config.weight_decay)
        names = {id(p): plain_name(name) for name, p in self.model.named_parameters()}
        self.names = [names[id(p)] for group in self.groups for p in group["params"]]

    @torch.no_grad()
    def load(self, configs: Sequence[RunConfig], labels: int) -> None:
        """See ``Network``."""
        (config,) = configs
        fresh = models.build(config, labels).state_dict()
        for name, tensor in self.model.state_dict().items():
            tensor.copy_(fresh[plain_name(name)])
        for name, module in self.model.named_modules():
            if isinstance(module, Mixout):
                linear = name.partition(".parametrizations.")[0]
                module.pretrained.copy_(fresh[f"{linear}.weight"])
        for generator in self.generators:
            generator.manual_seed(_seed(config))

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """See ``Network``."""
        arguments: dict[str, Any] = {name: x[0] for name, x in inputs.items()}
        found: Tensor = self.model(**arguments).logits
        return found[None]

    def norms(self, gradients: Sequence[Tensor]) -> Tensor:
        """See ``Network``."""
        return torch.stack(torch._foreach_norm(list(gradients)))[None]

    def divide(self, gradients: Sequence[Tensor], divisor: Tensor) -> Tensor | None:
        """See ``Network``; torch's AdamW kernel divides on its way."""
        return divisor[0]


def _seed(config: RunConfig) -> int:
    assert config.dropout_seed is not None, "RunConfig resolves its seeds"
    return config.dropout_seed


class StaticLearner:
    """Runs of one shape, one after the other or (of a network of several seeds) at once."""

    def __init__(
        self, config: RunConfig, labels: int, network: Network, train: Encoded, seeds: int = 1
    ) -> None:
        """Allocate everything that the runs need; ``config`` stands for all of their shape."""
        self.network, self.labels, self.train, self.seeds = network, labels, train, seeds
        self.model, self.device = network.model, network.model.device
        self.half = HALF.get(config.precision)
        steps, limit = config.steps(len(train)), config.max_length
        self.walk = self._walk(train, steps, config.batch_size, limit, seeds)
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
        self.steps = Captured(self._step, self.device, self.walk.at.zero_, network.generators)
        self._scores: dict[Encoded, tuple[Walk, Tensor, Captured]] = {}

    def fine_tune(
        self, configs: Sequence[RunConfig], dev: Encoded, watch: Watch = lambda *_: None
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
        walk, found, score = self._scorer(data)
        walk.at.zero_()
        for shape in walk.shapes:
            score(shape)
        self.model.train()
        return found.cpu().numpy()

    def weights(self) -> Weights:
        """Return the weights as they are, under their plain names; the next run changes them."""
        return {plain_name(name): x for name, x in self.model.state_dict().items()}

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
        self.walk.at.zero_()
        self.network.load(configs, self.labels)
        self.optimizer.restart(config, schedule)
        self.clip.fill_(float("inf") if config.clip_norm is None else config.clip_norm)
        if self.scale is not None:
            self.scale.fill_(START_SCALE)
            self.unbroken.zero_()
        torch.manual_seed(_seed(config))

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

    def _walk(self, data: Encoded, batches: int, size: int, limit: int, seeds: int) -> Walk:
        padding = self.model.config.pad_token_id or 0
        return Walk(data, batches, size, limit, padding, self.device, seeds)

    def _scorer(self, data: Encoded) -> tuple[Walk, Tensor, Captured]:
        """Return the way through a split, where its logits go, and what finds a batch of them."""
        if data not in self._scores:
            rows = list(evaluation_rows(data))
            walk = self._walk(data, len(rows), EVALUATION_BATCH, self.walk.limit, 1)
            walk.restart([rows])
            found = torch.zeros(self.seeds, len(data), self.labels, device=self.device)
            score = Captured(self._score(walk, found), self.device, walk.at.zero_)
            score.prepare(walk.shapes)
            self._scores[data] = walk, found, score
        return self._scores[data]

    def _score(self, walk: Walk, found: Tensor) -> Callable[[int, int], None]:
        @torch.no_grad()
        def score(size: int, length: int) -> None:
            batch = walk.batch(size, length, self.half or torch.float32)
            found.index_copy_(1, batch.rows[0], self._logits(batch.inputs))
            walk.at.add_(1)

        return score


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
    return _learner(structure(config), labels, device, train)


@lru_cache(maxsize=1)  # a second one would hold a model and its optimizer beside the first
def _learner(config: RunConfig, labels: int, device: torch.device, train: Encoded) -> StaticLearner:
    return StaticLearner(config, labels, Single(config, labels, device), train)
