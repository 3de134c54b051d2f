"""Runs on many machines: a launcher for sweeps on a Ray cluster. Nothing else imports Ray."""

from __future__ import annotations

import logging
import os
import socket
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from stabkit.errors import StabkitError
from stabkit.workers import GPUS, ONE_THREAD, SECONDS_TO_LOOK, Lost

T = TypeVar("T")
R = TypeVar("R")

SECONDS_TO_ANSWER = 10.0  # for the head of a cluster
SECONDS_TO_WAIT = 1.0  # between two looks at which nodes there are
LOSSES = 3  # workers that may die under a run before it is given up
NODE_LOSSES = 10  # the same for nodes, which are taken away for reasons of their own
AHEAD = 8  # runs that wait in the cluster: a cluster that grows by itself looks at these


class ClusterError(StabkitError):
    """A Ray cluster that is not there, or that cannot do what is asked of it."""


@dataclass(frozen=True)
class RayCluster:
    """A launcher on the cluster at ``address`` (HOST:PORT, auto), or on one of this machine alone.

    A run takes ``cpus`` cores and ``gpus`` GPUs, whose shares may be fractions, and one thread.
    There are ``at_a_time`` runs at a time, or as many as the cluster has room for. Every node needs
    the same stabkit, with the same extra ``ray``, and must reach the store. A run whose worker or
    node dies is tried again; one that loses LOSSES workers, or NODE_LOSSES nodes, is given up.
    """

    address: str | None = None
    at_a_time: int | None = None
    cpus: float = 1
    gpus: float = 0

    def __call__(
        self,
        todo: deque[T],
        work: Callable[[T], R],
        started: Callable[[T], None],
        stop: threading.Event | None = None,
    ) -> Generator[tuple[T, R | Lost], None, None]:
        """Launch the tasks; raises ClusterError when the cluster cannot do them at all."""
        if not todo:
            return
        with self.connected() as ray:
            self._tell_of_what_there_is(ray)
            yield from self._spread(ray, todo, work, started, stop)

    def _spread(
        self,
        ray: Any,
        todo: deque[T],
        work: Callable[[T], R],
        started: Callable[[T], None],
        stop: threading.Event | None,
    ) -> Generator[tuple[T, R | Lost], None, None]:
        submit = self._submitter(ray, work)
        at_work: dict[Any, T] = {}  # by the reference to the result
        losses: Counter[T] = Counter()
        patience = SECONDS_TO_WAIT if stop is None else SECONDS_TO_LOOK
        try:
            while (todo or at_work) and not (stop is not None and stop.is_set()):
                most = self._most(ray)
                while todo and len(at_work) < most:
                    task = todo.popleft()
                    at_work[submit(task)] = task
                    if not losses[task]:
                        started(task)
                for ref in ray.wait([*at_work], timeout=patience)[0]:
                    task = at_work.pop(ref)
                    result = _result(ray, ref)
                    if isinstance(result, _Loss):
                        losses[task] += result.weight
                        if losses[task] < LOSSES * NODE_LOSSES:
                            todo.append(task)
                            continue
                        result = Lost(result.how)
                    yield task, result
        finally:
            for ref in at_work:
                with suppress(Exception):  # it has ended, or the cluster has
                    ray.cancel(ref, force=True)

    def _submitter(self, ray: Any, work: Callable[[T], R]) -> Callable[[T], Any]:
        remote = ray.remote(_do).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_retries=0,  # done here, so that the runs that kill their workers are counted
            # Of itself Ray hides GPUs from no run, and one that asks for none would take the first.
            runtime_env={"env_vars": ONE_THREAD | ({} if self.gpus else {GPUS: ""})},
        )
        shipped, folder = ray.put(work), os.getcwd()

        def submit(task: T) -> Any:
            return remote.remote(shipped, folder, task)

        return submit

    def _most(self, ray: Any) -> int:
        """Return how many runs may be in the cluster, at work or waiting for room."""
        return self.at_a_time or self._room(ray) + AHEAD

    def _room(self, ray: Any) -> int:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        shares = [
            {n: node.get(n, 0) / share for n, share in needs.items() if share} for node in nodes
        ]
        return sum(int(min(share.values(), default=1) + 1e-9) for share in shares)

    def _tell_of_what_there_is(self, ray: Any) -> None:
        if self._room(ray):
            if not self.gpus and any(node["Resources"].get("GPU") for node in ray.nodes()):
                warnings.warn(
                    "the cluster has GPUs, and a run that asks for none is done on a CPU; ask for "
                    "a share of one (--gpus 0.25)",
                    stacklevel=2,
                )
            return
        words = (
            f"no node has room for a run, which takes {self.cpus:g} cores and {self.gpus:g} GPUs"
        )
        if self.address is None:
            raise ClusterError(f"{words}, on this machine; ask for less, or name a cluster")
        warnings.warn(f"{words}; waiting for one that has", stacklevel=2)

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Stay connected to the cluster over several sweeps; yields the module ray."""
        ray = _ray()
        if ray.is_initialized():
            yield ray
            return
        if self.address is not None:
            _check_answer(self.address)
        try:
            ray.init(
                self.address or "local",
                **({} if self.address else {"num_cpus": self._cores(), "include_dashboard": False}),
                log_to_driver=False,
                configure_logging=False,
            )
        except (Exception, SystemExit) as error:  # Ray ends the process that it cannot connect
            where = (
                f"to the Ray cluster at {self.address}" if self.address else "a local Ray cluster"
            )
            raise ClusterError(
                f"cannot {'connect' if self.address else 'start'} {where}: "
                f"{str(error).strip() or type(error).__name__}"
            ) from None
        try:
            yield ray
        finally:
            ray.shutdown()

    def _cores(self) -> float | None:
        if self.at_a_time is None:
            return None
        return max(os.cpu_count() or 1, self.at_a_time * self.cpus)


@dataclass(frozen=True)
class _Loss:
    """How a task was lost, and how much that weighs against it."""

    how: str
    weight: int


def _do(work: Callable[[T], R], folder: str, task: T) -> R:
    """Do a task on a node, in the driver's folder where the node has it: paths may be relative."""
    with suppress(OSError):
        os.chdir(folder)
    return work(task)


def _result(ray: Any, ref: Any) -> Any:
    """Return the result, or how it was lost. Raises ClusterError for what would befall all runs."""
    lost = ray.exceptions
    try:
        return ray.get(ref)
    except lost.OutOfMemoryError:
        how = "its node ran out of memory and ended it; let fewer runs share a node (more --cpus)"
        return _Loss(how, NODE_LOSSES)
    except lost.NodeDiedError:
        return _Loss(f"{NODE_LOSSES} nodes died while they were at it", LOSSES)
    except lost.WorkerCrashedError:
        how = "its worker died each time, as one does that is killed for want of memory"
        return _Loss(how, NODE_LOSSES)
    except (lost.RayTaskError, lost.RuntimeEnvSetupError) as error:
        raise ClusterError(
            f"a node cannot do a run: {str(error).strip().splitlines()[-1]}; every node needs the "
            "same Python and stabkit, and the run function must be importable there"
        ) from None
    except lost.RayError as error:
        return _Loss(f"Ray lost it ({type(error).__name__})", NODE_LOSSES)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ClusterError(
            "Ray is not installed here; install the extra: pip install 'stabkit[ray]'"
        ) from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Ray prints each death of a worker, with its log, to stdout, and has no option against it.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    return ray


def _check_answer(address: str) -> None:
    """Raise ClusterError if nobody listens at ``address``; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not (colon and port.isdigit()):
        raise ClusterError(f"the address {address!r} names no port; expected HOST:PORT or auto")
    try:
        socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); "
            "ray start --head starts one and tells its address"
        ) from None
