"""The commands that train on one model and task: one run, or a recipe's diagnosis.

Every command imports what it needs when it runs, as in ``stabkit.cli``.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stabkit import options
from stabkit.options import RUNS
from stabkit.reading import open_store

if TYPE_CHECKING:
    import pandas as pd

    from stabkit.config import RunConfig
    from stabkit.store import Store


def run(
    ctx: typer.Context,
    preset: options.Preset = "ours",
    model: options.Model = "mini-bert",
    task: options.TaskName = "mini-rte",
    seed: options.Seed = 0,
    learning_rate: options.Rate = None,
    bias_correction: options.BiasCorrection = None,
    warmup: options.Warmup = None,
    weight_decay: options.WeightDecay = None,
    mixout: options.Mixout = None,
    precision: options.Precision = None,
    epochs: options.Epochs = None,
    max_steps: options.MaxSteps = None,
    train_size: options.TrainSize = None,
    batch_size: options.BatchSize = None,
    max_length: options.MaxLength = None,
    dev_file: options.DevFile = None,
    text_columns: options.TextColumns = None,
    label_column: options.LabelColumn = None,
    settings: options.Settings = None,
    threads: options.Threads = 1,
    data_dir: options.DataFolder = None,
    store: options.StoreFolder = RUNS,
    results: options.ResultsFolder = None,
) -> None:
    """Fine-tune one model on one task with one seed, and store what was measured.

    Examples:

    - **stabkit run --preset devlin --seed 1**: a mini model, without network, about a minute

    - **stabkit run --task rte --data-dir glue --model bert-large-uncased**

    - **stabkit run --task my.csv --text-columns title,body --label-column topic --model FOLDER**
    """
    say_where_data_lie(data_dir)
    from stabkit import report
    from stabkit.store import Store

    runs = open_store(store, results)
    config = _configured(ctx, settings, runs)
    _do(config, runs, threads)
    print(report.outcome(runs.table([config]).iloc[0]))
    published = runs.base and config.key not in Store(store)
    print(f"  kept in {runs.base if published else store}; stabkit show {config.key} tells all")


def diagnose(
    ctx: typer.Context,
    preset: options.Preset = "trainer",
    model: options.Model = "mini-bert",
    task: options.TaskName = "mini-rte",
    seeds: options.HowManySeeds = 5,
    learning_rate: options.Rate = None,
    bias_correction: options.BiasCorrection = None,
    warmup: options.Warmup = None,
    weight_decay: options.WeightDecay = None,
    precision: options.Precision = None,
    epochs: options.Epochs = None,
    max_steps: options.MaxSteps = None,
    train_size: options.TrainSize = None,
    batch_size: options.BatchSize = None,
    max_length: options.MaxLength = None,
    dev_file: options.DevFile = None,
    text_columns: options.TextColumns = None,
    label_column: options.LabelColumn = None,
    settings: options.Settings = None,
    verdict_only: options.VerdictOnly = False,
    anew: options.Anew = False,
    processes: options.Processes = None,
    seeds_at_once: options.SeedsAtOnce = 1,
    data_dir: options.DataFolder = None,
    store: options.StoreFolder = RUNS,
    results: options.ResultsFolder = None,
) -> None:
    """Train your recipe with a few seeds, tell what is wrong with it, and try the remedy.

    If a run fails, the same seeds are trained again as the paper advises, and compared. Stop it at
    any time; the same command goes on where it was.

    Examples:

    - **stabkit diagnose --preset devlin**: answers from the published runs

    - **stabkit diagnose --model FOLDER --task my.csv --label-column topic --learning-rate 5e-5**
    """
    say_where_data_lie(data_dir)
    from stabkit import diagnosis
    from stabkit.selection import without_seeds
    from stabkit.store import Store
    from stabkit.studies import LOOKS

    opened = open_store(store, results)
    without_seeds(name for name, _ in map(options.setting, settings or []))
    config = _configured(ctx, settings, opened, evals_per_epoch=LOOKS)
    runs = Store(store) if anew else opened
    do = partial(_seeds, count=seeds, runs=runs, processes=processes, at_once=seeds_at_once)
    trained = do(config)
    before = diagnosis.diagnose(trained)
    found = diagnosis.blocks(before)
    if verdict_only or not before.changes():
        print(diagnosis.text(found))
        return
    print(diagnosis.text({title: lines for title, lines in found.items() if title != "So"}))
    print("\nThe same seeds with the remedy:", file=sys.stderr)
    after = diagnosis.diagnose(do(before.remedied(), compared=trained))
    told = diagnosis.blocks(before, after)
    print(f"\n{diagnosis.text({title: told[title] for title in diagnosis.OUTCOME})}")


def say_where_data_lie(folder: Path | None) -> None:
    """Set the environment variable that tasks look at, here and in the processes of a sweep."""
    if folder is not None:
        os.environ["STABKIT_DATA"] = str(folder)


def precision_here(named: str) -> str:
    """Return the precision that people mean on this machine's device; tell it where they left it.

    Raises ConfigError for an unknown one.
    """
    from stabkit.precision import resolved
    from stabkit.train import choose_device

    found = resolved(named, choose_device())
    if found != named:
        print(f"precision: {found}", file=sys.stderr)
    return found


def _configured(
    ctx: typer.Context, settings: list[str] | None, runs: Store, **defaults: object
) -> RunConfig:
    """Return the pinned configuration that options name; ``defaults`` give way to them."""
    given = {name: ctx.params[name] for name in options.FIELDS.keys() & ctx.params.keys()}
    fields = {n: options.value(n, worded) for n, worded in given.items() if worded is not None}
    fields |= dict(map(options.setting, settings or []))
    from stabkit import intake, presets, train

    if chosen := fields.get("precision"):
        fields["precision"] = precision_here(chosen)
    config = train.pin(presets.preset(ctx.params["preset"], **(defaults | fields)))
    for line in intake.found(config):
        print(line, file=sys.stderr)
    if "learning_rate" in fields or not presets.is_mini(config.model):
        return config
    from stabkit.selection import reference_rate

    pilot = "pilot-rte" if presets.is_organism(config.model) else "wiki-pilot"
    return config.replace(learning_rate=reference_rate(runs, pilot))


def _seeds(
    config: RunConfig,
    count: int,
    runs: Store,
    processes: int | None,
    at_once: int,
    compared: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Do the runs of the seeds 0 to ``count`` - 1 that are not stored, and return all of them.

    They must be of the hardware of the runs that they are ``compared`` with.
    """
    from stabkit.records import check_hardware
    from stabkit.sweep import sweep
    from stabkit.train import choose_device, pin, task_of

    configs = [pin(config.replace(seed=seed)) for seed in range(count)]
    pending, steps = runs.pending(configs), config.steps(len(task_of(config).train))
    print(f"{count} runs of {steps} steps, {len(pending)} to do", file=sys.stderr)
    for table in (runs.table(configs), compared):
        if table is not None:
            check_hardware(pending, table, choose_device())
    bar = bool(pending)
    return sweep(configs, runs, processes or 1, progress=bar, seeds_at_once=at_once)


def _do(config: RunConfig, runs: Store, threads: int) -> None:
    """Do a run, unless it is stored; one that another process is at is waited for."""
    from stabkit import train
    from stabkit.sweep import patiently

    length = f"epochs {config.epochs}" if config.epochs else f"steps {config.max_steps}"
    print(
        f"{config.model} on {config.task}: {length}, learning rate {config.learning_rate:g}",
        file=sys.stderr,
    )
    try:
        with ExitStack() as claims:
            patiently(lambda: claims.enter_context(runs.claim(config.key, wait=True)))
            if patiently(lambda: config.key in runs):
                print("this run is stored already: nothing is trained", file=sys.stderr)
            else:
                result = train.run(config, threads=threads)
                patiently(lambda: runs.put(result))
    except KeyboardInterrupt:
        kept = "a run is stored when it is finished; start the same again, and it begins anew"
        print(f"stopped: {kept}", file=sys.stderr)
        raise
