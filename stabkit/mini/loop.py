"""The loop of pre-training: a model, a plan of phases, and a source that the rows come from.

A source gives the batch of any step by its number, so a checkpoint holds nothing of the text: a
training can be stopped at any time and goes on from its last checkpoint as if it had not been, to
the bit on one machine. No step waits for the device: losses are looked at before each checkpoint.
"""

from __future__ import annotations

import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from stabkit import storage
from stabkit.errors import ModelError, StabkitError
from stabkit.fast import FastExecutor
from stabkit.mini.anatomy import (
    BERT_LARGE_SCALE,
    MAX_POSITIONS,
    Anatomy,
    build_model,
    parts,
    published,
    stacked,
    start_positions,
)
from stabkit.mini.batch import Batch, Source
from stabkit.optim import parameter_groups
from stabkit.precision import has_bf16, leave_out_cudnn_attention

CHECKPOINT = "checkpoint.pt"
LOSSES = ("words", "sentence")


@dataclass(frozen=True)
class Machine:
    """On what a model is trained: device, precision of the products, compiled by torch or not."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Literal["fp32", "bf16"] = "fp32"
    compiled: bool = False

    @classmethod
    def choose(
        cls, device: str | None = None, precision: str | None = None, compiled: bool = False
    ) -> Machine:
        """Return what is asked for, else the GPU where there is one, and bf16 where it is native.

        Raises ModelError for a device that is not here.
        """
        try:
            chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
            reason = str(error).splitlines()[0]
            raise ModelError(f"no device {device!r} ({reason}); expected cpu or cuda") from error
        half = precision == "bf16" if precision else has_bf16(chosen)
        return cls(chosen, "bf16" if half else "fp32", compiled)


@dataclass
class Training:
    """A pre-training under way; ``save`` and ``resume`` keep all that it needs to go on."""

    plan: Any  # an Anatomy that is a dataclass
    source: Source
    machine: Machine
    model: transformers.PreTrainedModel
    fast: FastExecutor | None
    optimizer: torch.optim.Optimizer
    step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Compile what is run at every step."""
        self._losses: Callable[..., Tensor] = self._measure
        if self.machine.compiled:
            self._losses = torch.compile(self._measure, dynamic=False)

    @classmethod
    def start(
        cls,
        plan: Anatomy,
        source: Source,
        machine: Machine | None = None,
        layers: int | None = None,
    ) -> Training:
        """Return a pre-training at step 0, of a model ``layers`` deep or as the plan begins."""
        leave_out_cudnn_attention()
        machine = machine or Machine()
        layers = layers or plan.phases[0].layers
        model = build_model(plan, source.tokenizer.get_vocab_size(), layers).train()
        start_positions(model, BERT_LARGE_SCALE / plan.hidden**0.5)
        model.to(machine.device)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, weight_decay=0.01), betas=(0.9, 0.98), eps=1e-6, fused=True
        )
        on_cpu = machine.device.type == "cpu" and not machine.compiled
        fast = FastExecutor(model, plan.seed) if on_cpu else None
        return cls(plan, source, machine, model, fast, optimizer)

    def grow(self, layers: int) -> None:
        """Stack the layers; dropout and optimizer begin anew."""
        grown = Training.start(self.plan, self.source, self.machine, layers)
        grown.model.load_state_dict(stacked(self.model.state_dict(), layers))
        self.model, self.fast, self.optimizer = grown.model, grown.fast, grown.optimizer
        self._reseed()

    def _reseed(self) -> None:
        """Begin a new stream of dropout masks, told by the step alone."""
        if self.fast:
            self.fast.source.reseed(self.plan.seed + self.step)
        else:
            torch.manual_seed(self.plan.seed + self.step)

    def losses(self, batch: Batch) -> Tensor:
        """Return the masked-LM loss and, where it is asked for, the sentence-level loss (nats)."""
        half, inputs = self.machine.precision == "bf16", dict(batch.inputs)
        if self.fast:
            inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
            dtype = torch.bfloat16 if half else torch.float32
            inputs = self.fast.inputs(inputs, dtype)  # type: ignore[assignment]
        with torch.autocast(self.machine.device.type, torch.bfloat16, enabled=half):
            return self._losses(inputs, batch.places, batch.targets, batch.label)

    def _measure(
        self, inputs: dict[str, Tensor], places: Tensor, targets: Tensor, label: Tensor | None
    ) -> Tensor:
        encoder, words, sentence = parts(self.model, self.plan)
        output = encoder(**inputs)
        logits = words(output.last_hidden_state.flatten(0, 1)[places])
        found = [nn.functional.cross_entropy(logits.float(), targets)]
        if label is not None:
            found.append(nn.functional.cross_entropy(sentence(output).float(), label))
        return torch.stack(found)

    def update(self) -> Tensor:
        """Take one optimizer step and return its losses, which may not be there yet (a GPU's)."""
        phase, within = self.plan.phase(self.step)
        if phase.layers != self.model.config.num_hidden_layers:
            self.grow(phase.layers)
        for group in self.optimizer.param_groups:
            group["lr"] = phase.rate(within)
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = phase.dropout
        found = self.losses(self.source.batch(self.step))
        found.sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return found.detach()

    @torch.no_grad()
    def held_out(self) -> list[float]:
        """Return the mean losses on held-out batches, with fixed masks, in evaluation mode."""
        self.model.eval()  # type: ignore[no-untyped-call]
        found = torch.stack([self.losses(batch) for batch in self.source.held_out(self.step)])
        self.model.train()
        return [float(loss) for loss in found.double().mean(0)]

    def run(self, folder: Path, every: int) -> None:
        """Train to the end of the plan, with a checkpoint in ``folder`` at every so many steps.

        Raises ModelError where a loss is not finite: the last checkpoint is kept.
        """
        while self.step < self.plan.steps:
            first, begun = self.step, time.perf_counter()
            losses = [self.update().sum()]
            while self.step % every and self.step < self.plan.steps:
                losses.append(self.update().sum())
            lost = (~torch.isfinite(torch.stack(losses))).nonzero().flatten().tolist()
            seconds, found = time.perf_counter() - begun, self.held_out()
            if lost or not math.isfinite(sum(found)):
                raise ModelError(_not_finite(first + (lost or [len(losses)])[0], first, folder))
            self.log.append({"step": self.step, **dict(zip(LOSSES, found, strict=False))})
            rows = len(losses) * self.plan.batch_size / seconds
            print(_told(self.log[-1], self.plan.steps, rows), flush=True)
            self.save(folder)

    def save(self, folder: Path) -> None:
        """Write a checkpoint from which ``resume`` goes on.

        Raises StoreError where it cannot be written; the last one is then as it was.
        """
        state = {
            **self._identity(),
            "step": self.step,
            "layers": self.model.config.num_hidden_layers,
            "log": self.log,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, content := io.BytesIO())
        storage.save(folder / CHECKPOINT, content.getbuffer())
        self._reseed()  # as ``resume`` does, so that a stop changes nothing

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in ``folder``, if there is one.

        Raises ModelError for a checkpoint that is damaged, or of another plan or source.
        """
        path = folder / CHECKPOINT
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=self.machine.device, weights_only=True)
        except Exception as error:  # of many kinds, as the damage is
            raise ModelError(
                f"{path} cannot be read as a checkpoint ({type(error).__name__}); put a copy in "
                "its place, or remove it to begin anew"
            ) from error
        for name, mine in self._identity().items():
            if json.dumps(state.get(name)) != json.dumps(mine):
                raise ModelError(f"{path} was made by another {name}; choose another folder")
        if state["layers"] != self.model.config.num_hidden_layers:
            self.grow(state["layers"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.log = state["step"], state["log"]
        self._reseed()

    def _identity(self) -> dict[str, Any]:
        return {"plan": asdict(self.plan), **self.source.identity}

    def ship(self, folder: Path, card: str) -> None:
        """Write the model: fp16 safetensors, tokenizer, log of losses, ``card`` as its README."""
        depth = self.model.config.num_hidden_layers
        half = build_model(self.plan, self.source.tokenizer.get_vocab_size(), depth)
        half.load_state_dict(self.model.state_dict())
        published(half).to(torch.float16).save_pretrained(folder)  # type: ignore[arg-type]
        PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=self.source.tokenizer,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            mask_token="[MASK]",
            model_max_length=MAX_POSITIONS,
        ).save_pretrained(folder)
        record = {**self._identity(), "losses": self.log}
        (folder / "pretraining.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        (folder / "README.md").write_text(card, encoding="utf-8")


def at_least_one(**counts: int) -> None:
    """Raise ModelError for an option that counts something and is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ModelError(f"--{name.replace('_', '-')} is {count}; expected 1 or more")


@contextmanager
def in_a_sentence() -> Iterator[None]:
    """End a command with a StabkitError as a sentence (exit status 2), and when it is stopped."""
    try:
        yield
    except StabkitError as error:
        print(f"stabkit: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def _not_finite(step: int, saved: int, folder: Path) -> str:
    kept = f"the checkpoint of step {saved} in {folder} is kept" if saved else "nothing is kept"
    return f"the loss is not finite at step {step}; {kept}. Take a lower rate, in a new folder"


def _told(entry: Mapping[str, float], steps: int, rows: float) -> str:
    order = f", sentence {entry['sentence']:.3f}" if "sentence" in entry else ""
    return (
        f"step {entry['step']} of {steps}: held-out words {entry['words']:.3f} (perplexity "
        f"{math.exp(entry['words']):.1f}){order}; {rows:.0f} rows a second"
    )
