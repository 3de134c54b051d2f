"""Every exhibit of the paper: which page shows it, which runs it rests on, what came of it.

The criteria lie in ``stabkit.paper``, ``stabkit.agreement`` and ``stabkit.mechanism``; here they
meet the published runs. Reading them needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from stabkit import agreement, barriers, mechanism, pages
from stabkit.findings import Finding
from stabkit.paper import TASKS, complete, paper_task, table_1_verdict
from stabkit.presets import FAMILIES
from stabkit.schedule import correction_factor
from stabkit.stats import Estimate
from stabkit.studies import SMALL
from stabkit.tables import by_accuracy, learned_nothing

TABLE_1 = "table1-rte", "table1-mrpc", "table1-cola"
SHORT = "table1-rte", "controls-rte", "figure5"  # hold the 3-epoch runs on the RTE-like task
SMALL_DATA = tuple(f"small-{name}" for name in SMALL)
USUAL = "epochs == 3 and mixout == 0 and multiplier == 'none' and warmup == 0.1"
STEPS = 10_000  # of Fig. 6, by which the factor has reached 1


@dataclass(frozen=True)
class Exhibit:
    """A row of the paper's list, the page and the section (its anchor) that show it, its studies.

    ``judge`` holds the published runs against the criterion; it returns nothing while there are no
    runs to judge, and None stands where the paper states nothing that could be tested.
    """

    name: str
    shows: str
    page: str
    section: str
    studies: tuple[str, ...] = ()
    judge: Callable[[], list[Finding]] | None = None

    def findings(self) -> list[Finding]:
        """Return one finding per criterion, or that it is not judged yet."""
        if self.judge is None:
            return []
        return self.judge() or [Finding(self.name, self.shows, 0, "no runs are published yet")]


Reading = Callable[[pd.DataFrame], pd.DataFrame]  # of what counts as a failed run


def _any_sign(runs: pd.DataFrame) -> pd.DataFrame:
    """Leave the runs as they are: those with any sign of failure count as failed."""
    return runs


def _read(read: Reading, *studies: str) -> pd.DataFrame:
    runs = pages.runs(*studies)
    return runs if runs.empty else read(runs)


def usual() -> pd.DataFrame:
    """Return the published 3-epoch runs on the RTE-like task that differ by rate and correction."""
    return pages.runs(*SHORT).query(USUAL)


def _each(table: pd.DataFrame, *by: str) -> Iterable[pd.DataFrame]:
    """Return the groups of ``table``, none of an empty one."""
    return [] if table.empty else [group for _, group in table.groupby(list(by), sort=False)]


def _where(table: pd.DataFrame) -> str:
    """Name the one model and task of a table."""
    return f"{table['model'].iloc[0]} on {table['task'].iloc[0]}"


def scores(*studies: str, exhibited: tuple[str, ...] = TASKS) -> list[Finding]:
    """Judge the methods on each task on which all of them have all their runs."""
    runs = pages.runs(*studies)
    finished = [task for task in _each(runs, "task") if complete(task)]
    if not finished:
        return []
    ready = pd.concat(finished, ignore_index=True)
    judged = table_1_verdict(ready, exhibited=exhibited)
    found = [replace(finding, exhibit=paper_task(finding.exhibit)) for finding in judged]
    done = {finding.exhibit for finding in found}
    found += [
        Finding(task, "the same", 0, "runs are missing") for task in exhibited if task not in done
    ]
    return found


def _forgetting() -> list[Finding]:
    found = []
    for rows in _each(pages.shelf("layer-swaps"), "model", "task"):
        for finding in mechanism.layer_swap(rows):
            found.append(replace(finding, exhibit=f"{finding.exhibit}, {_where(rows)}"))
    return found


def _flat_losses() -> list[Finding]:
    return [mechanism.flat_loss(runs) for runs in _each(usual(), "model")]


def _gradients() -> list[Finding]:
    found, store = [], pages.published()
    for chosen in map(mechanism.contrast, _each(usual(), "model")):
        if len(chosen):
            norms = {key: store.gradients(key) for key in chosen["key"]}
            found += mechanism.gradients(chosen, norms)
    return found


def _small_data(read: Reading = _any_sign) -> list[Finding]:
    runs = _read(read, *SMALL_DATA)
    return [agreement.figure_3(task) for task in _each(runs, "task")]


def _correction(read: Reading = _any_sign) -> list[Finding]:
    runs = _read(read, "figure5")
    return [] if runs.empty else agreement.figure_5(runs)


def _factor() -> list[Finding]:
    """Judge Fig. 6, a closed form: below 1 early, then towards 1, for both of the paper's betas."""
    t, found = np.arange(1, STEPS + 1), []
    for beta2 in sorted({family["beta2"] for family in FAMILIES.values()}, reverse=True):
        factor = correction_factor(t, 0.9, beta2)
        least = Estimate(float(factor.min()), np.nan, np.nan)
        told = f"{least.value:.2f} at step {t[factor.argmin()]}, {factor[-1]:.3f} at step {STEPS:,}"
        holds = bool(least.value < 1 and np.isclose(factor[-1], 1, atol=0.01))
        head = f"Fig. 6, β₂ = {beta2:g}", "the factor is below 1 early and tends to 1"
        found.append(Finding(*head, 0, f"closed form: {told}", holds))
    return found


def _warmup(read: Reading = _any_sign) -> list[Finding]:
    runs = _read(read, "warmup")
    return [] if runs.empty else [agreement.warmup(runs)]


def _depth(read: Reading = _any_sign) -> list[Finding]:
    deep, shallow = _read(read, "figure5"), _read(read, "shallow")
    if deep.empty or shallow.empty:
        return []
    both = pd.concat([shallow, deep[deep["model"] == "mini-bert"]], ignore_index=True)
    return [agreement.shallow(both)]


def _planes() -> list[Finding]:
    planes, lines = (pages.shelf(kind, "failed_run") for kind in ("loss-surfaces", "loss-lines"))
    found = []
    for plane in _each(planes, "model", "task", "key"):
        others = barriers.beside(lines, plane)
        found += barriers.surface(barriers.between(plane), _where(plane), others)
    return found


def _ablation(read: Reading = _any_sign) -> list[Finding]:
    runs = _read(read, "ablation")
    return [] if runs.empty else agreement.figure_9(runs)


def _generalisation() -> list[Finding]:
    runs = pages.runs("ablation")
    if runs.empty:
        return []
    at_rate = runs[runs["learning_rate"] == pages.rate()]
    long = at_rate.query("epochs == 20 and bias_correction")
    good = long[~learned_nothing(long)] if len(long) else long
    looks = {key: pages.published().history(key) for key in good["key"]}
    lasting = [agreement.figure_8a(long, looks)] if len(long) else []
    return lasting + agreement.figure_8b(runs)


COUNTING = _small_data, _correction, _ablation, _warmup, _depth  # judge runs by any sign of failure


def turned(exhibit: Exhibit, usual: Sequence[Finding]) -> list[Finding]:
    """Return what comes out otherwise where the paper's verdict on a run, accuracy, counts alone.

    ``usual`` are the exhibit's findings; each that turns is returned as it is judged by accuracy.
    """
    alone = exhibit.judge(by_accuracy) if exhibit.judge in COUNTING else []
    return [other for one, other in zip(usual, alone, strict=False) if one.holds != other.holds]


EXHIBITS = (
    Exhibit(
        "Fig. 1, Table 1",
        "dev scores of three recipes over 25 seeds",
        "06_baseline",
        "fig-1-all-runs",
        TABLE_1,
        lambda: scores(*TABLE_1),
    ),
    Exhibit(
        "Fig. 2a, 2b",
        "perplexity as pre-trained layers are given back",
        "041_forgetting",
        "fig-2a-and-2b-layers-given-back",
        (*SHORT, "table1-cola"),
        _forgetting,
    ),
    Exhibit(
        "Fig. 2c, 14",
        "training loss of failed and successful runs",
        "041_forgetting",
        "fig-2c-and-14-training-loss",
        SHORT,
        _flat_losses,
    ),
    Exhibit(
        "Fig. 3",
        "fewer examples, fewer steps",
        "042_small_data",
        "fig-3-three-settings",
        SMALL_DATA,
        _small_data,
    ),
    Exhibit(
        "Fig. 4, 10, 11, 12",
        "gradient norms by layer and weight",
        "041_forgetting",
        "fig-4-and-10-to-12-gradients",
        SHORT,
        _gradients,
    ),
    Exhibit(
        "Fig. 5",
        "three models, with and without bias correction",
        "051_bias_correction",
        "fig-5-with-and-without",
        ("figure5",),
        _correction,
    ),
    Exhibit(
        "Fig. 6",
        "the factor of bias correction",
        "051_bias_correction",
        "fig-6-the-factor",
        (),
        _factor,
    ),
    Exhibit(
        "Fig. 7, 13",
        "loss and gradient norm around the runs",
        "052_surfaces",
        "fig-7-the-loss",
        (*TABLE_1, "figure5"),
        _planes,
    ),
    Exhibit(
        "Fig. 8a, 8b",
        "dev score over training and against training loss",
        "075_ablation",
        "fig-8a-twenty-epochs",
        ("ablation",),
        _generalisation,
    ),
    Exhibit(
        "Fig. 9",
        "epochs, learning rate, correction",
        "075_ablation",
        "fig-9-epochs-learning-rate-correction",
        ("ablation",),
        _ablation,
    ),
    Exhibit(
        "Section 5.1",
        "warmup and correction together",
        "051_bias_correction",
        "warmup-and-correction",
        ("warmup",),
        _warmup,
    ),
    Exhibit(
        "Section 3.2",
        "does a shallow model fail less?",
        "051_bias_correction",
        "is-it-the-depth-section-32",
        ("shallow", "figure5"),
        _depth,
    ),
    Exhibit("Section 6", "the guidelines", "index", "what-to-do", TABLE_1),
    Exhibit(
        "Section 7.1",
        "stability per point",
        "07_appendix",
        "71-stability-per-point",
        (*TABLE_1, "table1-scitail"),
    ),
    Exhibit("Sections 7.2, 7.3", "data and hyperparameters", "03_background", "data-section-72"),
    Exhibit(
        "Section 7.8",
        "another domain",
        "07_appendix",
        "78-another-domain",
        ("table1-scitail",),
        lambda: scores("table1-scitail", exhibited=("scitail",)),
    ),
)
