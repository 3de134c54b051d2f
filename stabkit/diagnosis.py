"""From the runs of one recipe to a verdict, its reason and a remedy: run tables in, words out.

The remedy is the paper's (section 6): correct Adam's bias so that the small learning rate is small
from the first step, warm it up, and train for many more iterations. Whether it helped is judged on
the same seeds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from stabkit.config import RunConfig
from stabkit.effects import fisher, rate_difference, seeds_to_tell
from stabkit.findings import Count
from stabkit.report import cells
from stabkit.schedule import hidden_multiplier, linear_schedule
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

EPOCHS, WARMUP = 20, 0.1  # what section 6 trains for, and warms up over
FITTED = 0.9  # training accuracy of a run that has learned its training set
SURE = 0.05  # the p of Fisher's exact test below which the remedy counts as a help
MANY_SEEDS = 50  # above this many a study that tells two recipes apart is out of reach
OUTCOME = ("With the remedy", "So")  # the blocks that need its runs
WIDTH = 88  # columns of a terminal
TRAINER = {  # our fields as arguments of Hugging Face's TrainingArguments
    "epochs": "num_train_epochs",
    "max_steps": "max_steps",
    "warmup": "warmup_steps",
    "learning_rate": "learning_rate",
}


@dataclass(frozen=True)
class Change:
    """One setting to change, to what, and why."""

    field: str
    value: Any
    reason: str


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
            slower = "at the one you set, runs lose their loss to numbers that are not finite"
            return [
                Change("learning_rate", _round(self.config.learning_rate / 10), slower),
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
            first = f"{told}: not a matter of the seed, but of rate, number of steps, or data"
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
        kinds = {
            f"end at the training loss of guessing{before}": self.unlearned,
            "fit the training set and guess on the dev set, which no recipe mends": (
                self.overfitted
            ),
            "lost their loss to numbers that are not finite": self.diverged,
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
        scores=describe(scores, failed.to_numpy(), np.random.default_rng(0)),
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


def remedy(config: RunConfig, steps: int, epoch_steps: int | None = None) -> list[Change]:
    """Return what section 6 would change in a recipe whose runs take ``steps`` updates.

    Where these are set as such, and not as epochs, it takes ``epoch_steps`` to tell whether they
    are few.
    """
    changes = []
    if not config.bias_correction:
        changes.append(Change("bias_correction", True, _hidden(config, steps)))
    if config.warmup < WARMUP:
        reason = "Adam's first estimates are poor; small first steps do no harm by them"
        changes.append(Change("warmup", WARMUP, reason))
    if longer := _longer(config, epoch_steps):
        changes.append(longer)
    halved = "all of the remedy is in the recipe; what is left is a smaller rate"
    return changes or [Change("learning_rate", _round(config.learning_rate / 2), halved)]


def _longer(config: RunConfig, epoch_steps: int | None) -> Change | None:
    why = "many more iterations, until the training loss is near zero, bring the seeds together"
    if config.epochs is not None:
        return Change("epochs", EPOCHS, why) if config.epochs < EPOCHS else None
    enough = EPOCHS * (epoch_steps or 0)
    if config.max_steps is None or config.max_steps >= enough:
        return None
    return Change("max_steps", enough, f"{EPOCHS} passes over your training set: {why}")


def _round(rate: float) -> float:
    """Return a rate as one would write it, without the dust of a division."""
    return float(f"{rate:.6g}")


def _hidden(config: RunConfig, steps: int) -> str:
    t = np.arange(1, steps + 1)
    hidden = hidden_multiplier(t, config.beta1, config.beta2)
    rate = hidden * linear_schedule(t, steps, config.warmup, config.zero_first_update)
    return (
        "without it the first updates are larger than your learning rate says: up to "
        f"{hidden.max():.1f} times at update {t[hidden.argmax()]}, and at its peak, at update "
        f"{t[rate.argmax()]}, the rate is {rate.max():.1f} times the one you set"
    )


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
    return [*lines, f"to be sure of a difference like this one would need {enough}"]


def conclusion(before: Diagnosis, after: Diagnosis | None = None) -> str:
    """Return what to do now, as a sentence."""
    one = before.failures
    if not one.failures:
        return "nothing to mend in these runs; more seeds would bound the share more tightly"
    if one.failures == before.overfitted:
        return (
            "look at the data: texts that stand in both sets, wrong labels, labels that do not "
            "follow from the texts, a dev set too small"
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
    return "the remedy looks better, and these seeds are too few to be sure: try more of them"


def arguments(changes: list[Change]) -> Mapping[str, Any]:
    """Return the changes as arguments of Hugging Face's ``TrainingArguments``."""
    named = {TRAINER[c.field]: c.value for c in changes if c.field in TRAINER}
    corrects = any(c.field == "bias_correction" for c in changes)
    return named | ({"optim": "adamw_torch"} if corrects else {})


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
        "What to change": [f"{c.field} = {_plain(c.value)}: {c.reason}" for c in changes],
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


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
