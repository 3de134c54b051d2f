"""Captured functions: recorded once a shape, the largest first; a GPU's own behaviour."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stabkit.graph import WARM, Captured, Shape


class Recorded:
    def __init__(self, shape: Shape, replayed: list[Shape]) -> None:
        self.shape, self.replayed = shape, replayed

    def replay(self) -> None:
        self.replayed.append(self.shape)


def test_each_shape_is_recorded_once_the_largest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[Shape] = []
    replayed: list[Shape] = []

    def record(self: Captured, shape: Shape) -> Any:
        recorded.append(shape)
        return Recorded(shape, replayed)

    monkeypatch.setattr(Captured, "_record", record)
    called: list[Shape] = []
    graphs = Captured(lambda *shape: called.append(shape), torch.device("cuda"), lambda: None)
    graphs.prepare([(4, 16), (8, 32), (8, 16), (8, 32)])
    graphs.prepare([(8, 16), (2, 16)])
    assert recorded == [(8, 32), (8, 16), (4, 16), (2, 16)]
    graphs((8, 16))
    graphs((2, 16))
    assert (replayed, called) == ([(8, 16), (2, 16)], [])
    graphs((5, 16))  # never prepared: done as it is
    assert (replayed[2:], called) == ([], [(5, 16)])


def test_without_a_gpu_the_function_itself_is_called() -> None:
    called: list[Shape] = []
    plain = Captured(lambda *shape: called.append(shape), torch.device("cpu"), called.clear)
    plain.prepare([(8, 32)])
    assert called == []
    plain((8, 32))
    assert called == [(8, 32)]


@pytest.mark.gpu
def test_a_graph_repeats_its_function_with_new_draws() -> None:
    """Warm-up calls it ``WARM`` times; each replay draws anew; a seed sets all draws."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device("cuda")
    own = torch.Generator(device)
    count = torch.zeros(1, device=device)
    sums = torch.zeros(2, device=device)

    def function(size: int, length: int) -> None:
        count.add_(1)
        sums[0] = torch.rand(size, length, device=device).sum()
        sums[1] = torch.rand(size, length, device=device, generator=own).sum()

    graphs = Captured(function, device, lambda: None, [own])
    graphs.prepare([(4, 16), (2, 16)])
    assert count.item() == 2 * WARM

    def draws() -> list[list[float]]:
        torch.manual_seed(0)
        own.manual_seed(0)
        found = []
        for shape in ((4, 16), (2, 16), (4, 16)):
            graphs(shape)
            found.append(sums.tolist())
        return found

    first = draws()
    assert count.item() == 2 * WARM + 3
    assert first[0] != first[2]
    assert draws() == first
