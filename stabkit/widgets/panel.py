"""The panel: choose, see what it costs, train in the background, watch the runs land.

A control that moves recomputes the plan's numbers and no more. What takes its time (fetching,
measuring, training) waits for a button and goes on in a thread, its work in other processes.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets
import pandas as pd
import torch

from stabkit.config import RunConfig
from stabkit.errors import ModelError, StabkitError
from stabkit.presets import is_organism
from stabkit.store import Store
from stabkit.studies import LOOKS
from stabkit.sweep import Run, State, SweepError, sweep
from stabkit.widgets import views
from stabkit.widgets.archive import Archive
from stabkit.widgets.calibration import Speed, calibrate, device
from stabkit.widgets.drawing import Stage
from stabkit.widgets.form import Form, heading
from stabkit.widgets.plan import Plan, Subject, fetched

AT_ONCE = (
    "Trained as one batched model: faster on a GPU that one small model does not fill. The time "
    "estimate assumes one seed after the other, and no analysis can recreate the runs' weights."
)
NO_GPU = (
    "No GPU here, and a large model trains for hours on a processor: on Colab, choose a runtime "
    "with a GPU, or use a mini model."
)


class StudyPanel(ipywidgets.VBox):  # type: ignore[misc]
    """The controls, the cost, three buttons, and what has come of it; see ``study_panel``."""

    def __init__(
        self, form: Form, store: Store, first_seed: int, run: Run | None, fields: dict[str, Any]
    ) -> None:
        """``fields`` of ``RunConfig`` are the same for all runs; ``run`` is as in ``sweep``."""
        self.form, self.archive = form, Archive(store)
        self._first_seed, self._run, self._fields = first_seed, run, fields
        self._fetched: dict[tuple[str, str], Subject] = {}
        self._speeds: dict[RunConfig, Speed] = {}
        self._states: dict[str, tuple[State, float]] = {}
        self._stopping, self._thread = threading.Event(), threading.Thread()
        self.busy = False  # measuring or training
        self._choice: dict[str, Any] | None = None  # what the controls say, if it can be done
        self.plan: Plan | None = None  # what that means, as far as model and task are here
        self.cost, self.status, self.notice, self.marks = (ipywidgets.HTML() for _ in range(4))
        self.measure = _button("Measure", "Time a few real steps to estimate how long runs take")
        self.run = _button("Run", "Train the runs that are not stored yet")
        self.stop = _button("Stop", "Stop the runs in training; finished runs are kept")
        self.stage = Stage()
        parts = [
            *(form, heading("What it costs"), self.cost),
            ipywidgets.HBox([self.measure, self.run, self.stop]),
            *(self.notice, self.status, heading("Runs"), self.marks, self.stage),
        ]
        super().__init__([ipywidgets.HTML(views.LOOK), *parts])
        self.add_class("stabkit-study")
        self.measure.on_click(lambda _: self._start(self._measure, ready=False))
        self.run.on_click(lambda _: self._start(self._train, ready=True))
        self.stop.on_click(lambda _: self.end())
        form.on_change(self._turned)
        self._look()
        self._changed()

    def end(self) -> None:
        """Stop measuring and training, within seconds; finished runs are kept."""
        self._stopping.set()
        if self.busy:
            self._tell("Stopping ...")

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until nothing is measured or trained; return whether it has come to that."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def runs(self) -> pd.DataFrame:
        """Return the plan's runs that are stored or published by now, with the column ``cell``."""
        self._look()
        return self.archive.table(self.plan) if self.plan else pd.DataFrame()

    def _look(self) -> None:
        try:
            self._standing: object = " ".join(self.archive.look())
        except StabkitError as problem:
            self._standing = problem
        self._say(self._standing)

    def _say(self, problem: object, details: str = "") -> None:
        more = f"<details><summary>Details</summary><pre>{escape(details)}</pre></details>"
        self.notice.value = views.wrong(problem) + (more if details else "")

    def _tell(self, sentence: str) -> None:
        self.status.value = f'<p role="status">{escape(sentence)}</p>'

    def _turned(self, _: Any) -> None:
        """A control was: what was wrong with the last choice is so no longer."""
        if not self.busy:
            self._say(self._standing)
        self._changed()

    def _changed(self) -> None:
        """Recompute the plan from the controls and show it."""
        self._choice, self.plan = self.form.read(), None
        subject = self._subject(**self._choice) if self._choice else None
        if self._choice and subject:
            try:
                self.plan = self._planned(subject, **self._choice)
            except StabkitError as problem:
                self._choice = None
                self._say(problem)
        self._show()
        if self.plan and not self.busy:
            self._draw(self.plan)

    def _subject(self, model: str, task: str, **_: Any) -> Subject | None:
        """Return what is here already; what may have to be fetched waits for the button."""
        fields = self.form.fields
        if not (is_organism(model) or torch.cuda.is_available()):
            fields["model"].advise(NO_GPU)
        try:
            if not fetched(model, task):
                return Subject.load(model, task, **self._fields)
        except StabkitError as problem:
            fields["model" if isinstance(problem, ModelError) else "task"].refuse(problem)
            self._choice = None
        return self._fetched.get((model, task))

    def _planned(self, subject: Subject, **choice: Any) -> Plan:
        if choice["at_once"] > 1:
            self.form.fields["at_once"].advise(AT_ONCE)
        seeds = range(self._first_seed, self._first_seed + choice["seeds"])
        fields = {"evals_per_epoch": LOOKS, **self._fields, **choice["length"]}
        fields["precision"] = choice["precision"]
        axes = (choice["methods"], choice["corrections"], choice["rates"], seeds)
        return Plan.of(subject, *axes, **fields)

    def _show(self) -> None:
        """Show what the plan costs, and which buttons can be pressed."""
        plan, choice = self.plan, self._choice
        pending = plan.pending(self.archive.keys) if plan else []
        if choice and plan:
            seconds = plan.seconds(pending, self._speeds)
            minutes = views.minutes(len(pending), seconds, choice["processes"])
            self.cost.value = views.cost(plan, pending, minutes, device(), self.archive.store.path)
        else:
            fetch = "Press Measure: the model or the data may have to be fetched first."
            self.cost.value = views.hint(fetch if choice else "Correct the entries marked in red.")
        ready = self._ready()
        self.measure.disabled = self.busy or not choice or ready
        self.run.disabled = self.busy or not ready or not pending
        self.stop.disabled = not self.busy
        for button in (self.measure, self.run):
            button.button_style = "" if button.disabled else "primary"

    def _ready(self) -> bool:
        """Tell whether the plan and its cost are known."""
        plan = self.plan
        pending = plan.pending(self.archive.keys) if plan else []
        return plan is not None and plan.seconds(pending, self._speeds) is not None

    def _draw(self, plan: Plan, figure: bool = True) -> None:
        """Show what became of each of the plan's runs, and the figure of the stored ones."""
        try:
            table = self.archive.table(plan)
            expected = {k: plan.seconds([c], self._speeds) or 0 for k, c in plan.configs.items()}
            self.marks.value = views.progress(plan, table, self._states, expected)
            if figure:
                self.stage.draw(table)
        except Exception as problem:  # whatever it is, it must not end the training
            self._say(f"The runs cannot be drawn: {problem}", traceback.format_exc())

    def _start(self, job: Callable[[], str], ready: bool) -> None:
        """Do a job in a thread, one at a time, if by now the plan is as it has to be for it."""
        if self.busy:
            return
        self._look()
        self._changed()
        if self._choice and self._ready() is ready:
            self.busy = True
            self._stopping.clear()
            self._thread = threading.Thread(target=self._guarded, args=(job,), daemon=True)
            self._thread.start()
            self._show()

    def _guarded(self, job: Callable[[], str]) -> None:
        """Do a job; whatever comes of it is told in a sentence."""
        try:
            said = job()
        except SweepError as error:
            said, details = "Ended with errors.", "\n".join(error.problems.values())
            self._say(_trouble(error), details)
        except StabkitError as problem:
            said = "Stopped by an error."
            self._say(problem)
        except Exception as problem:
            said = "Stopped by an error in stabkit itself; finished runs are kept."
            self._say(f"{type(problem).__name__}: {problem}", traceback.format_exc())
        self.busy = False
        self._tell(said)
        self._changed()

    def _measure(self) -> str:
        assert self._choice is not None
        choice, plan = dict(self._choice), self.plan  # controls may move meanwhile
        if plan is None:
            self._tell("Fetching the model and the data ...")
            names = choice["model"], choice["task"]
            self._fetched[names] = Subject.load(*names, **self._fields)
            plan = self._planned(self._fetched[names], **choice)
        missing = [pace for pace in plan.paces() if pace not in self._speeds]
        self._tell(f"Measuring a few real steps of {views.plural(len(missing), 'kind')} of run ...")
        for pace, speed in calibrate(missing, self._stopping):
            self._speeds[pace] = speed
        if self._stopping.is_set():
            return "Stopped measuring."
        each = {f"{1000 * self._speeds[pace].step:.3g}" for pace in plan.paces()}
        return f"Measured: a step takes {' or '.join(sorted(each))} ms on one thread."

    def _train(self) -> str:
        assert self._choice is not None and self.plan is not None
        plan, choice, self._states = self.plan, dict(self._choice), {}
        total = len(plan.configs)
        self._training(plan)

        def watch(config: RunConfig, state: State) -> None:
            self._states[config.key] = state, time.monotonic()
            if state == "stored":
                self.archive.keys.add(config.key)
            self._training(plan)

        configs, store = plan.configs.values(), self.archive.store
        table = sweep(
            configs,
            store,
            choice["processes"],
            self._run,
            progress=False,
            watch=watch,
            stop=self._stopping,
            seeds_at_once=choice["at_once"],
        )
        done = len(table)
        if done < total:
            return f"Stopped: {done} of {total} runs are stored; Run goes on from there."
        return f"Finished: {'the run is' if total == 1 else f'all {total} runs are'} stored."

    def _training(self, plan: Plan) -> None:
        """Show how far the training of a plan is."""
        left = len(plan.pending(self.archive.keys))
        self._tell(f"Training: {len(plan.configs) - left} of {len(plan.configs)} runs are stored.")
        self._show()
        self._draw(plan)


def _button(name: str, tooltip: str) -> Any:
    return ipywidgets.Button(description=name, tooltip=tooltip, layout={"width": "7rem"})


def _trouble(error: SweepError) -> str:
    if not error.problems:
        return str(error)
    ended = views.plural(len(error.problems), "run")
    return f"{ended} ended in an error; the others are kept. Press Run to try these again."
