"""One training step against its peers and its physical floor: one command, one table.

``python benchmarks/step.py`` trains the same model on the same batches in turn, each contestant in
a process of its own, in several rounds, and prints medians and ratios:

- this package's loop, by every executor that the device has, and the plain one compiled (of
  several seeds at once, a step is one seed's share);
- Hugging Face's Trainer at its defaults (fp32, sdpa, dynamic padding) and at its best (each of its
  settings that may help here is tried; the fastest is the peer);
- the paper's recipe: fp32, every text padded to 128, an optimizer that is not fused;
- the floor (``floor.py``), from the machine's own matrix products and copies in the same rounds.

"Start" is all that comes before the first step that is timed: the model, compiling, recording
graphs and the steps of the warm-up. Half precision is bf16, or fp16 on a GPU that lacks it, such as
a T4.

Machines are shared and noisy, so only the ratios of one run mean anything. Without a GPU the clock
is the processor time of the one thread at work, which others' work disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from workloads import BATCH, LONGEST, WORKLOADS, Workload

WARM_UP = 5  # steps before the clock starts
DEFAULTS = "Trainer, defaults: fp32, sdpa"
FUSED = "adamw_torch_fused"
SEEDS = 25


@dataclass(frozen=True)
class Contestant:
    """Who trains, and how."""

    loop: str
    precision: str = "fp32"
    executor: str = "plain"
    norms: bool = True
    attention: str = "sdpa"
    optimizer: str = ""  # of the Trainer; its default depends on the versions of both libraries
    compiled: bool = False
    padded: bool = False
    seeds: int = 1  # trained at once


HALVES = ("bf16", "fp16")


def _trainers(half: str) -> dict[str, Contestant]:
    """Return the settings of the Trainer that may help in a half precision."""
    name = f"Trainer, {half}"
    eager = Contestant("trainer", half, attention="eager", optimizer=FUSED)
    sdpa = Contestant("trainer", half, optimizer=FUSED)
    return {
        f"{name}, eager attention, fused AdamW": eager,
        f"{name}, sdpa, fused AdamW": sdpa,
        f"{name}, sdpa, fused AdamW, compiled": replace(sdpa, compiled=True),
    }


TRAINERS = {
    DEFAULTS: Contestant("trainer"),
    "Trainer, eager attention, fused AdamW": Contestant(
        "trainer", attention="eager", optimizer=FUSED
    ),
    **{name: one for half in HALVES for name, one in _trainers(half).items()},
}
PAPER = "the paper's recipe: fp32, padded to 128"


TOGETHER = f"stabkit, {SEEDS} seeds at once, fp32"


def half_of(gpu: bool, bf16: bool) -> str | None:
    """Return the half precision to time: bf16 where it is native, else fp16 on a GPU."""
    return "bf16" if bf16 else "fp16" if gpu else None


def contestants(gpu: bool, half: str | None, small: bool) -> dict[str, Contestant]:
    """Return who runs on such a device, in fp32 and in the precision ``half``, if there is one.

    Several seeds at once are for ``small`` models, which fill no GPU.
    """
    executor = "graph" if gpu else "fast"
    ours = {
        f"stabkit, {executor}, {half}": Contestant("stabkit", str(half), executor),
        f"stabkit, {executor}, fp32": Contestant("stabkit", executor=executor),
        f"stabkit, {executor}, fp32, no gradient norms": Contestant(
            "stabkit", executor=executor, norms=False
        ),
        f"stabkit, plain, {half}, compiled": Contestant("stabkit", str(half), compiled=True),
        "stabkit, plain, fp32": Contestant("stabkit"),
        TOGETHER: Contestant("stabkit", executor="together", seeds=SEEDS),
    }
    paper = {PAPER: Contestant("trainer", attention="eager", optimizer="adamw_torch", padded=True)}
    return {
        name: one
        for name, one in (ours | TRAINERS | paper).items()
        if one.precision in ("fp32", half)
        and (gpu or not one.compiled)
        and ((gpu and small) or one.seeds == 1)
        and not (gpu and not one.norms)  # inside the graph they cannot be left out
    }


class Clock:
    """Times the steps between the warm-up and the last, the device's work included."""

    def __init__(self, steps: int) -> None:
        from floor import now

        self.steps, self.began, self.times = steps, now(), [0.0, 0.0]

    def __call__(self, step: int, model: object = None) -> None:
        """Be told how many steps are done."""
        if step in (WARM_UP, self.steps):
            from floor import now

            self.times[step == self.steps] = now()

    @property
    def seconds(self) -> float:
        """Seconds a step."""
        return (self.times[1] - self.times[0]) / (self.steps - WARM_UP)

    @property
    def start(self) -> float:
        """Seconds from the beginning to the first step that is timed."""
        return self.times[0] - self.began


def _stabkit(one: Contestant, folder: str, work: Workload, clock: Clock) -> None:
    import numpy as np
    import torch

    from stabkit import loop, train
    from stabkit.batches import Encoded
    from stabkit.presets import preset
    from stabkit.static import static_learner
    from stabkit.together import stacked_learner

    ids, lengths = work.rows(clock.steps)
    labels = np.random.default_rng(2).integers(0, 2, len(ids))
    data = Encoded(torch.from_numpy(ids), None, lengths, labels)
    few = Encoded(data.ids[:1], None, lengths[:1], labels[:1])
    config = preset("devlin", model=folder, task="mini-rte", max_steps=clock.steps)
    config = config.replace(precision=one.precision, evals_per_epoch=0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    configs = [config.replace(seed=seed) for seed in range(one.seeds)]
    if one.executor == "graph":
        static_learner(config, 2, device, data).fine_tune(configs, few, clock)
    elif one.executor == "together":
        stacked_learner(config, 2, device, data, one.seeds).fine_tune(configs, few, clock)
    else:
        if not one.norms:
            loop._clip = _clip_only
        learner = train.Learner.build(config, 2, device, one.executor)  # type: ignore[arg-type]
        if one.compiled:
            learner.model.compile()
        train.fine_tune(learner, data, few, clock)


def _clip_only(parameters: Any, optimizer: Any, limit: float | None) -> Any:
    """Clip as torch does, keeping no norms: what the loop would do without recording."""
    import torch

    updated = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(updated, limit or float("inf"))
    return torch.zeros(len(parameters))


def _trainer(one: Contestant, folder: str, work: Workload, clock: Clock) -> None:
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    ids, lengths = work.rows(clock.steps)

    class Tick(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock(state.global_step)

    def collate(rows: list[int]) -> dict[str, Any]:
        longest = LONGEST if one.padded else int(lengths[rows].max())
        return {
            "input_ids": torch.from_numpy(ids[rows, :longest]),
            "attention_mask": torch.arange(longest)[None]
            < torch.from_numpy(lengths[rows])[:, None],
            "labels": torch.tensor([row % 2 for row in rows]),
        }

    with tempfile.TemporaryDirectory() as output:
        Trainer(
            model=AutoModelForSequenceClassification.from_pretrained(
                folder, num_labels=2, attn_implementation=one.attention, dtype=torch.float32
            ),
            args=TrainingArguments(
                output_dir=output,
                per_device_train_batch_size=BATCH,
                max_steps=clock.steps,
                learning_rate=2e-5,
                weight_decay=0.01,
                use_cpu=not torch.cuda.is_available(),
                bf16=one.precision == "bf16",
                fp16=one.precision == "fp16",
                torch_compile=one.compiled,
                **({"optim": one.optimizer} if one.optimizer else {}),
                train_sampling_strategy="sequential",
                remove_unused_columns=False,
                report_to=[],
                save_strategy="no",
                logging_steps=10**6,
                disable_tqdm=True,
            ),
            train_dataset=list(range(len(ids))),  # type: ignore[arg-type]
            data_collator=collate,
            callbacks=[Tick()],
        ).train()


def memory(kind: str) -> int:
    """Return this process's memory (VmRSS) or its peak (VmHWM) in KiB, as Linux tells it.

    The peak of getrusage would be that of the process which started this one, if that is larger.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{kind}:")[1].split()[0])


def _peak() -> float:
    """Return the peak in MiB: of the GPU's memory where there is one, else of the process's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return memory("VmHWM") / 1024


def _one(one: Contestant, folder: str, work: Workload, steps: int) -> dict[str, float]:
    loops: dict[str, Callable[..., None]] = {"stabkit": _stabkit, "trainer": _trainer}
    clock = Clock(steps)
    loops[one.loop](one, folder, work, clock)
    return {"seconds": clock.seconds / one.seeds, "start": clock.start, "peak": _peak()}


def _floor(precision: str, folder: str, work: Workload, steps: int) -> dict[str, float]:
    """Return the floor of the mean step, and the ceilings that it follows from."""
    import torch
    from floor import ceilings, step_cost
    from transformers import AutoModelForSequenceClassification

    from stabkit.precision import HALF
    from stabkit.products import by_onednn

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = precision in HALF
    found = ceilings(device, HALF.get(precision, torch.float32))
    config = work.model()
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    parameters = sum(p.numel() for p in model.parameters())
    lengths = work.rows(steps)[1].reshape(steps, BATCH)[WARM_UP:]
    costs = [step_cost(config, parameters, batch, 2 if half else 4) for batch in lengths]
    seconds = statistics.mean(cost.seconds(found) for cost in costs)
    onednn = device.type == "cpu" and by_onednn()
    return {"seconds": seconds, "onednn": onednn, **asdict(found)}


def _device() -> dict[str, Any]:
    """Return what the device is and whether bf16 products are native to it."""
    import torch

    from stabkit.precision import has_bf16
    from stabkit.records import provenance

    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    facts = provenance(device, 1, "plain")
    return {
        "gpu": gpu,
        "half": half_of(gpu, has_bf16(device)),
        "hardware": facts["hardware"],
        "torch": facts["torch"],
    }


def _child(part: str, folder: str, name: str, steps: int) -> dict[str, Any]:
    """Run a part of the measurement in a process of its own, with one thread."""
    command = [sys.executable, __file__, "--part", part, "--folder", folder]
    command += ["--workload", name, "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{part} on {name} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(name: str, steps: int, rounds: int, device: dict[str, Any]) -> list[str]:
    """Measure one workload and return its table as lines of markdown."""
    names = list(contestants(device["gpu"], device["half"], name.startswith("mini")))
    floors = [f"floor, {kind}" for kind in ("fp32", device["half"]) if kind]
    found: dict[str, list[dict[str, float]]] = {part: [] for part in [*names, *floors]}
    with tempfile.TemporaryDirectory() as folder:
        WORKLOADS[name].save(Path(folder))
        for _ in range(rounds):
            for part in found:
                found[part].append(_child(part, folder, name, steps))
    return table(found, WORKLOADS[name])


def table(found: dict[str, list[dict[str, float]]], work: Workload) -> list[str]:
    """Return medians and ratios as lines of a markdown table; ratios are taken round by round."""

    def seconds(part: str) -> float:
        return statistics.median(r["seconds"] for r in found[part])

    def ratio(part: str, of: str) -> float:
        pairs = zip(found[of], found[part], strict=True)
        return statistics.median(a["seconds"] / b["seconds"] for a, b in pairs)

    best = min((part for part in found if part in TRAINERS), key=seconds)
    lines = [
        "| | steps/s | x Trainer's defaults | x Trainer's best | x the paper's recipe "
        "| share of the floor | peak MiB | start, s | 25 seeds, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for part, rounds in found.items():
        own = next((f"floor, {half}" for half in HALVES if half in part), "floor, fp32")
        ratios = [f"{ratio(part, of):.2f}" for of in (DEFAULTS, best, PAPER)]
        share = f"{ratio(part, own):.0%}"
        peak, start = (
            f"{statistics.median(r[name] for r in rounds):.{digits}f}" if name in rounds[0] else ""
            for name, digits in (("peak", 0), ("start", 1))
        )
        study = f"{SEEDS * work.steps_of_a_run * seconds(part):.0f}"
        label = f"**{part}** (its best)" if part == best else part
        cells = [label, f"{1 / seconds(part):.1f}", *ratios, share, peak, start, study]
        lines.append(f"| {' | '.join(cells)} |")
    gain = statistics.median(r["gain"] for r in found["floor, fp32"])
    told = f"A large fp32 product is {gain:.1f} times as quick by oneDNN as by torch's own choice."
    return [*lines, "", told] if found["floor, fp32"][0]["onednn"] else lines


def main() -> None:
    """Measure the chosen workloads and print a table each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="several: repeat")
    parser.add_argument("--steps", type=int, default=60, help="a round, warm-up included")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps <= WARM_UP or options.rounds < 1:
        parser.error(f"expected more than {WARM_UP} steps and at least one round")
    if options.part:
        print(json.dumps(_part(options)))
        return
    device = _child("device", "", next(iter(WORKLOADS)), options.steps)
    default = [name for name in WORKLOADS if device["gpu"] or name.startswith("mini")]
    print(f"{device['hardware']}, torch {device['torch']}, {time.strftime('%Y-%m-%d')}; ", end="")
    print(f"medians of {options.rounds} rounds of {options.steps - WARM_UP} steps, one thread")
    for name in options.workload or default:
        print(f"\n## {name}\n", *measure(name, options.steps, options.rounds, device), sep="\n")


def _part(options: argparse.Namespace) -> dict[str, Any]:
    if options.part == "device":
        return _device()
    work = WORKLOADS[options.workload[0]]
    if options.part.startswith("floor"):
        return _floor(options.part[-4:], options.folder, work, options.steps)
    devices = [(gpu, half) for gpu in (False, True) for half in HALVES]
    known = {name: one for on in devices for name, one in contestants(*on, small=True).items()}
    one = known[options.part]
    return _one(one, options.folder, work, options.steps)


if __name__ == "__main__":
    main()
