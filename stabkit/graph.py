"""One CUDA graph for each shape of a function; without a GPU the very same function as it is.

A graph repeats kernels on fixed addresses. So the function may read and write tensors that keep
their places only, may not wait for the device, and returns nothing. Its shapes are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

Shape = tuple[int, int]  # examples of a batch, tokens to which they are padded

WARM = 2  # calls before a capture: libraries choose kernels and take their memory


class Captured:
    """A function of a shape, recorded once for each and replayed from then on.

    ``rewind`` is called before the function is tried, which it is at most ``WARM`` times, with all
    that it does; afterwards the caller sets the state anew. ``generators`` are those that the
    function draws from beside the device's own.
    """

    def __init__(
        self,
        function: Callable[[int, int], None],
        device: torch.device,
        rewind: Callable[[], object],
        generators: Iterable[torch.Generator] = (),
    ) -> None:
        """Record nothing yet."""
        self.function, self.device, self.rewind = function, device, rewind
        self.generators = tuple(generators)
        self._graphs: dict[Shape, torch.cuda.CUDAGraph] = {}
        self._stream: torch.cuda.Stream | None = None

    def prepare(self, shapes: Iterable[Shape]) -> None:
        """Record all of ``shapes`` that are new, on a GPU; the largest first, so memory is reused.

        Raises RuntimeError or its kind (out of memory) as the device does.
        """
        if self.device.type != "cuda":
            return
        for shape in sorted(set(shapes) - self._graphs.keys(), reverse=True):
            self._graphs[shape] = self._record(shape)

    def __call__(self, shape: Shape) -> None:
        """Do the function's work for a shape."""
        graph = self._graphs.get(shape)
        if graph is None:
            self.function(*shape)
        else:
            graph.replay()

    def _record(self, shape: Shape) -> torch.cuda.CUDAGraph:
        beside = self._beside()
        beside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(beside):
            for _ in range(WARM):
                self.rewind()
                self.function(*shape)
        torch.cuda.current_stream(self.device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        # Graphs never run at the same time and leave nothing in their memory: they share it.
        pool = next(iter(self._graphs.values())).pool() if self._graphs else None
        with torch.cuda.graph(graph, pool=pool, stream=beside):
            self.function(*shape)
        return graph

    def _beside(self) -> torch.cuda.Stream:
        """Return the stream to try and record on: one, as each keeps memory of libraries for good.

        It is of this device; torch's own for captures is of whichever was the current one first.
        """
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        return self._stream
