"""What the paper reports, with its source, and when our runs agree with it.

Mosbach, Andriushchenko and Klakow: *On the Stability of Fine-tuning BERT*, ICLR 2021,
arXiv:2006.04884. Numbers are the authors', in percent; the criteria were fixed before our runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import pandas as pd

from stabkit.effects import VarianceTest, holm, variance_tests
from stabkit.errors import StabkitError
from stabkit.findings import Finding
from stabkit.stats import Estimate
from stabkit.studies import REPORTED
from stabkit.tables import describe_groups, only, require

METHODS = ("Devlin", "Lee", "Ours")
ALPHA = 0.05


class Reported(NamedTuple):
    """Dev metric of BERT-large over 25 seeds, in percent (MCC times 100 for CoLA)."""

    std: float
    mean: float
    median: float
    max: float


TABLE_1_SOURCE = (
    "preprint, June 2020: Table 1 as in the authors' repository, "
    "https://github.com/uds-lsv/bert-stable-fine-tuning; the ICLR version's table differs"
)
TABLE_1: dict[tuple[str, str], Reported] = {
    ("rte", "Devlin"): Reported(7.2, 52.3, 47.3, 71.1),
    ("rte", "Lee"): Reported(7.9, 65.3, 69.1, 74.4),
    ("rte", "Ours"): Reported(2.4, 70.1, 70.0, 75.5),
    ("mrpc", "Devlin"): Reported(5.9, 79.0, 74.8, 89.4),
    ("mrpc", "Lee"): Reported(3.8, 87.8, 89.5, 91.8),
    ("mrpc", "Ours"): Reported(0.8, 89.6, 89.5, 91.4),
    ("cola", "Devlin"): Reported(25.6, 45.6, 59.1, 64.6),
    ("cola", "Lee"): Reported(20.9, 51.9, 60.3, 64.0),
    ("cola", "Ours"): Reported(1.0, 64.6, 64.7, 66.8),
}
TASKS = tuple(dict.fromkeys(task for task, _ in TABLE_1))
MRPC_NOTE = (
    "The preprint's MRPC metric looks like the mean of accuracy and F1: failed runs score "
    "74.8 = (68.4 + 81.2) / 2."
)


@dataclass(frozen=True)
class Claim:
    """A finding of the paper in our words, and where the paper states it."""

    text: str
    source: str


CLAIMS: dict[str, Claim] = {
    "instability": Claim(
        "More than half of the 25 runs with Devlin's recipe fail on RTE and on MRPC, about 6 of "
        "25 on CoLA.",
        "preprint, Fig. 1, read off the figure",
    ),
    "baseline": Claim(
        "A small learning rate with bias correction and 20 epochs gives the smallest standard "
        "deviation and the highest mean on RTE, MRPC and CoLA; Levene's test against the method "
        "with the second smallest variance gives p < 0.001 on each.",
        "ICLR 2021, section 6, Fig. 1 and Table 1",
    ),
    "vanishing": Claim(
        "The training loss of failed runs stays practically constant.",
        "ICLR 2021, section 5.1, Fig. 2c",
    ),
    "forgetting": Claim(
        "In failed runs the masked-LM perplexity has risen greatly, though only about the top 10 "
        "of 24 layers matter for it; in successful runs it rises much less. So forgetting "
        "accompanies a failure of optimisation and does not cause it.",
        "ICLR 2021, section 4.1, Fig. 2a and 2b",
    ),
    "gradients": Claim(
        "In a failed run only the top layers have appreciable gradients; those below vanish. In a "
        "successful one gradients are small until about step 70, then grow, to nearly two orders "
        "of magnitude above the failed run's at the end. BERT, RoBERTa and ALBERT all show this.",
        "ICLR 2021, section 5.1, Fig. 4, 10, 11 and 12",
    ),
    "correction": Claim(
        "Warmup and bias correction together stabilise runs on RTE, most of all for BERT and "
        "ALBERT.",
        "ICLR 2021, section 5.1, Fig. 5",
    ),
    "small data": Claim(
        "With 1,000 training samples and 3 epochs many more runs fail on CoLA, MRPC and QNLI. "
        "Trained for as many iterations as the full set takes, no run fails on MRPC or QNLI and "
        "one fails on CoLA; the scores stay lower.",
        "ICLR 2021, section 4.2, Fig. 3",
    ),
    "factor": Claim(
        "Bias correction multiplies the learning rate by a factor below 1 in the first steps "
        "that tends to 1; leaving it out makes these steps larger.",
        "ICLR 2021, section 5.1, Fig. 6",
    ),
    "ablation": Claim(
        "Of 450 models on RTE, those with a small learning rate are stable if the bias is "
        "corrected or if they are trained for longer.",
        "ICLR 2021, section 7.4, Fig. 9",
    ),
    "surfaces": Claim(
        "Failed runs end in a bad valley, where gradients are small; a barrier separates it from "
        "the minimum of successful runs. The geometry is much the same on RTE, MRPC and CoLA.",
        "ICLR 2021, sections 5.1 and 7.6, Fig. 7 and 13",
    ),
    "generalisation": Claim(
        "The dev accuracy of successful runs varies considerably over 20 epochs and does not "
        "degrade, even at a training loss of 1e-5.",
        "ICLR 2021, section 5.2, Fig. 8",
    ),
    "settings": Claim(
        "Every model trains on batches of 16, at most 128 tokens a text, with AdamW, 10 % linear "
        "warmup and linear decay to 0; BERT and ALBERT clip gradients at norm 1, RoBERTa does not.",
        "ICLR 2021, sections 3.2 and 7.3",
    ),
    "per point": Claim(
        "Stability can also be asked of each dev point: how much its correctness varies over "
        "seeds, averaged over points. The paper defines this and does not measure it.",
        "ICLR 2021, section 7.1",
    ),
    "domain": Claim(
        "On SciTail, whose texts are from another domain than the pre-training, the findings hold.",
        "ICLR 2021, sections 4.2 and 7.8",
    ),
    "depth": Claim("BERT-base shows no instability.", "ICLR 2021, section 3.2"),
    "guideline": Claim(
        "Correct the bias, keep the learning rate small, and train for many more epochs, until "
        "the training loss has all but vanished.",
        "ICLR 2021, section 6",
    ),
}


def reported(task: str, method: str) -> Reported | None:
    """Return the preprint's numbers for a task (``mini-rte`` stands for ``rte``), if it has any."""
    return TABLE_1.get((paper_task(task), method))


def paper_task(task: str) -> str:
    """Name the paper's task whose place ``task`` takes."""
    return task.removeprefix("mini-")


def table_1_verdict(
    table: pd.DataFrame,
    exhibited: Sequence[str] = TASKS,
) -> list[Finding]:
    """Judge Fig. 1 and Table 1 by the criterion fixed before the runs.

    On each task of the exhibit: Ours has the smallest std; no method fails less often than Ours;
    Levene's test tells Ours from each other method at p < 0.05 after Holm's correction over all
    comparisons of the exhibit; the means come in the preprint's order. ``table`` is a run table
    of one model with a column ``method`` (Devlin, Lee, Ours). Brown-Forsythe stands beside
    Levene in the numbers and decides nothing. Other ``exhibited`` tasks (section 7.8) are judged
    alike. Findings are named by their task. Raises StabkitError if a method has no runs.
    """
    require(table, ("task", "method", "model"))
    only(table, "model")
    runs = table[table["method"].isin(METHODS) & table["task"].map(paper_task).isin(exhibited)]
    described = describe_groups(runs).set_index(["task", "method"])
    tasks = list(runs["task"].unique())
    for task in tasks:
        if absent := [method for method in METHODS if (task, method) not in described.index]:
            raise StabkitError(f"no runs of {', '.join(absent)} on {task}; run them first")
    tests = [(task, test) for task in tasks for test in _levene_ours(runs, task)]
    adjusted = list(zip(tests, holm([test.levene for _, test in tests]), strict=True))
    return [
        Finding(task, check, int((runs["task"] == task).sum()), numbers, holds, doubtful=doubtful)
        for task in tasks
        for check, holds, numbers, doubtful in _checks(
            described.loc[task], [(test, p) for (of, test), p in adjusted if of == task]
        )
    ]


Check = tuple[str, bool, str, bool | None]  # criterion, does it hold, numbers, is it in doubt


def complete(runs: pd.DataFrame) -> bool:
    """Tell whether every method of Table 1 has all its seeds among the runs of a task."""
    sizes = runs.groupby("method").size().reindex(list(METHODS), fill_value=0)
    return bool(sizes.min() >= len(REPORTED))


def hopeless(runs: pd.DataFrame) -> list[str]:
    """Say which methods mostly fail on a task: their spread tells nothing of stability.

    ``runs`` are a run table with the column ``method``, or an empty one; a task with one method
    alone is left out. One sentence for all of them, or none.
    """
    if runs.empty:
        return []
    require(runs, ("task", "method", "failed"))
    several = runs.groupby("task")["method"].transform("nunique") > 1
    cells = [
        f"{name} on {task} ({int(failed.sum())} of {len(failed)})"
        for (task, name), failed in runs[several].groupby(["task", "method"], sort=False)["failed"]
        if failed.mean() > 0.5
    ]
    told = (
        "Most runs of some cells end at or below the majority class: "
        f"{', '.join(cells)}. The spread of such a cell says how many runs escaped, not how stable "
        "the recipe is: disregard the criteria of Table 1 that compare spreads with it, whether "
        "they speak for the paper or against it."
    )
    return [told] if cells else []


def _checks(rows: pd.DataFrame, tests: Sequence[tuple[VarianceTest, float]]) -> Iterator[Check]:
    """Check one task: the described groups by method, Levene's tests with their adjusted p."""
    yield from _spread_checks(rows)
    yield from (_levene_check(test, p, rows["std"]) for test, p in tests)
    yield _order_check(rows)


def _levene_ours(runs: pd.DataFrame, task: str) -> list[VarianceTest]:
    of_task = runs[runs["task"] == task]
    groups = {m: of_task.loc[of_task["method"] == m, "score_last"].to_numpy() for m in METHODS}
    return variance_tests(groups, "Ours")


def _spread_checks(rows: pd.DataFrame) -> Iterator[Check]:
    """``rows``: the described groups of one task, by method."""
    stds, rates = rows["std"], rows["failure_rate"]
    others = [method for method in METHODS if method != "Ours"]
    smallest = all(stds["Ours"].value < stds[method].value for method in others)
    close = _doubtful([(stds["Ours"], stds[method]) for method in others])
    yield "Ours has the smallest std", smallest, _beside(stds), close
    least = all(rates["Ours"].value <= rates[method].value for method in others)
    close = _doubtful([(rates["Ours"], rates[method]) for method in others])
    yield "no method fails less often than Ours", least, _beside(rates), close


def _levene_check(test: VarianceTest, p: float, stds: pd.Series) -> Check:
    """Levene's test has two sides; only a difference on the paper's side is one for the paper."""
    less = bool(stds["Ours"].value < stds[test.group].value)
    numbers = (
        f"p = {p:.2g} (Levene, Holm); raw: Levene {test.levene:.2g}, "
        f"Brown-Forsythe {test.brown_forsythe:.2g}; Ours spreads {'less' if less else 'more'}"
    )
    return f"Ours spreads less than {test.group} (Levene)", bool(p < ALPHA) and less, numbers, None


def _order_check(rows: pd.DataFrame) -> Check:
    expected = list(METHODS)  # their order on each task of Table 1
    means = [rows["mean"][method] for method in expected]
    holds = all(low.value < high.value for low, high in pairwise(means))
    close = _doubtful(list(pairwise(means)))
    return f"means in the order {' < '.join(expected)}", holds, _beside(rows["mean"]), close


def _doubtful(pairs: Sequence[tuple[Estimate, Estimate]]) -> bool:
    """Tell whether overlaps leave in doubt that each first is the smaller, or that one is not."""
    against = [one.overlaps(other) for one, other in pairs if one.value > other.value]
    return all(against) if against else any(one.overlaps(other) for one, other in pairs)


def _beside(estimates: pd.Series) -> str:
    return "; ".join(f"{method} {estimates[method].percent()} %" for method in METHODS)
