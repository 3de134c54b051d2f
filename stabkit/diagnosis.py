"""From the runs of one recipe to a verdict, its reason and a remedy: run tables in, words out.

The remedy is the paper's (section 6): correct Adam's bias so that the small learning rate is small
from the first step, warm it up, and train for many more iterations. Whether it helped is judged on
the same seeds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stabkit.config import RunConfig
from stabkit.effects import fisher, rate_difference, seeds_to_tell
from stabkit.findings import Count
from stabkit.remedy import Change, arguments, remedy, rounded
from stabkit.report import WIDTH, cells, plain
from stabkit.stats import Description, describe
from stabkit.tables import (
    CLEAR,
    SIGNS,
    finite_scores,
    learned_nothing,
    learned_once,
    only,
    require,
)

FITTED = 0.9  # training accuracy of a run that has learned its training set
SURE = 0.05  # the p of Fisher's exact test below which the remedy counts as a help
MANY_SEEDS = 50  # above this many a study that tells two recipes apart is out of reach
OUTCOME = ("With the remedy", "So")  # the blocks that need its runs


@dataclass(frozen=True)
class Diagnosis:
    """What became of the runs of one recipe; they differ by their seeds only.

    ``unlearned`` runs end at the loss of guessing, ``forgetful`` ones among them after they had
    learned at an earlier look; ``diverged`` runs end at no loss. ``overfitted`` runs fit the
    training set and yet score no better than the majority class. A loss near that of guessing is
    no failure where the training accuracy is clearly above the majority's.
    """

    config: RunConfig
    scores: Description
    unlearned: int
    forgetful: int
    overfitted: int
    diverged: int
    train_steps: int
    epoch_steps: int | None
    metric: str

    def __str__(self) -> str:
        return text(blocks(self))

    @property
    def failures(self) -> Count:
        """The runs with any sign of failure."""
        return Count(self.scores.failures, self.scores.runs)

    def changes(self) -> list[Change]:
        """Return the remedy's changes of the recipe, halving the rate where all else is done.

        None where the failed runs fit their training set: no recipe mends data.
        """
        if self.failures.failures == self.overfitted:
            return []
        changes = remedy(self.config, self.train_steps, self.epoch_steps)
        if self.diverged and changes[0].field != "learning_rate":
            slower = "at the rate you set, runs diverge: their loss is no longer finite"
            return [
                Change("learning_rate", rounded(self.config.learning_rate / 10), slower),
                *changes,
            ]
        return changes

    def remedied(self) -> RunConfig:
        """Return the recipe with the remedy; its seed is the lowest of the runs."""
        changes = {change.field: change.value for change in self.changes()}
        return self.config.replace(seed=self.config.seed, **changes)

    def verdict(self) -> list[str]:
        """Return what happened, as lines."""
        failed, share = self.failures, self.scores.failure_rate
        told = f"{failed} runs fail ({share.percent()} %, with its 95 % interval)"
        if failed.failures == failed.runs:
            first = f"{told}: not a matter of the seed, but of rate, number of steps or data"
        elif failed.failures:
            first = f"unstable: {told}"
        else:
            first = (
                f"no run of {failed.runs} fails; the true share may still be as high as "
                f"{100 * share.high:.0f} %"
            )
        mean, spread = self.scores.mean, self.scores.std
        return [
            first,
            f"{self.metric} {mean.percent()} % on average, standard deviation "
            f"{spread.percent()} points",
        ]

    def reasons(self) -> list[str]:
        """Return what the failed runs have in common, as lines."""
        failed = self.failures.failures
        before = f"; {self.forgetful} of them had learned, and lost it" if self.forgetful else ""
        known = self.unlearned + self.overfitted + self.diverged
        kinds = {
            f"end at the training loss of guessing{before}": self.unlearned,
            "fit the training set but guess on the dev set, which no recipe fixes": (
                self.overfitted
            ),
            "diverged: their loss is no longer finite": self.diverged,
            "learned part of the training set, but nothing that shows on the dev set": (
                failed - known
            ),
        }
        return [
            f"{count} of the {failed} failed runs {what}" for what, count in kinds.items() if count
        ]


def diagnose(runs: pd.DataFrame) -> Diagnosis:
    """Judge ``runs``, a run table of one recipe on one task.

    Raises StabkitError where they differ by more than their seeds: pass one recipe at a time.
    """
    accuracies = "best_accuracy", "train_accuracy", "majority_accuracy"
    require(runs, ("key", "seed", "score_last", *accuracies, "steps", *SIGNS))
    runs, by = cells(runs)
    only(runs, *by)
    runs = runs.sort_values("seed")
    diverged = runs["diverged"].astype(bool)
    learned = runs["train_accuracy"] >= runs["majority_accuracy"] + CLEAR
    flat = runs["flat_loss"].astype(bool) & ~learned
    failed = learned_nothing(runs.assign(flat_loss=flat))
    unlearned = flat & ~diverged
    fitted = failed & ~flat & ~diverged & (runs["train_accuracy"] >= FITTED)
    scores = finite_scores(runs, "score_last")
    first = runs.iloc[0].to_dict()
    config = RunConfig.from_row(first)
    return Diagnosis(
        config=config,
        scores=describe(scores, failed.to_numpy()),
        unlearned=int(unlearned.sum()),
        forgetful=int((unlearned & learned_once(runs)).sum()),
        overfitted=int(fitted.sum()),
        diverged=int(diverged.sum()),
        train_steps=int(first["steps"]),
        epoch_steps=_epoch_steps(config, first.get("train_examples")),
        metric=str(first["metric"]),
    )


def _epoch_steps(config: RunConfig, examples: float | None) -> int | None:
    """Return the steps of one pass over the training set; earlier runs do not tell its size."""
    if examples is None or np.isnan(examples):
        return None
    return config.steps_per_epoch(int(examples))


def comparison(before: Diagnosis, after: Diagnosis) -> list[str]:
    """Return as lines whether the remedy helped, and how sure these seeds make one of it."""
    one, other = before.failures, after.failures
    gap = rate_difference((one.failures, one.runs), (other.failures, other.runs))
    p = fisher(one.failures, one.runs, other.failures, other.runs)
    lines = [
        f"failures: {one} as you train, {other} with the remedy; difference "
        f"{gap.percent()} points, Fisher's exact p = {p:.2g}",
        f"{before.metric}: {before.scores.mean.percent()} % before, "
        f"{after.scores.mean.percent()} % after; standard deviation "
        f"{before.scores.std.percent()} and {after.scores.std.percent()} points",
    ]
    if p < SURE or one.share == other.share:
        return lines
    seeds = seeds_to_tell(one.share, other.share, MANY_SEEDS)
    enough = f"{seeds} seeds each" if seeds else f"more than {MANY_SEEDS} seeds each"
    return [*lines, f"to be sure of a difference like this, you would need {enough}"]


def conclusion(before: Diagnosis, after: Diagnosis | None = None) -> str:
    """Return what to do now, as a sentence."""
    one = before.failures
    if not one.failures:
        return "nothing to fix in these runs; more seeds would bound the share more tightly"
    if one.failures == before.overfitted:
        return (
            "look at the data: texts that occur in both sets, wrong labels, labels that do not "
            "follow from the texts, a dev set that is too small"
        )
    if after is None:
        return "try the change on the same seeds"
    other = after.failures
    if other.share >= one.share:
        return (
            "the remedy does not help here: try half the learning rate, then look at the data (do "
            "the labels follow from the texts?)"
        )
    if fisher(*one, *other) < SURE:
        return "the remedy helps: train with it"
    return "the remedy looks better, but these seeds are too few to be sure: try more"


def blocks(before: Diagnosis, after: Diagnosis | None = None) -> dict[str, list[str]]:
    """Return verdict, reasons and, where a run failed, the remedy: lines by their title.

    With ``after``, the runs of the remedy, also whether it helped.
    """
    changes = before.changes()
    named = arguments(changes)
    told = ", ".join(f"{name}={value!r}" for name, value in named.items())
    older = " (before transformers 5: warmup_ratio)" if "warmup_steps" in named else ""
    found = {
        "As you train": before.verdict(),
        "Why": before.reasons(),
        "What to change": [f"{c.field} = {plain(c.value)}: {c.reason}" for c in changes],
        "In transformers": [f"`TrainingArguments({told})`{older}"] if changes else [],
        "With the remedy": [] if after is None else comparison(before, after),
        "So": [conclusion(before, after)],
    }
    return {title: lines for title, lines in found.items() if lines}


def text(found: Mapping[str, list[str]]) -> str:
    """Return blocks of lines as text for a terminal."""
    mark = {"width": WIDTH, "initial_indent": "  - ", "subsequent_indent": "    "}
    return "\n\n".join(
        "\n".join([title, *(textwrap.fill(line, **mark) for line in lines)])  # type: ignore[arg-type]
        for title, lines in found.items()
    )
