"""What a panel knows of its store, so that a control that moves need not read the disk."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd

from stabkit.errors import StoreError
from stabkit.store import Store
from stabkit.widgets.plan import Plan


class Archive:
    """The keys of the runs in a store as they were at the last look, and the rows read so far."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.keys: set[str] = set()
        self._rows: dict[str, dict[str, Any]] = {}

    def look(self) -> list[str]:
        """Read which runs are stored; return a sentence for each file that cannot be used.

        One's own files that are damaged or of another version are set aside and count as not done;
        published ones like that are left out. Raises StoreError when a folder cannot be read.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self.keys = self.store.keys()
                problems = []
            except StoreError as problem:
                if self.store.base is None:
                    raise
                self.store = Store(self.store.path)
                self.keys = self.store.keys()
                problems = [f"Continuing without the published runs: {problem}"]
        return problems + [str(warning.message) for warning in caught]

    def table(self, plan: Plan) -> pd.DataFrame:
        """Return the plan's stored runs in its order, one row each, with the column ``cell``.

        Two of a plan's cells may share runs, which are then the first one's.
        """
        found = [key for key in plan.configs if key in self.keys]
        if new := [plan.configs[key] for key in found if key not in self._rows]:
            rows = self.store.table(new).to_dict("records")
            self._rows |= {row["key"]: row for row in rows}
        names = {c.key: cell.name for cell in reversed(plan.cells) for c in cell.configs}
        here = {name: plan.subject.fields[name] for name in ("model", "task")}
        return pd.DataFrame(
            [{**self._rows[key], **here, "cell": names[key]} for key in found if key in self._rows]
        )
