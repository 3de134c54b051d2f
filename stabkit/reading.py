"""The commands that read what is stored, and that which publishes it; none of them trains.

``stabkit.cli`` makes them commands.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stabkit import options
from stabkit.errors import StabkitError
from stabkit.options import RUNS
from stabkit.places import has_runs, results_folder

if TYPE_CHECKING:
    from stabkit.store import Store


def table(
    study: options.MaybeStudy = None,
    each: options.Each = False,
    best: options.Best = False,
    scale: options.Scale = "mini",
    learning_rate: options.Rate = None,
    published: options.Published = False,
    store: options.StoreFolder = RUNS,
    results: options.ResultsFolder = None,
) -> None:
    """Show how many of your runs, or of a study's, failed, and how far their scores spread.

    A run has failed if it ends no better than the majority class; it learns nothing if it shows any
    sign of failure, a training loss as of guessing among them.

    Examples:

    - **stabkit table**: a line for each group of runs that differ by their seed only

    - **stabkit table table1-rte --best**
    """
    from stabkit import report, scales, selection
    from stabkit.store import Store

    opened = open_store(store, results)
    runs = opened.table()
    if study is not None:
        asked = scales.study_grid(study, opened, learning_rate, scale)
        runs = selection.matching(runs, scales.in_every_precision(asked))
    elif not published:
        if own := Store(store).keys():
            runs = runs[runs["key"].isin(own)]
        elif len(runs):
            print(f"no runs in {store} yet; these are the published ones", file=sys.stderr)
    if runs.empty:
        raise StabkitError(
            f"no runs{f' of {study}' if study else ''} in {store}; stabkit run and stabkit study "
            "make some, and --store and --results name other folders"
        )
    score = "score_best" if best else "score_last"
    print(report.listing(runs, score) if each else report.summary(runs, score))


def explain(
    store: options.StoreFolder = RUNS,
) -> None:
    """Say of each recipe among your runs how many fail, why, and what to change.

    Nothing is trained. A recipe needs two seeds; where its remedy has as many, the two are
    compared.

    Examples:

    - **stabkit explain**: your own runs

    - **stabkit explain --store watched**: those of a Trainer (stabkit.callback)
    """
    from stabkit import diagnosis, recipes
    from stabkit.store import Store

    runs = Store(store).table()
    if runs.empty:
        raise StabkitError(f"no runs in {store}; --store names another folder")
    found = recipes.recipes(runs)
    if not found:
        raise StabkitError(
            f"{store} has {len(runs)} runs and no two that differ by their seed alone; train "
            "another seed, and stabkit table shows what they differ in"
        )
    for name, recipe in zip(recipes.names(found), found, strict=True):
        print(f"# {name}\n\n{diagnosis.text(recipe.blocks())}\n")


def show(
    key: options.Key,
    store: options.StoreFolder = RUNS,
    results: options.ResultsFolder = None,
) -> None:
    """Show all that is known of one run; **stabkit table --runs** lists the keys."""
    from stabkit import report

    runs = open_store(store, results).table()
    found = runs[runs["key"].str.startswith(key)]
    if len(found) != 1:
        raise StabkitError(
            f"{len(found)} of the {len(runs)} runs in {store} and among the published ones have a "
            f"key that begins with {key!r}; expected one (stabkit table --runs lists them)"
        )
    print(report.details(found.iloc[0]))


def publish(
    store: options.StoreFolder = RUNS,
    results: options.PublishedFolder = None,
) -> None:
    """Gather your analyses and your runs of the studies in the folder of published runs.

    What is published already stays. Runs of no study, such as those of stabkit run, and analyses of
    them are left out.
    Runs that the book shows step by step are kept whole; of the others gradients are kept at some
    40 steps and by layer, and three digits of these norms and of the loss at every step.
    """
    from stabkit import storage
    from stabkit.selection import exhibited, studied
    from stabkit.shelf import Shelf
    from stabkit.store import Store

    if isinstance(place := storage.place(store), Path) and not place.is_dir():
        raise StabkitError(f"no folder {store}; stabkit study makes one, --store names another")
    target = results or results_folder()
    opened = Store(store, base=target if has_runs(target) else None)
    runs = opened.table()
    chosen = runs[runs["key"].isin({*studied(runs)["key"], *Store(target).keys()})]
    if chosen.empty:
        raise StabkitError(f"no runs of a study in {store}; stabkit study makes some")
    opened.compact(target, gradients=exhibited(chosen), only=chosen["key"])
    analyses = "".join(f", {kind}" for kind in Shelf(store).publish(target, {*chosen["key"]}))
    print(f"{len(chosen)} runs{analyses} are in {target}")
    if left := len(runs) - len(chosen):
        print(f"left out: {left} runs of no study", file=sys.stderr)


def presets() -> None:
    """Show what the recipes devlin, lee, ours and trainer set."""
    from stabkit import report

    print(report.recipes())


def settings() -> None:
    """List every setting of a run: what it decides, and its default.

    Any of them can be set: --set FIELD=VALUE.
    """
    from stabkit import settings

    print(settings.text())


def studies() -> None:
    """List the studies of the book."""
    from stabkit.studies import STUDIES

    for study in STUDIES.values():
        print(f"{study.name:<16} {len(study.build(1.0)):>4} runs  {study.purpose}")


def open_store(store: str, results: Path | None) -> Store:
    """Return one's own runs in front of the published ones, if there are any yet."""
    from stabkit.store import Store

    if results is None:
        found = results_folder()
        return Store(store, base=found if has_runs(found) else None)
    if os.path.exists(results):
        return Store(store, base=results)
    print(f"nothing is published in {results} yet", file=sys.stderr)
    return Store(store)
