"""Layer swap and loss surface: points per second and memory, beside what one would do otherwise.

``python benchmarks/analyses.py`` measures, in turn and each in a process of its own, one thread:

- a loss surface on 512 examples of mini-RTE, against ``planar_interpolation`` of the public package
  ``loss-landscapes`` (``pip install --no-deps loss-landscapes``) with the model as transformers
  runs it and batches padded to their longest example;
- the same with the norm of the gradient at each point, which that package does not measure;
- a layer swap with all k in one pass, against a model loaded, swapped and scored for each k;

and last, once, planes as the book has them: 21 x 21 points, without and with gradient norms, all
cores.

The peak is the memory that an analysis takes beyond what its process had before it. Machines are
shared and noisy: only the ratios of one run mean anything.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from step import memory
from workloads import here

MODEL, EXAMPLES = "mini-bert", 512
SIDE = 21  # of the book's planes


def _models() -> tuple[Any, list[Any]]:
    """Return a configuration and three classifiers that differ as checkpoints of runs do."""
    import torch

    from stabkit import models, train
    from stabkit.presets import preset

    config = train.pin(preset("devlin", model=MODEL))
    found = [models.build(config.replace(seed=seed), 2).eval() for seed in range(3)]
    with torch.no_grad():
        for seed, model in enumerate(found):
            noise = torch.Generator().manual_seed(seed)
            for weight in model.parameters():
                weight.add_(0.01 * torch.randn(weight.shape, generator=noise))
    return config, found


def _data(config: Any) -> Any:
    from stabkit import train
    from stabkit.batches import encode
    from stabkit.tasks import subset

    return encode(config, subset(train.task_of(config), EXAMPLES, seed=0).train)


def _surface(side: int, gradient: bool = False) -> Any:
    from stabkit.geometry import Plane, grid
    from stabkit.surface import surface

    config, found = _models()
    plane, data = Plane(*(model.state_dict() for model in found)), _data(config)
    mesh = grid(-0.5, 1.5, side)
    return lambda: surface(plane, found[0], data, mesh, gradient=gradient)


def _peer_surface(side: int) -> Any:
    import numpy as np
    import torch
    from loss_landscapes import planar_interpolation  # type: ignore[import-not-found]
    from loss_landscapes.metrics import Metric  # type: ignore[import-not-found]

    from stabkit.batches import EVALUATION_BATCH

    config, found = _models()
    data = _data(config)
    batches = np.array_split(np.arange(EXAMPLES), EXAMPLES // EVALUATION_BATCH)
    labels = torch.tensor(data.labels)

    class Loss(Metric):  # type: ignore[misc]
        def __call__(self, _wrapper: Any) -> float:
            logits = torch.cat([found[0](**data.batch(rows)).logits for rows in batches])
            return float(torch.nn.functional.cross_entropy(logits, labels))

    def measure() -> None:
        with torch.no_grad():
            planar_interpolation(*found, Loss(), steps=side)

    return measure


def _swap(_side: int) -> Any:
    from stabkit.masking import held_out_text
    from stabkit.mlm import layer_swap

    _, found = _models()
    text = held_out_text(MODEL)
    return lambda: layer_swap(found[0], MODEL, text)


def _peer_swap(_side: int) -> Any:
    """Load the pre-trained model and score it for every k, the fine-tuned layers put in by hand."""
    from stabkit.masking import held_out_text
    from stabkit.mlm import masked_lm, perplexity

    _, found = _models()

    def measure() -> None:
        depth = found[0].config.num_hidden_layers
        for k in range(depth + 1):
            model, text = masked_lm(MODEL), held_out_text(MODEL)
            tuned = found[0].base_model
            model.base_model.embeddings.load_state_dict(tuned.embeddings.state_dict())
            for i in range(depth - k):
                weights = tuned.encoder.layer[i].state_dict()
                model.base_model.encoder.layer[i].load_state_dict(weights)
            perplexity(model, text)

    return measure


LOSS, GRADIENTS = "surface, stabkit", "surface with gradient norms, stabkit"
CONTESTANTS: dict[str, tuple[Callable[[int], Callable[[], Any]], str]] = {
    "surface, loss-landscapes": (_peer_surface, ""),
    LOSS: (_surface, "surface, loss-landscapes"),
    GRADIENTS: (partial(_surface, gradient=True), "surface, loss-landscapes"),
    "layer swap, a model per k": (_peer_swap, ""),
    "layer swap, stabkit": (_swap, "layer swap, a model per k"),
}  # how each is set up, and whose seconds its own are compared with


def _one(name: str, side: int, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    measure = CONTESTANTS[name][0](side)
    before, started = memory("VmRSS"), time.perf_counter()
    measure()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak": (memory("VmHWM") - before) / 1024}))


def _measure(name: str, side: int, threads: int = 1) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", name]
    command += ["--side", str(side), "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run all contestants in turn, several rounds, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=4, help="points along a side of the surface")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for the whole plane")
    options = parser.parse_args()
    if options.one:
        _one(options.one, options.side, options.threads)
        return
    side = f"{options.side} x {options.side} points"
    print(f"{here()}; medians of {options.rounds} rounds, {side}, one thread\n")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for _ in range(options.rounds):
        for name in CONTESTANTS:
            found[name].append(_measure(name, options.side))
    print("| | seconds | x the other | peak MiB |\n|---|---|---|---|")
    for name, rounds in found.items():
        seconds, peak = (statistics.median(r[key] for r in rounds) for key in ("seconds", "peak"))
        others = found[CONTESTANTS[name][1] or name]
        ratios = [o["seconds"] / r["seconds"] for o, r in zip(others, rounds, strict=True)]
        print(f"| {name} | {seconds:.1f} | {statistics.median(ratios):.2f} | {peak:.0f} |")
    for name in (LOSS, GRADIENTS):
        print(whole(name, options.threads))


def whole(name: str, threads: int) -> str:
    """Return the row of a plane as the book has it, on all cores."""
    found = _measure(name, SIDE, threads)
    named = f"{name}, {SIDE} x {SIDE} points, {threads} threads"
    return f"| {named} | {found['seconds']:.0f} | | {found['peak']:.0f} |"


if __name__ == "__main__":
    main()
