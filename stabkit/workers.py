"""Launchers: this process, or several that share a queue of tasks, of which any may be lost.

Unlike ``concurrent.futures``, losing one process costs one task, which is named, and no other.
``stabkit.cluster`` has a launcher for many machines.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

ONE_THREAD = {  # the processes share the cores; read by the numerical libraries when loaded
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
GPUS = "CUDA_VISIBLE_DEVICES"  # read when a process first asks for a GPU

SECONDS_TO_GO = 10.0  # for an idle process, once there is nothing more for it
SECONDS_TO_LOOK = 0.2  # between two looks at whether to stop


@dataclass(frozen=True)
class Lost:
    """What became of a task whose process ended under it: "its process was killed"."""

    how: str


class Launcher(Protocol):
    """Does tasks, here or elsewhere.

    Yields each task of ``todo`` with its result, or with Lost, as they come. ``work`` must be
    importable and must not raise; tasks may be added to ``todo`` meanwhile. ``started`` is called,
    here, with each task that is given to somebody. Closing the generator, or setting ``stop`` in
    another thread, ends the tasks at work.
    """

    def __call__(
        self,
        todo: deque[T],
        work: Callable[[T], R],
        started: Callable[[T], None],
        stop: threading.Event | None = None,
    ) -> Generator[tuple[T, R | Lost], None, None]:
        """Launch the tasks."""


class StartError(RuntimeError):
    """A process that ended before it could take its first task."""


def in_turn(
    todo: deque[T],
    work: Callable[[T], R],
    started: Callable[[T], None],
    stop: threading.Event | None = None,
) -> Generator[tuple[T, R | Lost], None, None]:
    """Launch in this process, which can be stopped between two tasks only."""
    while todo and not (stop is not None and stop.is_set()):
        task = todo.popleft()
        started(task)
        yield task, work(task)


def spread(
    todo: deque[T],
    work: Callable[[T], R],
    started: Callable[[T], None],
    stop: threading.Event | None = None,
    *,
    processes: int,
    gpus: Sequence[str] = (),
) -> Generator[tuple[T, R | Lost], None, None]:
    """Launch in spawned processes of one thread each.

    Each sees one of ``gpus``, named as in CUDA_VISIBLE_DEVICES, which are shared out evenly; where
    none is named, it sees what this process sees. At the end, busy processes are ended at once and
    idle ones in SECONDS_TO_GO at most; the death of this process ends all. Raises StartError when a
    process cannot start.
    """
    workers: list[_Worker[T, R]] = []
    try:
        while todo or any(worker.busy for worker in workers):
            for worker in workers:
                if todo and worker.ready and not worker.busy:
                    worker.give(todo.popleft())
                    started(worker.tasks[0])
            wanted = min(processes, len(todo) + sum(worker.busy for worker in workers))
            while len(workers) < wanted:
                workers.append(_Worker(work, _idlest(gpus, [worker.gpu for worker in workers])))
            pipes = [worker.pipe for worker in workers]
            patience = None if stop is None else SECONDS_TO_LOOK
            for pipe in connection.wait(pipes, patience):
                worker = next(worker for worker in workers if worker.pipe is pipe)
                yield from worker.receive()
            workers = [worker for worker in workers if not worker.lost]
            if stop is not None and stop.is_set():
                return
    finally:
        for worker in workers:
            worker.pipe.close()
        for worker in sorted(workers, key=lambda worker: not worker.busy):
            worker.end()


class _Worker(Generic[T, R]):
    """A process, the pipe to it and the task it is at."""

    def __init__(self, work: Callable[[T], R], gpu: str | None) -> None:
        context, self.gpu = get_context("spawn"), gpu
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        with _environment(ONE_THREAD | ({} if gpu is None else {GPUS: gpu})):
            self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.tasks: list[T] = []  # one or none
        self.ready = self.lost = False

    @property
    def busy(self) -> bool:
        return bool(self.tasks)

    def give(self, task: T) -> None:
        self.tasks = [task]
        with suppress(OSError):  # it ended while idle: receive() will find out
            self.pipe.send(task)

    def end(self) -> None:
        """End the process, whose pipe is closed: an idle one goes by itself and tidies up."""
        if self.ready and not self.busy:
            self.process.join(SECONDS_TO_GO)
        self.process.kill()
        self.process.join()

    def receive(self) -> Iterator[tuple[T, R | Lost]]:
        """Yield its task and the result; nothing when it reports for work or ended idle."""
        try:
            result: R | Lost = self.pipe.recv()
        except (EOFError, OSError):
            self.lost = True
            result = Lost(self._ending())
        finished, self.tasks, self.ready = self.tasks, [], True
        for task in finished:
            yield task, result

    def _ending(self) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if not self.ready:
            raise StartError(f"a worker process ended with {how} before its first task")
        if how == "signal SIGKILL":
            return f"its process was killed ({how}), often for want of memory"
        return f"its process ended with {how}"


def _idlest(gpus: Sequence[str], taken: Sequence[str | None]) -> str | None:
    """Return the GPU that the fewest have, of equals the first; None where there is none."""
    return min(gpus, key=taken.count, default=None)


def _serve(pipe: connection.Connection, work: Callable[[T], R]) -> None:
    """Do the tasks that come through ``pipe`` until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError):
        pipe.send(None)
        while True:
            pipe.send(work(pipe.recv()))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
