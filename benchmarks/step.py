"""Training steps per second and peak memory: this loop against Hugging Face's Trainer.

``python benchmarks/step.py`` trains the same model on the same batches (mini-RTE, batch 16, one
thread) in turn, each contestant in a process of its own, and prints medians and ratios. Machines
are shared and noisy, so only the ratios of one run mean anything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

CONTESTANTS = {
    "stabkit, fast, fp32": {"loop": "stabkit", "executor": "fast", "precision": "fp32"},
    "stabkit, fast, bf16": {"loop": "stabkit", "executor": "fast", "precision": "bf16"},
    "stabkit, fast, fp32, no gradient norms": {
        "loop": "stabkit",
        "executor": "fast",
        "precision": "fp32",
        "norms": False,
    },
    "stabkit, plain, fp32": {"loop": "stabkit", "executor": "plain", "precision": "fp32"},
    "Trainer, defaults (fp32, sdpa)": {"loop": "trainer", "attention": "sdpa", "half": False},
    "Trainer, best (bf16, eager, fused)": {"loop": "trainer", "attention": "eager", "half": True},
}
BASELINE = "Trainer, defaults (fp32, sdpa)"


def _model_folder(folder: Path) -> None:
    """Save an organism of the shipped size; the time of a step does not depend on the weights."""
    from stabkit.mini.anatomy import PLANS
    from stabkit.mini.pretrain import start

    start(PLANS["mini-bert"]).ship(folder, "An untrained organism.\n")


def _stabkit(
    folder: str, steps: int, executor: Any, precision: Any, norms: bool = True
) -> list[float]:
    import torch

    from stabkit import train
    from stabkit.batches import encode
    from stabkit.presets import preset

    torch.set_num_threads(1)
    config = preset("devlin", model=folder, task="mini-rte", max_steps=steps, evals_per_epoch=0)
    config = train.pin(config.replace(precision=precision))
    task = train.task_of(config)
    data, dev = (
        encode(config, split) for split in (task.train, task.dev.take(task.dev.labels[:1]))
    )
    learner = train.Learner.build(config, len(task.labels), torch.device("cpu"), executor)
    if not norms:
        train._clip = lambda parameters, limit: _clip_only(parameters, limit)  # type: ignore[assignment]
    times: list[float] = []
    logits = learner.logits

    def timed(batch: dict[str, Any]) -> Any:
        times.append(time.perf_counter())
        return logits(batch)

    learner.logits = timed  # type: ignore[method-assign]
    train.fine_tune(learner, data, dev)
    return times


def _clip_only(parameters: Any, limit: float | None) -> Any:
    """Clip as torch does, keeping no norms: what the loop would do without recording."""
    import torch

    torch.nn.utils.clip_grad_norm_(parameters, limit or float("inf"))
    return torch.zeros(len(parameters))


def _trainer(folder: str, steps: int, attention: str, half: bool) -> list[float]:
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from stabkit.tasks import load_task

    torch.set_num_threads(1)
    split, tokenizer = load_task("mini-rte").train, AutoTokenizer.from_pretrained(folder)
    rows = tokenizer(list(split.texts_a), list(split.texts_b or ()), return_token_type_ids=False)
    data = [
        {"input_ids": ids, "attention_mask": mask, "labels": int(label)}
        for ids, mask, label in zip(
            rows["input_ids"], rows["attention_mask"], split.labels, strict=True
        )
    ]
    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as output:
        Trainer(
            model=AutoModelForSequenceClassification.from_pretrained(
                folder,
                num_labels=2,
                attn_implementation=attention,
                dtype=torch.float32,
            ),
            args=TrainingArguments(
                output_dir=output,
                per_device_train_batch_size=16,
                max_steps=steps,
                learning_rate=2e-5,
                weight_decay=0.01,
                use_cpu=True,
                bf16=half,
                optim="adamw_torch_fused" if half else "adamw_torch",
                report_to=[],
                save_strategy="no",
                logging_steps=10**6,
                disable_tqdm=True,
            ),
            train_dataset=data,
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[Clock()],
        ).train()
    return times


def memory(kind: str) -> int:
    """Return this process's memory (VmRSS) or its peak (VmHWM) in KiB, as Linux tells it.

    The peak of getrusage would be that of the process which started this one, if that is larger.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{kind}:")[1].split()[0])


def _one(name: str, folder: str, steps: int) -> None:
    options = dict(CONTESTANTS[name])
    loop = _stabkit if options.pop("loop") == "stabkit" else _trainer
    times = loop(folder, steps, **options)  # type: ignore[operator]
    gaps = [after - before for before, after in pairwise(times)]
    peak = memory("VmHWM") / 1024
    print(json.dumps({"seconds": statistics.median(gaps[5:]), "peak": peak}))


def _measure(name: str, folder: str, steps: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", name, "--folder", folder, "--steps", str(steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run all contestants in turn, several rounds, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _one(options.one, options.folder, options.steps)
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as folder:
        _model_folder(Path(folder))
        for _ in range(options.rounds):
            for name in CONTESTANTS:
                found[name].append(_measure(name, folder, options.steps))
    print(f"{'':42}{'steps/s':>9}{'x defaults':>12}{'peak MiB':>10}")
    for name, rounds in found.items():
        ratios = [b["seconds"] / r["seconds"] for b, r in zip(found[BASELINE], rounds, strict=True)]
        speed = 1 / statistics.median(r["seconds"] for r in rounds)
        peak = statistics.median(r["peak"] for r in rounds)
        print(f"{name:42}{speed:9.1f}{statistics.median(ratios):12.2f}{peak:10.0f}")


if __name__ == "__main__":
    main()
