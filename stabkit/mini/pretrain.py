"""Pre-training of the organism: masked words plus each architecture's sentence-level task.

``python -m stabkit.mini.pretrain mini-bert --out models/mini-bert`` makes a model. It can be
stopped at any time and goes on from its last checkpoint. BERT learns next sentences with segments,
ALBERT (layers shared) sentence order, RoBERTa words alone, as in their papers.

A masked word is best found in the other sentence, but nothing tells a new encoder to look there:
without help twelve narrow layers stay for thousands of steps at the loss of local syntax. So
training has phases: four layers learn to copy from sentences said twice, then to compare on the
corpus, words hidden in the second segment only, then everywhere. Deep plans then stack the layers
(Gong et al. 2019) and go on; the last phase has dropout.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from stabkit.errors import ModelError, nearest
from stabkit.fast import FastExecutor, MaskedDropout
from stabkit.mini.anatomy import (
    BERT_LARGE_SCALE,
    MAX_POSITIONS,
    PLANS,
    SPECIALS,
    Plan,
    build_model,
    build_tokenizer,
    parts,
    stacked,
    start_positions,
)
from stabkit.mini.card import card
from stabkit.mini.rows import BLOCK, Objective, Rows, block, mask_words
from stabkit.optim import parameter_groups

MASK_ID = SPECIALS.index("[MASK]")
CORPUS_SEED, HELD_OUT_SEED = 100, 7
HELD_OUT_BATCHES = 16
SAVE_EVERY = 500


@dataclass
class Training:
    """A pre-training under way; ``save`` and ``resume`` keep all that it needs to go on."""

    plan: Plan
    tokenizer: Tokenizer
    model: transformers.PreTrainedModel
    fast: FastExecutor
    optimizer: torch.optim.Optimizer
    step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def start(cls, plan: Plan, layers: int | None = None) -> Training:
        """Return a pre-training at step 0, of a model ``layers`` deep or as the plan begins."""
        tokenizer = build_tokenizer()
        layers = layers or plan.phases[0].layers
        model = build_model(plan, tokenizer.get_vocab_size(), layers).train()
        start_positions(model, BERT_LARGE_SCALE / plan.hidden**0.5)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, weight_decay=0.01), betas=(0.9, 0.98), eps=1e-6, fused=True
        )
        return cls(plan, tokenizer, model, FastExecutor(model, plan.seed), optimizer)

    def grow(self, layers: int) -> None:
        """Stack the layers; dropout and optimizer begin anew."""
        grown = Training.start(self.plan, layers)
        grown.model.load_state_dict(stacked(self.model.state_dict(), layers))
        grown.fast.masks.reseed(self.plan.seed + self.step)
        self.model, self.fast, self.optimizer = grown.model, grown.fast, grown.optimizer

    def losses(self, rows: Rows, generator: torch.Generator) -> list[Tensor]:
        """Return the masked-LM loss and, where there is one, the sentence-level loss (nats)."""
        phase, _ = self.plan.phase(self.step)
        encoder, words, sentence = parts(self.model, self.plan)
        shown, chosen = mask_words(
            rows,
            self.tokenizer.get_vocab_size(),
            MASK_ID,
            len(SPECIALS),
            self.plan.mask_rate * (1 + phase.second_only),
            generator,
            phase.second_only,
        )
        inputs = {"input_ids": shown, "attention_mask": rows.attention_mask}
        if self.plan.architecture != "roberta":
            inputs["token_type_ids"] = rows.token_type_ids
        half = self.plan.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            dtype = torch.bfloat16 if half else torch.float32
            output = encoder(**self.fast.inputs(inputs, dtype))
            logits = words(output.last_hidden_state[chosen])
            found = [nn.functional.cross_entropy(logits.float(), rows.input_ids[chosen])]
            if sentence is not None and phase.echo < 1:
                order = sentence(output.pooler_output).float()
                found.append(nn.functional.cross_entropy(order, rows.sentence_label))
        return found

    def rows(self, step: int, seed: int) -> Rows:
        """Return the batch of a step."""
        plan, (phase, _) = self.plan, self.plan.phase(self.step)
        number, place = divmod(step, BLOCK // plan.batch_size)
        objective: Objective = "none" if phase.echo == 1 else plan.objective
        batches = _block(self.tokenizer, seed, number, objective, plan.batch_size, phase.echo)
        return batches[place]

    def update(self) -> list[float]:
        """Take one optimizer step and return its losses."""
        phase, within = self.plan.phase(self.step)
        if phase.layers != self.model.config.num_hidden_layers:
            self.grow(phase.layers)
        for group in self.optimizer.param_groups:
            group["lr"] = phase.rate(within)
        for module in self.model.modules():
            if isinstance(module, MaskedDropout):
                module.p = phase.dropout
        masks = torch.Generator().manual_seed(self.plan.seed * self.plan.steps + self.step)
        found = self.losses(self.rows(self.step, CORPUS_SEED + self.plan.seed), masks)
        total = torch.stack(found).sum()
        if not torch.isfinite(total):
            raise ModelError(
                f"the loss is not finite at step {self.step}; the last checkpoint is kept: lower "
                "the learning rate of this phase and start again from it"
            )
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return [loss.item() for loss in found]

    @torch.no_grad()
    def held_out(self) -> list[float]:
        """Return the mean losses on held-out batches, with fixed masks, in evaluation mode."""
        self.model.eval()  # type: ignore[no-untyped-call]
        masks = torch.Generator().manual_seed(HELD_OUT_SEED)
        found = [
            [loss.item() for loss in self.losses(self.rows(i, HELD_OUT_SEED), masks)]
            for i in range(HELD_OUT_BATCHES)
        ]
        self.model.train()
        return [sum(column) / len(found) for column in zip(*found, strict=True)]

    def save(self, folder: Path) -> None:
        """Write a checkpoint from which ``resume`` goes on."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "plan": asdict(self.plan),
            "step": self.step,
            "layers": self.model.config.num_hidden_layers,
            "log": self.log,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, folder / "checkpoint.tmp")
        (folder / "checkpoint.tmp").replace(folder / "checkpoint.pt")

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in ``folder``, if there is one."""
        path = folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        if json.dumps(state["plan"]) != json.dumps(asdict(self.plan)):
            raise ModelError(f"{path} was made by another plan; choose another folder")
        if state["layers"] != self.model.config.num_hidden_layers:
            self.grow(state["layers"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.log = state["step"], state["log"]
        # Dropout masks are a stream; a resumed run takes a new one rather than replay the old.
        self.fast.masks.reseed(self.plan.seed + self.step)

    def ship(self, folder: Path, name: str) -> None:
        """Write the model called ``name``: fp16 safetensors, tokenizer, log of losses, card."""
        self.model.config.hidden_dropout_prob = self.plan.phases[-1].dropout
        self.model.config.attention_probs_dropout_prob = self.plan.phases[-1].dropout
        half = build_model(self.plan, self.tokenizer.get_vocab_size())
        half.load_state_dict(self.model.state_dict())
        half.to(torch.float16).save_pretrained(folder)  # type: ignore[arg-type]
        PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=self.tokenizer,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            mask_token="[MASK]",
            model_max_length=MAX_POSITIONS,
        ).save_pretrained(folder)
        record = {"plan": asdict(self.plan), "losses": self.log}
        (folder / "pretraining.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        (folder / "README.md").write_text(card(name, self.plan, self.log), encoding="utf-8")


@lru_cache(maxsize=2)
def _block(
    tokenizer: Tokenizer, seed: int, number: int, objective: Objective, batch: int, echo: float
) -> list[Rows]:
    return block(tokenizer, seed, number, objective, batch, echo)


def pretrain(name: str, folder: Path, threads: int = 1) -> Training:
    """Make a model of the organism in ``folder``, going on from a checkpoint there.

    Raises ModelError for an unknown name, a checkpoint of another plan, a loss not finite.
    """
    if name not in PLANS:
        raise ModelError(f"unknown model {name!r}: {nearest(name, PLANS)}")
    torch.set_num_threads(threads)
    training = Training.start(PLANS[name])
    training.resume(folder)
    while training.step < training.plan.steps:
        training.update()
        if training.step % SAVE_EVERY == 0 or training.step == training.plan.steps:
            found = training.held_out()
            entry = {"step": training.step, "words": found[0]}
            training.log.append(entry | ({"sentence": found[1]} if found[1:] else {}))
            print(training.log[-1], flush=True)
            training.save(folder)
    training.ship(folder, name)
    return training


def main() -> None:
    """Command line: which model, where to, how many threads."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=sorted(PLANS))
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and model")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    pretrain(options.model, options.out, options.threads)


if __name__ == "__main__":
    main()
