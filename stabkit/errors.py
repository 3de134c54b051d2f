"""The package's errors: each says what was wrong, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class StabkitError(ValueError):
    """Base of every error that a user can cause and mend."""

    def _render_traceback_(self) -> list[str]:
        """Called by IPython: in a notebook the sentence is enough, ``%debug`` has the rest."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(StabkitError):
    """A configuration that contradicts itself or names something unknown."""


class DataError(StabkitError):
    """A task or a data file that cannot be read as what it was said to be."""


class ModelError(StabkitError):
    """A model folder or hub name from which no model can be made."""


class StoreError(StabkitError):
    """A store that cannot be read or written."""


class UnreachableError(StoreError):
    """A store that does not answer now, and may in a while."""


def nearest(name: str, options: Iterable[str]) -> str:
    """Return a hint that names the option closest to ``name``, or lists them all."""
    known = sorted(options)
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"
