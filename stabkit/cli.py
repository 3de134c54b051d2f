"""The command ``stabkit``: train one configuration, run a study, read and publish what is stored.

Every command imports what it needs when it runs, so that help comes at once and results are read
without torch.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stabkit import __version__, options
from stabkit.errors import StabkitError
from stabkit.places import RUNS_FILE, results_folder

if TYPE_CHECKING:
    from stabkit.config import RunConfig
    from stabkit.store import Store

RUNS = Path("runs")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; a StabkitError becomes a sentence on stderr and exit status 2."""
    warnings.formatwarning = lambda message, *_, **__: f"stabkit: {message}\n"
    try:
        app(prog_name="stabkit")
    except StabkitError as error:
        print(f"stabkit: {error}", file=sys.stderr)
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"stabkit {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Why fine-tuning collapses for some seeds: measured, drawn and mended.

    A run is named by all that decides its result and kept for good: nothing is trained twice, and
    what was stopped goes on where it was.

    Start with **stabkit run --preset devlin --seed 1**, then **stabkit table**.
    """


@app.command()
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
    _say_where_data_lie(data_dir)
    given = {name: ctx.params[name] for name in options.FIELDS.keys() & ctx.params.keys()}
    fields = {n: options.value(n, worded) for n, worded in given.items() if worded is not None}
    fields |= dict(map(options.setting, settings or []))
    from stabkit import presets, report, train

    runs = _open(store, results)
    config = train.pin(presets.preset(preset, **fields))
    if "learning_rate" not in fields and presets.is_organism(model):
        from stabkit.selection import reference_rate

        config = config.replace(learning_rate=reference_rate(runs))
    _do(config, runs, threads)
    print(report.outcome(runs.table([config]).iloc[0]))
    print(f"  kept in {store}; stabkit show {config.key} tells all")


@app.command()
def study(
    name: options.StudyName,
    processes: options.Processes = 1,
    seeds: options.Seeds = None,
    learning_rate: options.Rate = None,
    dry_run: options.DryRun = False,
    data_dir: options.DataFolder = None,
    store: options.StoreFolder = RUNS,
    results: options.ResultsFolder = None,
) -> None:
    """Do the runs of a study that are not stored yet, then show its table.

    Stop it at any time; the same command goes on where it was. Several may work on one store.

    Examples:

    - **stabkit study pilot-rte --processes 2**

    - **stabkit study table1-rte --seeds 0:5 --dry-run**
    """
    _say_where_data_lie(data_dir)
    from stabkit import report, selection

    runs = _open(store, results)
    grid = selection.study_grid(name, runs, learning_rate)
    if seeds is not None:
        grid = selection.with_seeds(grid, seeds)
    from stabkit.sweep import sweep
    from stabkit.train import pin

    configs = [pin(config) for config in _shipped(grid)]
    left = len(runs.pending(configs))
    print(f"{name}: {len(configs)} runs, {len(configs) - left} done, {left} to do", file=sys.stderr)
    if not dry_run:
        print(report.summary(sweep(configs, runs, processes)))


@app.command()
def analyse(
    name: options.AnalysisName,
    model: options.Model = "mini-bert",
    task: options.TaskName = "mini-rte",
    data_dir: options.DataFolder = None,
    store: options.StoreFolder = RUNS,
    results: options.ResultsFolder = None,
) -> None:
    """Look into the weights of stored runs that failed, and of ones that did not.

    The weights come from a cache or are trained again. Stop it at any time; the same command goes
    on where it was.

    Example: **stabkit analyse layer-swap**
    """
    _say_where_data_lie(data_dir)
    opened = _open(store, results)
    runs = opened.table(model=model, task=task)
    if runs.empty:
        raise StabkitError(
            f"no runs of {model} on {task} in {store}; stabkit run and stabkit study make some"
        )
    from stabkit.analyses import ANALYSES
    from stabkit.shelf import Shelf

    ANALYSES[name](runs, Shelf(store, opened.base))
    print(f"kept in {store}")


@app.command()
def table(
    study: options.MaybeStudy = None,
    each: options.Each = False,
    best: options.Best = False,
    learning_rate: options.Rate = None,
    store: options.StoreFolder = RUNS,
    results: options.ResultsFolder = None,
) -> None:
    """Show how many of the stored runs failed, and how far their scores spread.

    Examples:

    - **stabkit table**: a line for each group of runs that differ by their seed only

    - **stabkit table table1-rte --best**
    """
    from stabkit import report, selection

    opened = _open(store, results)
    runs = opened.table()
    if study is not None:
        runs = selection.matching(runs, selection.study_grid(study, opened, learning_rate))
    if runs.empty:
        raise StabkitError(
            f"no runs{f' of {study}' if study else ''} in {store}; stabkit run and stabkit study "
            "make some, and --store and --results name other folders"
        )
    score = "score_best" if best else "score_last"
    print(report.listing(runs, score) if each else report.summary(runs, score))


@app.command()
def show(
    key: options.Key,
    store: options.StoreFolder = RUNS,
    results: options.ResultsFolder = None,
) -> None:
    """Show all that is known of one run; **stabkit table --runs** lists the keys."""
    from stabkit import report

    runs = _open(store, results).table()
    found = runs[runs["key"].str.startswith(key)]
    if len(found) != 1:
        raise StabkitError(
            f"{len(found)} of the {len(runs)} runs in {store} have a key that begins with {key!r}; "
            "expected one (stabkit table --runs lists them)"
        )
    print(report.details(found.iloc[0]))


@app.command()
def publish(
    store: options.StoreFolder = RUNS,
    results: options.PublishedFolder = None,
) -> None:
    """Gather your analyses and your runs of the studies in the folder of published runs.

    What is published already stays. Runs of no study, such as those of stabkit run, are left out.
    Gradients are kept step by step for the runs that the book shows, for the others at some 40
    steps and by layer.
    """
    from stabkit.selection import exhibited, studied
    from stabkit.shelf import Shelf
    from stabkit.store import Store

    target = results or results_folder()
    opened = Store(store, base=target if (target / RUNS_FILE).exists() else None)
    runs = opened.table()
    chosen = runs[runs["key"].isin({*studied(runs)["key"], *Store(target).keys()})]
    if chosen.empty:
        raise StabkitError(f"no runs of a study in {store}; stabkit study makes some")
    opened.compact(target, gradients=exhibited(chosen), only=chosen["key"])
    analyses = "".join(f", {kind}" for kind in Shelf(store).publish(target))
    print(f"{len(chosen)} runs{analyses} are in {target}")
    if left := len(runs) - len(chosen):
        print(f"left out: {left} runs of no study", file=sys.stderr)


@app.command()
def presets() -> None:
    """Show what the recipes devlin, lee and ours set."""
    from stabkit import report

    print(report.recipes())


@app.command()
def studies() -> None:
    """List the studies of the book."""
    from stabkit.studies import STUDIES

    for study in STUDIES.values():
        print(f"{study.name:<13} {len(study.build(1.0)):>4} runs  {study.purpose}")


def _shipped(grid: list[RunConfig]) -> list[RunConfig]:
    """Return the configurations whose mini model is shipped; say which are left out."""
    from stabkit.models import mini_models
    from stabkit.presets import is_organism

    absent = {c.model for c in grid if is_organism(c.model) and c.model not in mini_models()}
    if absent:
        left = ", ".join(sorted(absent))
        print(f"left out, since their weights are not shipped: {left}", file=sys.stderr)
    return [config for config in grid if config.model not in absent]


def _open(store: Path, results: Path | None) -> Store:
    from stabkit.store import Store

    found = results_folder()
    return Store(store, base=results or (found if (found / RUNS_FILE).exists() else None))


def _say_where_data_lie(folder: Path | None) -> None:
    """Set the environment variable that tasks look at, here and in the processes of a sweep."""
    if folder is not None:
        os.environ["STABKIT_DATA"] = str(folder)


def _do(config: RunConfig, runs: Store, threads: int) -> None:
    """Do a run, unless it is stored; one that another process is at is waited for."""
    from stabkit import train

    length = f"epochs {config.epochs}" if config.epochs else f"steps {config.max_steps}"
    print(
        f"{config.model} on {config.task}: {length}, learning rate {config.learning_rate:g}",
        file=sys.stderr,
    )
    try:
        with runs.claim(config.key, wait=True):
            if config.key not in runs:
                runs.put(train.run(config, threads=threads))
    except KeyboardInterrupt:
        print("stopped: nothing of this run is kept; start the same again", file=sys.stderr)
        raise
