"""Run the pending configurations of a grid on a store that several may share.

Launching knows nothing of what a run is: a sweep takes any function from configuration to result.
What is launched is a task: one run, or several of one recipe that are done at once.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import pandas as pd
from tqdm import tqdm

from stabkit.config import RunConfig
from stabkit.errors import ConfigError, StabkitError, StoreError, UnreachableError
from stabkit.results import RunResult, by_key
from stabkit.store import Store
from stabkit.workers import Launcher, Lost, StartError, in_turn, spread

T = TypeVar("T")
Run = Callable[[RunConfig], RunResult]
RunSeeds = Callable[[Sequence[RunConfig]], Iterable[RunResult]]
State = Literal["started", "stored", "claimed", "raised", "refused", "lost"]
Watch = Callable[[RunConfig, State], object]
NAMED_PROBLEMS = 5  # lines in the message of a SweepError
PAUSES = (1, 2, 4, 8, 16, 32, 60, 120, 240)  # seconds, while a store does not answer
GLANCES = (0, 1, 4, 15, 60)  # seconds between looks for a run; a shared folder may show it late


class SweepError(StabkitError):
    """Some runs raised or lost their process; ``problems`` maps their keys to the tracebacks."""

    def __init__(self, message: str, problems: dict[str, str]) -> None:
        """Keep what happened to each of these runs beside the message."""
        super().__init__(message)
        self.problems = problems


@dataclass(frozen=True)
class Task:
    """One attempt at a run, or at several of one recipe that are done at once.

    With ``wait``, of one run, it outwaits another process that has claimed that.
    """

    configs: tuple[RunConfig, ...]
    wait: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a run: stored, in other hands, an error, a store that refuses, or a loss."""

    state: Literal["stored", "claimed", "raised", "refused", "lost"]
    problem: str = ""


Attempts = Generator[tuple[Task, list[Outcome] | Lost], None, None]


def sweep(
    configs: Iterable[RunConfig],
    store: Store,
    processes: int = 1,
    run: Run | None = None,
    progress: bool = True,
    watch: Watch | None = None,
    stop: threading.Event | None = None,
    launcher: Launcher | None = None,
    seeds_at_once: int = 1,
    run_seeds: RunSeeds | None = None,
) -> pd.DataFrame:
    """Do the runs of ``configs`` that ``store`` lacks; return the table of all, in their order.

    One process is this one. More than one are spawned, with one thread each, the GPUs shared out
    among them, and ``run`` (default: ``stabkit.train.run``) must be importable. A ``launcher``
    takes their place, such as ``stabkit.cluster.RayCluster``. A run that raises or loses its
    process does not stop the others; a SweepError names all such runs at the end. A store that
    cannot be written stops the sweep with a StoreError, and so does one in which the launcher's
    runs do not show; one that does not answer is tried again for some minutes first. However a
    sweep ends, finished runs are kept and the same call goes on from there; sweeps that share a
    store share the work.

    With ``seeds_at_once`` above 1, whoever does runs does up to so many at once that differ in
    their seeds only, by ``run_seeds`` (default: ``stabkit.train.run_seeds``), as far as models can
    be stacked (``stabkit.together``). Each is claimed and stored on its own; an error or a lost
    process is that of all runs that were done at once.

    ``watch`` is told, in this thread, what becomes of each run. Once ``stop`` is set, from another
    thread, the runs at work are ended and the table of the finished ones is returned. A process
    cannot end a run of its own, so with ``stop`` even a single one is spawned.
    """
    if processes < 1:
        raise ConfigError(f"processes is {processes}; expected 1 or more")
    if seeds_at_once < 1:
        raise ConfigError(f"seeds_at_once is {seeds_at_once}; expected 1 or more")
    if seeds_at_once > 1 and (run is None) != (run_seeds is None):
        raise ConfigError(
            f"seeds_at_once is {seeds_at_once} but only {'run' if run else 'run_seeds'} is given: "
            "that would do some runs and stabkit.train the others; give both or neither"
        )
    store.clean()
    grid = by_key(configs)
    pending = patiently(lambda: store.pending(grid.values()))
    todo = deque(_tasks(pending, seeds_at_once))
    tell = watch or (lambda *_: None)

    def started(task: Task) -> None:
        for config in task.configs:
            tell(config, "claimed" if task.wait else "started")

    gpus = _training().visible_gpus() if run is None and processes > 1 and pending else ()
    launch = launcher or _on_this_machine(processes, gpus, stop)
    launched = launch(todo, partial(_attempt, store, run, run_seeds), started, stop)
    bar = tqdm(total=len(grid), initial=len(grid) - len(pending), unit="run", disable=not progress)
    try:
        with bar:
            problems = _work_through(todo, launched, tell, bar, store)
    except StartError as error:
        raise SweepError(
            f"{error}; its own message is above. The run function must be importable, and a "
            'script must call sweep() below `if __name__ == "__main__":`',
            {},
        ) from None
    except KeyboardInterrupt:
        _tell_what_is_kept(grid, store)
        raise
    if problems:
        raise _error(problems, len(grid))
    if not (stop is not None and stop.is_set()):
        _must_show(store, list(grid.values()))
    return patiently(lambda: store.table(grid.values()))


def _tasks(pending: Sequence[RunConfig], seeds_at_once: int) -> Iterable[Task]:
    if seeds_at_once == 1:
        return (Task((config,)) for config in pending)
    from stabkit.together import groups  # here, because reading results must not import torch

    return map(Task, groups(pending, seeds_at_once))


def _tell_what_is_kept(grid: Mapping[str, RunConfig], store: Store) -> None:
    kept = len(grid) - len(store.pending(grid.values()))
    print(
        f"stopped: {kept} of {len(grid)} runs are in {store.path}; "
        "start the same again to continue from there",
        file=sys.stderr,
    )


def _on_this_machine(processes: int, gpus: Sequence[str], stop: threading.Event | None) -> Launcher:
    if processes > 1 or stop is not None:
        return partial(spread, processes=processes, gpus=gpus)
    return in_turn


def _work_through(
    todo: deque[Task], launched: Attempts, tell: Watch, bar: Any, store: Store
) -> dict[RunConfig, str]:
    """Attempt all tasks and return what raised; claimed runs are awaited after all others."""
    problems: dict[RunConfig, str] = {}
    shown = False
    with closing(launched) as attempts:
        for task, found in attempts:
            if isinstance(found, Lost):
                found = [Outcome("lost", found.how)] * len(task.configs)
            for config, outcome in zip(task.configs, found, strict=True):
                tell(config, outcome.state)
                if outcome.state == "claimed":
                    todo.append(Task((config,), wait=True))
                    continue
                if outcome.state == "refused":
                    raise StoreError(outcome.problem)
                if outcome.problem:
                    problems[config] = outcome.problem
                elif not shown:  # or hours may pass until somebody looks
                    _must_show(store, [config])
                    shown = True
                bar.set_postfix(errors=len(problems))
                bar.update()
    return problems


def _attempt(
    store: Store, run: Run | None, run_seeds: RunSeeds | None, task: Task
) -> list[Outcome]:
    """Do the runs of a task, but for those that another process does or has done by now."""
    claimed: set[RunConfig] = set()  # by others
    try:
        with ExitStack() as claims:
            for config in task.configs:
                if not patiently(partial(_claim, claims, store, config, task.wait)):
                    claimed.add(config)
            ours = [config for config in task.configs if config not in claimed]
            missing = patiently(lambda: [config for config in ours if config.key not in store])
            for result in _results(missing, run, run_seeds):
                patiently(partial(store.put, result))
        outcome = Outcome("stored")
    except StoreError as error:
        outcome = Outcome("refused", str(error))
    except Exception:
        outcome = Outcome("raised", traceback.format_exc())
    return [Outcome("claimed") if c in claimed else outcome for c in task.configs]


def _claim(claims: ExitStack, store: Store, config: RunConfig, wait: bool) -> bool:
    return claims.enter_context(store.claim(config.key, wait))


def _results(
    configs: Sequence[RunConfig], run: Run | None, run_seeds: RunSeeds | None
) -> Iterable[RunResult]:
    if len(configs) > 1:
        return (run_seeds or _training().run_seeds)(configs)
    return map(run or _training().run, configs)


def _must_show(store: Store, done: Sequence[RunConfig]) -> None:
    """Raise StoreError where runs that were stored are not to be seen from here."""
    for pause in GLANCES:
        time.sleep(pause)
        if not (missing := patiently(lambda: store.pending(done))):
            return
    raise StoreError(
        f"{len(missing)} of {len(done)} runs were stored but cannot be seen in {store.path}: "
        "whatever trained them sees another folder of that name; name one that all machines share, "
        "or an object store (s3://bucket/runs)"
    )


def patiently(ask: Callable[[], T]) -> T:
    """Ask a store, and ask it again for some minutes while it does not answer."""
    for pause in PAUSES:
        try:
            return ask()
        except UnreachableError as error:
            warnings.warn(f"{error} (trying again in {pause} s)", stacklevel=2)
            time.sleep(pause)
    return ask()


def _training() -> Any:
    from stabkit import train  # here, because reading results must not import torch

    return train


def _error(problems: dict[RunConfig, str], total: int) -> SweepError:
    lines = [
        f"  {config.key} ({config.model}, {config.task}, seed {config.seed}): "
        + problem.strip().splitlines()[-1]
        for config, problem in problems.items()
    ]
    if len(lines) > NAMED_PROBLEMS:
        lines[NAMED_PROBLEMS:] = [f"  and {len(lines) - NAMED_PROBLEMS} more"]
    return SweepError(
        f"{len(problems)} of {total} runs ended in an error; the others are kept; start the same "
        "again to retry these:\n" + "\n".join(lines),
        {config.key: problem for config, problem in problems.items()},
    )
