"""The paper, this project's model of real text on GLUE, and the organism: exhibit by exhibit.

The same judges that hold the organism against the paper (``stabkit.exhibits``) hold ``mini-wiki``
against it, so a criterion stands beside itself. Reading published runs needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from stabkit import agreement, barriers, exhibits, mechanism, pages, tables
from stabkit.findings import Finding
from stabkit.paper import METHODS, TABLE_1, TASKS, paper_task
from stabkit.presets import REAL_TEXT

ORGANISM = "mini-bert"
COLUMNS = ("exhibit", "task", "criterion", "paper", REAL_TEXT, ORGANISM, "carries over")
REPORTS = {  # the paper's BERT-large on GLUE, where no number of its table says more
    "Fig. 2": "holds for three failed and three successful RTE runs",
    "Fig. 2c": "practically constant loss",
    "Fig. 5": "correction helps, on RTE",
    "Fig. 7": "holds on RTE, MRPC and CoLA",
    "Fig. 13": "holds on RTE, MRPC and CoLA",
}
RTE_ONLY = ("Fig. 2", "Fig. 2c", "Fig. 5")
FIT = {
    "misfit_rate": "do not fit, %",
    "failure_rate": "failed on dev, %",
    "train_loss": "training loss, % of entropy",
    "train_accuracy": "training accuracy, %",
    "score_last": "dev score, %",
}
CARRIES: dict[tuple[bool | None, bool | None], str] = {
    (True, True): "yes, holds in both",
    (False, False): "yes, holds in neither",
    (True, False): f"no, holds for {REAL_TEXT} alone",
    (False, True): "no, holds for the organism alone",
}


@dataclass(frozen=True)
class Source:
    """One of the two models: its name, its studies of Table 1 and of rates, real text or not."""

    model: str
    table_1: tuple[str, ...]
    rates: tuple[str, ...]
    real: bool

    @property
    def studies(self) -> tuple[str, ...]:
        """All studies that it rests on."""
        return (*self.table_1, *self.rates)

    def findings(self) -> dict[tuple[str, str, str], Finding]:
        """Return what is judged of it, by exhibit, the paper's task and criterion."""
        found: dict[tuple[str, str, str], Finding] = {}
        for finding in exhibits.scores(*self.table_1):
            found["Table 1", finding.exhibit, finding.criterion] = finding
        rates = pages.runs(*self.rates)
        of_model = rates[rates["model"] == self.model]
        for task, runs in of_model.groupby("task", sort=False):
            found |= _by_key("Fig. 5", task, [agreement.corrected(self.model, runs)])
            flat = mechanism.flat_loss(runs)
            found |= _by_key("Fig. 2c", task, [flat])
        return found | self._of_weights()

    def _of_weights(self) -> dict[tuple[str, str, str], Finding]:
        found: dict[tuple[str, str, str], Finding] = {}
        swaps = pages.shelf("layer-swaps", real=self.real)
        for (model, task), rows in _each(swaps, "model", "task"):
            if model == self.model:
                found |= _by_key("Fig. 2", task, mechanism.layer_swap(rows))
        planes, lines = (
            pages.shelf(kind, "failed_run", real=self.real)
            for kind in ("loss-surfaces", "loss-lines")
        )
        for (model, task), plane in _each(planes, "model", "task"):
            if model == self.model:
                one = plane[plane["key"] == plane["key"].iloc[0]]
                others = barriers.beside(lines, one)
                for finding in barriers.surface(barriers.between(one), task, others):
                    found |= _by_key(finding.exhibit.split(",")[0], task, [finding])
        return found


SOURCES = (
    Source(REAL_TEXT, ("wiki-table1",), ("wiki-rates",), real=True),
    Source(ORGANISM, exhibits.TABLE_1, ("figure5",), real=False),
)


def side_by_side() -> pd.DataFrame:
    """Return one row per criterion and task, as text, with the columns COLUMNS.

    A criterion has a row once either model has runs for it; none are published: no rows.
    """
    found = [source.findings() for source in SOURCES]
    keys = sorted({key for one in found for key in one}, key=_place)
    rows = [(*key, _paper(*key), *_judged(*(one.get(key) for one in found))) for key in keys]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _judged(real: Finding | None, generated: Finding | None) -> tuple[str, str, str]:
    holds = (real.holds if real else None), (generated.holds if generated else None)
    carries = CARRIES.get(holds, "cannot be said yet")
    return _told(real), _told(generated), carries


def _told(finding: Finding | None) -> str:
    if finding is None:
        return "no runs"
    return f"{finding.verdict}: {finding.shown() or finding.reason}"


def _paper(exhibit: str, task: str, criterion: str) -> str:
    """Return what the paper reports: numbers where its table has them."""
    name = next((name for name in ("std", "mean") if name in criterion), None)
    if exhibit == "Table 1" and name and (task, METHODS[0]) in TABLE_1:
        return "; ".join(f"{one} {getattr(TABLE_1[task, one], name)}" for one in METHODS) + " %"
    if "Levene" in criterion and (task, METHODS[0]) in TABLE_1:
        second = sorted(METHODS, key=lambda one: TABLE_1[task, one].std)[1]  # the one it tests
        if second not in criterion:
            return "not reported"
        return "holds against the second smallest variance (in the preprint, this one): p < 0.001"
    if exhibit == "Table 1" and "fails less" in criterion:
        return "shown in Fig. 1, not counted"
    if exhibit in RTE_ONLY and task != "rte":
        return "not reported"
    return REPORTS.get(exhibit, "holds")


def _by_key(
    exhibit: str, task: str, findings: Iterable[Finding]
) -> dict[tuple[str, str, str], Finding]:
    """Key findings such that those of the two models meet, whose depth and names differ."""
    found = {}
    for finding in findings:
        choice = finding.exhibit.partition(", ")[2] if exhibit == "Fig. 2" else ""
        words = finding.criterion.split(" by k = ")[0] + (f" ({choice})" if choice else "")
        found[exhibit, paper_task(task), words] = finding
    return found


def _each(table: pd.DataFrame, *by: str) -> Iterable[tuple[tuple[str, str], pd.DataFrame]]:
    return [] if table.empty else table.groupby(list(by), sort=False)


def _place(key: tuple[str, str, str]) -> tuple[int, int, str]:
    order = ("Table 1", "Fig. 5", "Fig. 2c", "Fig. 2", "Fig. 7", "Fig. 13")
    tasks = (*TASKS, "qnli")
    return order.index(key[0]), tasks.index(key[1]) if key[1] in tasks else len(tasks), key[2]


def fit(runs: pd.DataFrame) -> pd.DataFrame:
    """Return ``stabkit.tables.training_fit`` of runs of GLUE as text, by task, rate and recipe."""
    named = runs.assign(recipe=runs["method"].fillna("Devlin, corrected"))
    by = ["task", "learning_rate", "recipe"]
    found = tables.training_fit(named, by).sort_values(by)
    shown = {name: [cell.percent() for cell in found[name]] for name in FIT}
    rates = [f"{rate:g}" for rate in found["learning_rate"]]
    return found.assign(learning_rate=rates, **shown).rename(columns=FIT)


def verdict(table: pd.DataFrame) -> str:
    """Say in words what of ``side_by_side`` carries over and what does not, as markdown."""
    answers = table["carries over"].str.split(",").str[0]
    yes, no = (int((answers == answer).sum()) for answer in ("yes", "no"))
    if yes + no == 0:
        return (
            "No criterion has been judged for both models yet, so nothing can be said about what "
            "carries over from the generated tasks to real ones."
        )
    lines = [
        f"Of {yes + no} criteria that are judged for both models, **{yes} come out alike** and "
        f"**{no} do not**; {len(table) - yes - no} wait for runs of one of them."
    ]
    apart = table[answers == "no"]
    lines += [
        f"- {row.exhibit}, {row.task}: *{row.criterion}* {row[-1].removeprefix('no, ')}."
        for row in apart.itertuples(index=False)
    ]
    return "\n".join([lines[0], "", *lines[1:]])
