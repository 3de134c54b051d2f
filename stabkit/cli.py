"""The command ``stabkit``: train, diagnose, run a study, read and publish what is stored.

Every command imports what it needs when it runs, so that help comes at once and results are read
without torch.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Annotated

import typer

from stabkit import __version__, options, reading
from stabkit.errors import ConfigError, StabkitError
from stabkit.options import RUNS
from stabkit.reading import open_store
from stabkit.training import diagnose, precision_here, run, say_where_data_lie

if TYPE_CHECKING:
    from stabkit.cluster import RayCluster
    from stabkit.config import RunConfig

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
    """Why fine-tuning collapses for some seeds: measure it, plot it, fix it.

    A run is named by everything that decides its result and kept for good: nothing is trained
    twice, and a study that was stopped continues with its next run.

    Start with **stabkit run --preset devlin --seed 1**, then **stabkit table**.
    """


app.command()(run)
app.command()(diagnose)


@app.command()
def study(
    name: options.StudyName,
    processes: options.Processes = None,
    seeds_at_once: options.SeedsAtOnce = 1,
    seeds: options.Seeds = None,
    scale: options.Scale = "mini",
    model: options.OneModel = None,
    learning_rate: options.Rate = None,
    precision: options.Precision = None,
    anew: options.Anew = False,
    dry_run: options.DryRun = False,
    executor: options.Executor = "local",
    address: options.Address = None,
    cpus: options.Cpus = 1,
    gpus: options.Gpus = 0,
    data_dir: options.DataFolder = None,
    store: options.StoreFolder = RUNS,
    results: options.ResultsFolder = None,
) -> None:
    """Train the runs of a study that are not stored yet, then show its table.

    Stop it at any time: the same command continues with the next run. Several may share a store.

    Examples:

    - **stabkit study pilot-rte --processes 2**

    - **stabkit study table1-rte --seeds 0:5 --dry-run**

    - **stabkit study table1-rte --seeds-at-once 25**

    - **stabkit study table1-rte --scale paper --precision auto --data-dir glue**

    - **stabkit study table1-rte --executor ray --address head:6379 --gpus 0.25**
    """
    say_where_data_lie(data_dir)
    from stabkit import report, scales, selection

    opened = open_store(store, results)
    grid = scales.study_grid(name, opened, learning_rate, scale)
    if precision is not None:
        grid = _with_precision(grid, precision, address)
    if model is not None:
        grid = selection.with_model(grid, model)
    if seeds is not None:
        grid = selection.with_seeds(grid, seeds)
    from stabkit.records import check_hardware
    from stabkit.store import Store
    from stabkit.sweep import sweep
    from stabkit.train import choose_device, pin

    launcher = _cluster(executor, address, processes, cpus, gpus)
    runs = Store(store) if anew else opened
    configs = [pin(config) for config in _shipped(grid)]
    pending = runs.pending(configs)
    done = len(configs) - len(pending)
    print(f"{name}: {len(configs)} runs, {done} done, {len(pending)} to do", file=sys.stderr)
    if dry_run:
        return
    if launcher is None or address is None:
        check_hardware(pending, runs.table(configs), choose_device())
    table = sweep(configs, runs, processes or 1, launcher=launcher, seeds_at_once=seeds_at_once)
    print(report.summary(table))


@app.command()
def analyse(
    name: options.AnalysisName,
    model: options.Model = "mini-bert",
    task: options.TaskName = "mini-rte",
    data_dir: options.DataFolder = None,
    store: options.StoreFolder = RUNS,
    results: options.ResultsFolder = None,
) -> None:
    """Analyse the weights of stored runs, failed and successful ones.

    The weights come from a cache or are trained again. Stop it at any time: the same command
    continues where it left off.

    Example: **stabkit analyse layer-swap**
    """
    say_where_data_lie(data_dir)
    opened = open_store(store, results)
    runs = opened.table(model=model, task=task)
    if runs.empty:
        raise StabkitError(
            f"no runs of {model} on {task} in {store}; train some with stabkit run or stabkit study"
        )
    from stabkit.analyses import ANALYSES
    from stabkit.shelf import Shelf

    ANALYSES[name](runs, Shelf(store, opened.base))
    print(f"kept in {store}")


for _command in (
    reading.table,
    reading.explain,
    reading.show,
    reading.publish,
    reading.presets,
    reading.settings,
    reading.studies,
):
    app.command()(_command)


def _cluster(
    executor: str, address: str | None, processes: int | None, cpus: float, gpus: float
) -> RayCluster | None:
    """Return the cluster that is asked for; raise ConfigError for its options without it."""
    from stabkit.cluster import RayCluster

    if executor == "ray":
        return RayCluster(address, processes, cpus, gpus)
    named = address is not None and address != os.environ.get("RAY_ADDRESS")
    given = {"--address": named, "--cpus": cpus != 1, "--gpus": gpus != 0}
    if alone := " and ".join(option for option, there in given.items() if there):
        raise ConfigError(
            f"{alone} without a cluster; add --executor ray, or omit {alone}: on this machine each "
            "run takes one core, and processes share the GPUs"
        )
    return None


def _with_precision(grid: list[RunConfig], named: str, address: str | None) -> list[RunConfig]:
    """Return the configurations in a precision; raise ConfigError where it cannot be told here."""
    from stabkit.precision import AUTO

    if named == AUTO and address is not None:
        raise ConfigError(
            f"--precision {AUTO} looks at this machine's device, and the cluster's may differ; "
            "name a precision: bf16, fp16, tf32 or fp32"
        )
    found = precision_here(named)
    return [config.replace(precision=found) for config in grid]


def _shipped(grid: list[RunConfig]) -> list[RunConfig]:
    """Return the configurations whose mini model is shipped; say which are left out.

    Raises StabkitError where that leaves none.
    """
    from stabkit.models import mini_models
    from stabkit.presets import is_mini

    absent = {c.model for c in grid if is_mini(c.model) and c.model not in mini_models()}
    if absent:
        left = ", ".join(sorted(absent))
        if len(absent) == len({config.model for config in grid}):
            raise StabkitError(f"the weights of {left} are not shipped yet; nothing can be run")
        print(f"left out because their weights are not shipped: {left}", file=sys.stderr)
    return [config for config in grid if config.model not in absent]
