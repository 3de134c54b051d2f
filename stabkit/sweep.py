"""Run the pending configurations of a grid on a store that several may share.

Launching knows nothing of what a run is: a sweep takes any function from configuration to result.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
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
State = Literal["started", "stored", "claimed", "raised", "refused", "lost"]
Watch = Callable[[RunConfig, State], object]
NAMED_PROBLEMS = 5  # lines in the message of a SweepError
PAUSES = (1, 2, 4, 8, 16, 32, 60, 120, 240)  # seconds, while a store does not answer


class SweepError(StabkitError):
    """Some runs raised or lost their process; ``problems`` maps their keys to the tracebacks."""

    def __init__(self, message: str, problems: dict[str, str]) -> None:
        """Keep what happened to each of these runs beside the message."""
        super().__init__(message)
        self.problems = problems


@dataclass(frozen=True)
class Task:
    """One attempt at a run; with ``wait`` it outwaits another process that has claimed the run."""

    config: RunConfig
    wait: bool = False


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to: stored, in other hands, an error, or a store that refuses."""

    state: Literal["stored", "claimed", "raised", "refused"]
    problem: str = ""


Attempts = Generator[tuple[Task, Outcome | Lost], None, None]


def sweep(
    configs: Iterable[RunConfig],
    store: Store,
    processes: int = 1,
    run: Run | None = None,
    progress: bool = True,
    watch: Watch | None = None,
    stop: threading.Event | None = None,
    launcher: Launcher | None = None,
) -> pd.DataFrame:
    """Do the runs of ``configs`` that ``store`` lacks; return the table of all, in their order.

    One process is this one. More than one are spawned, with one thread each, and ``run`` (default:
    ``stabkit.train.run``) must be importable. A ``launcher`` takes their place, such as
    ``stabkit.cluster.RayCluster``. A run that raises or loses its process does not stop the
    others; a SweepError names all such runs at the end. A store that cannot be written stops the
    sweep with a StoreError; one that does not answer is tried again for some minutes first.
    However a sweep ends, finished runs are kept and the same call goes on from there; sweeps that
    share a store share the work.

    ``watch`` is told, in this thread, what becomes of each run. Once ``stop`` is set, from another
    thread, the runs at work are ended and the table of the finished ones is returned. A process
    cannot end a run of its own, so with ``stop`` even a single one is spawned.
    """
    if processes < 1:
        raise ConfigError(f"processes is {processes}; expected 1 or more")
    store.clean()
    grid = by_key(configs)
    todo = deque(Task(config) for config in _patiently(lambda: store.pending(grid.values())))
    tell = watch or (lambda *_: None)

    def started(task: Task) -> None:
        tell(task.config, "claimed" if task.wait else "started")

    launch = launcher or _on_this_machine(processes, stop)
    launched = launch(todo, partial(_attempt, store, run), started, stop)
    bar = tqdm(total=len(grid), initial=len(grid) - len(todo), unit="run", disable=not progress)
    try:
        with bar:
            problems = _work_through(todo, launched, tell, bar)
    except StartError as error:
        raise SweepError(
            f"{error}; its own message stands above. The run function must be importable, and a "
            'script must call sweep() below `if __name__ == "__main__":`',
            {},
        ) from None
    except KeyboardInterrupt:
        _tell_what_is_kept(grid, store)
        raise
    if problems:
        raise _error(problems, len(grid))
    return _patiently(lambda: store.table(grid.values()))


def _tell_what_is_kept(grid: Mapping[str, RunConfig], store: Store) -> None:
    kept = len(grid) - len(store.pending(grid.values()))
    print(
        f"stopped: {kept} of {len(grid)} runs are in {store.path}; "
        "start the same again to go on from there",
        file=sys.stderr,
    )


def _on_this_machine(processes: int, stop: threading.Event | None) -> Launcher:
    if processes > 1 or stop is not None:
        return partial(spread, processes=processes)
    return in_turn


def _work_through(
    todo: deque[Task], launched: Attempts, tell: Watch, bar: Any
) -> dict[RunConfig, str]:
    """Attempt all tasks and return what raised; claimed runs are awaited after all others."""
    problems: dict[RunConfig, str] = {}
    with closing(launched) as attempts:
        for task, outcome in attempts:
            tell(task.config, "lost" if isinstance(outcome, Lost) else outcome.state)
            if isinstance(outcome, Lost):
                problems[task.config] = outcome.how
            elif outcome.state == "raised":
                problems[task.config] = outcome.problem
            elif outcome.state == "claimed":
                todo.append(Task(task.config, wait=True))
                continue
            elif outcome.state == "refused":
                raise StoreError(outcome.problem)
            bar.set_postfix(errors=len(problems))
            bar.update()
    return problems


def _attempt(store: Store, run: Run | None, task: Task) -> Outcome:
    """Do one run, unless another process does it or has done it by now."""
    key = task.config.key
    try:
        with ExitStack() as claim:
            if not _patiently(lambda: claim.enter_context(store.claim(key, task.wait))):
                return Outcome("claimed")
            if not _patiently(lambda: key in store):
                result = (run or _training())(task.config)
                _patiently(lambda: store.put(result))
    except StoreError as error:
        return Outcome("refused", str(error))
    except Exception:
        return Outcome("raised", traceback.format_exc())
    return Outcome("stored")


def _patiently(ask: Callable[[], T]) -> T:
    """Ask a store, and ask it again for some minutes while it does not answer."""
    for pause in PAUSES:
        try:
            return ask()
        except UnreachableError as error:
            warnings.warn(f"{error} (trying again in {pause} s)", stacklevel=2)
            time.sleep(pause)
    return ask()


def _training() -> Run:
    from stabkit import train  # here, because reading results must not import torch

    return train.run


def _error(problems: dict[RunConfig, str], total: int) -> SweepError:
    lines = [
        f"  {config.key} ({config.model}, {config.task}, seed {config.seed}): "
        + problem.strip().splitlines()[-1]
        for config, problem in problems.items()
    ]
    if len(lines) > NAMED_PROBLEMS:
        lines[NAMED_PROBLEMS:] = [f"  and {len(lines) - NAMED_PROBLEMS} more"]
    return SweepError(
        f"{len(problems)} of {total} runs ended in an error; the others are kept, and the same "
        "call tries these again:\n" + "\n".join(lines),
        {config.key: problem for config, problem in problems.items()},
    )
