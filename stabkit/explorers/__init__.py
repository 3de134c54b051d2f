"""Figures that compute in the page from stored runs, without a kernel or a network."""

from stabkit.explorers.inside import inside
from stabkit.explorers.mechanism import Explorer
from stabkit.explorers.rates import rates
from stabkit.explorers.seeds import seeds
from stabkit.explorers.surface import surface
from stabkit.explorers.swap import swap

__all__ = ["Explorer", "inside", "rates", "seeds", "surface", "swap"]
