"""Figures that compute in the page from stored runs, without a kernel or a network."""

from stabkit.explorers.inside import inside
from stabkit.explorers.mechanism import Explorer
from stabkit.explorers.rates import rates
from stabkit.explorers.seeds import seeds

__all__ = ["Explorer", "inside", "rates", "seeds"]
