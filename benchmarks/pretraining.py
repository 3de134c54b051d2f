"""Tokens per second of pre-training: this loop, Hugging Face's Trainer, and the machine's floor.

``python benchmarks/pretraining.py --text FILE`` trains the plan of ``mini-wiki`` at full depth on
the same model and rows in turn, each contestant in a process of its own, several rounds, and prints
medians and ratios. The floor is what the arithmetic or the memory traffic of a step would take at
the rates measured here, whichever is longer. ``--toy`` is a size for a CPU. Machines are shared and
noisy, so only the ratios of one run mean anything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CONTESTANTS = {
    "stabkit": {"loop": "stabkit", "compiled": False},
    "stabkit, compiled": {"loop": "stabkit", "compiled": True},
    "Trainer, DataCollatorForLanguageModeling": {"loop": "trainer"},
}
BASELINE = "Trainer, DataCollatorForLanguageModeling"
SIZES = {
    False: {"layers": 24, "hidden": 160, "batch_size": 256, "vocabulary": 16_384},
    True: {"layers": 2, "hidden": 32, "batch_size": 4, "vocabulary": 300},
}
SKIPPED = 5  # steps, of warming up


def _start(options: argparse.Namespace, compiled: bool) -> Any:
    """Return a training at the last phase of its plan: all layers, with dropout."""
    from dataclasses import replace

    from stabkit.mini.loop import Machine
    from stabkit.mini.wiki import begin, text_plan

    plan = text_plan(**SIZES[options.toy])
    plan = replace(plan, phases=plan.phases[-1:])
    machine = Machine.choose(options.device, compiled=compiled)
    return begin(plan, [options.text], options.text, options.folder, machine)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _stabkit(options: argparse.Namespace, compiled: bool) -> float:
    """Return seconds a step."""
    training = _start(options, compiled)
    for _ in range(SKIPPED):
        training.update()
    _synchronise(training.machine.device)
    begun = time.perf_counter()
    for _ in range(options.steps):
        training.update()
    _synchronise(training.machine.device)
    return (time.perf_counter() - begun) / options.steps


def _trainer(options: argparse.Namespace) -> float:
    """Return seconds a step of the plain loop: the same model and rows, masked by the collator."""
    from transformers import (
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    training = _start(options, compiled=False)
    source, size = training.source, training.plan.batch_size
    words = PreTrainedTokenizerFast(
        tokenizer_object=source.tokenizer, mask_token="[MASK]", pad_token="[PAD]"
    )
    starts, generator = source._order(0), torch.Generator(training.machine.device)
    few = starts[: (SKIPPED + options.steps + 1) * size]  # a pass over a large text fills no GPU
    rows = [part.cpu() for part in source.rows(source.text, few, generator)]
    names = ("input_ids", "token_type_ids", "next_sentence_label")
    data = [dict(zip(names, row, strict=True)) for row in zip(*rows, strict=True)]
    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            if len(times) in (SKIPPED, SKIPPED + options.steps):
                _synchronise(training.machine.device)
            times.append(time.perf_counter())

    from stabkit.mini.anatomy import build_model

    model = build_model(training.plan, source.tokenizer.get_vocab_size())
    steps = SKIPPED + options.steps + 1
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            per_device_train_batch_size=size,
            max_steps=steps,
            use_cpu=training.machine.device.type == "cpu",
            bf16=training.machine.precision == "bf16",
            report_to=[],
            save_strategy="no",
            logging_steps=10**6,
            disable_tqdm=True,
        )
        collator = DataCollatorForLanguageModeling(words, mlm_probability=0.15)
        Trainer(model, arguments, collator, data, callbacks=[Clock()]).train()
    return (times[SKIPPED + options.steps] - times[SKIPPED]) / options.steps


def _rate(work: float, run: Callable[[], object], device: torch.device) -> float:
    """Return ``work`` per second of ``run``, the best of several."""
    seconds = []
    for _ in range(7):
        _synchronise(device)
        begun = time.perf_counter()
        run()
        _synchronise(device)
        seconds.append(time.perf_counter() - begun)
    return work / min(seconds)


def _floor(options: argparse.Namespace) -> float:
    """Return the seconds that a step takes at least, at this machine's measured rates.

    Arithmetic: six operations for each weight of a product and token, and those of attention.
    Traffic: AdamW's fp32 state, and every activation of a layer written and read once each way.
    """
    training = _start(options, compiled=False)
    plan, device = training.plan, training.machine.device
    half = training.machine.precision == "bf16"
    dtype, width = (torch.bfloat16, 2) if half else (torch.float32, 4)
    side = 512 if options.toy else 8192
    a = torch.randn(side, side, device=device, dtype=dtype)
    flops = _rate(2 * side**3, lambda: a @ a, device)
    big = torch.zeros(side * side * 4, device=device)
    bandwidth = _rate(8 * big.numel(), lambda: big.add_(1), device)
    hidden, tokens = plan.hidden, plan.batch_size * 128
    asked = plan.batch_size * source_hidden(training)
    layer = 12 * hidden**2 * tokens + 2 * 128 * hidden * tokens
    head = (hidden**2 + hidden * plan.vocabulary) * asked
    arithmetic = 6 * (plan.layers * layer + head)
    state = 7 * 4 * sum(x.numel() for x in training.model.parameters())
    activations = plan.layers * 4 * 14 * hidden * tokens * width  # 14: outputs of a layer's parts
    return max(arithmetic / flops, (state + activations) / bandwidth)


def source_hidden(training: Any) -> int:
    """Return how many words of a row are hidden."""
    return int(training.source.hidden)


def _one(options: argparse.Namespace) -> float:
    if options.one == "floor":
        return _floor(options)
    chosen = dict(CONTESTANTS[options.one])
    return _trainer(options) if chosen.pop("loop") == "trainer" else _stabkit(options, **chosen)


def _measure(name: str, folder: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--one", name, "--folder", folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Run all contestants in turn, several rounds, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--skip-compiled", action="store_true", help="compiling takes a minute")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_one(options)))
        return
    names = [n for n in CONTESTANTS if not (options.skip_compiled and "compiled" in n)] + ["floor"]
    found: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name in names:
                found[name].append(_measure(name, folder))
    print(f"{'':42}{'tokens/s':>12}{'x Trainer':>11}{'x floor':>9}")
    tokens = SIZES[options.toy]["batch_size"] * 128
    for name, seconds in found.items():
        pairs = zip(seconds, found[BASELINE], found["floor"], strict=True)
        faster, above = zip(*((peer / own, own / least) for own, peer, least in pairs), strict=True)
        print(
            f"{name:42}{tokens / statistics.median(seconds):12.0f}"
            f"{statistics.median(faster):11.2f}{statistics.median(above):9.2f}"
        )


if __name__ == "__main__":
    main()
