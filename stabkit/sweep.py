"""Run the pending configurations of a grid on one machine, on a store that several may share.

Launching knows nothing of what a run is: a sweep takes any function from configuration to result.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pandas as pd
from tqdm import tqdm

from stabkit.config import RunConfig
from stabkit.errors import ConfigError, StabkitError, StoreError
from stabkit.results import RunResult, by_key
from stabkit.store import Store
from stabkit.workers import Lost, StartError, spread

Run = Callable[[RunConfig], RunResult]
State = Literal["started", "stored", "claimed", "raised", "refused", "lost"]
Watch = Callable[[RunConfig, State], object]
NAMED_PROBLEMS = 5  # lines in the message of a SweepError


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
) -> pd.DataFrame:
    """Do the runs of ``configs`` that ``store`` lacks; return the table of all, in their order.

    One process is this one. More than one are spawned, with one thread each, and ``run`` (default:
    ``stabkit.train.run``) must be importable. A run that raises or loses its process does not stop
    the others; a SweepError names all such runs at the end. A store that cannot be written stops
    the sweep with a StoreError. However a sweep ends, finished runs are kept and the same call
    goes on from there; sweeps that share a store share the work.

    ``watch`` is told, in this thread, what becomes of each run. Once ``stop`` is set, from another
    thread, the runs at work are ended and the table of the finished ones is returned. A process
    cannot end a run of its own, so with ``stop`` even a single one is spawned.
    """
    if processes < 1:
        raise ConfigError(f"processes is {processes}; expected 1 or more")
    store.clean()
    grid = by_key(configs)
    todo = deque(Task(config) for config in store.pending(grid.values()))
    tell = watch or (lambda *_: None)
    launched = _launch(todo, partial(_attempt, store, run), processes, tell, stop)
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
    return store.table(grid.values())


def _tell_what_is_kept(grid: Mapping[str, RunConfig], store: Store) -> None:
    kept = len(grid) - len(store.pending(grid.values()))
    print(
        f"stopped: {kept} of {len(grid)} runs are in {store.path}; "
        "start the same again to go on from there",
        file=sys.stderr,
    )


def _launch(
    todo: deque[Task],
    attempt: Callable[[Task], Outcome],
    processes: int,
    tell: Watch,
    stop: threading.Event | None,
) -> Attempts:
    def started(task: Task) -> None:
        tell(task.config, "claimed" if task.wait else "started")

    if processes > 1 or stop is not None:
        return spread(todo, attempt, processes, started, stop)
    return _in_turn(todo, attempt, started)


def _work_through(
    todo: deque[Task], launched: Attempts, tell: Watch, bar: Any
) -> dict[RunConfig, str]:
    """Attempt all tasks and return what raised; claimed runs are awaited after all others."""
    problems: dict[RunConfig, str] = {}
    with closing(launched) as attempts:
        for task, outcome in attempts:
            tell(task.config, "lost" if isinstance(outcome, Lost) else outcome.state)
            if isinstance(outcome, Lost):
                problems[task.config] = f"its process was lost ({outcome.how})"
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


def _in_turn(
    todo: deque[Task], attempt: Callable[[Task], Outcome], started: Callable[[Task], None]
) -> Attempts:
    while todo:
        task = todo.popleft()
        started(task)
        yield task, attempt(task)


def _attempt(store: Store, run: Run | None, task: Task) -> Outcome:
    """Do one run, unless another process does it or has done it by now."""
    key = task.config.key
    try:
        with store.claim(key, task.wait) as ours:
            if not ours:
                return Outcome("claimed")
            if key not in store:
                store.put((run or _training())(task.config))
    except StoreError as error:
        return Outcome("refused", str(error))
    except Exception:
        return Outcome("raised", traceback.format_exc())
    return Outcome("stored")


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
