"""Analyses: the runs they choose, and that nothing on the shelf is made again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from stabkit import analyses
from stabkit.analyses import layer_swaps, loss_surface, specimens
from stabkit.batches import encode
from stabkit.config import RunConfig
from stabkit.errors import StabkitError
from stabkit.presets import preset
from stabkit.shelf import Shelf
from stabkit.store import Store
from stabkit.surface import evaluate
from stabkit.tables import SIGNS
from stabkit.tasks import subset
from stabkit.train import pin, task_of, trained_model


def runs(failing: dict[float, int], seeds: int = 5) -> pd.DataFrame:
    """Return a run table in which the highest seeds of each rate fail."""
    rows = []
    for rate, count in failing.items():
        base = preset("devlin", model="mini-bert-shallow", learning_rate=rate, max_steps=1)
        for seed in range(seeds):
            config = pin(base.replace(seed=seed, train_size=32))
            failed = seed >= seeds - count
            verdicts = dict.fromkeys(SIGNS, False) | {"failed": failed, "flat_loss": failed}
            made = {"executor": "fast", "threads": 1, "device": "cpu"}
            rows.append(vars(config) | verdicts | made | {"key": config.key})
    return pd.DataFrame(rows)


def test_specimens_are_the_lowest_seeds_of_the_first_rate_that_has_both_kinds() -> None:
    table = runs({1e-4: 0, 2e-4: 2, 4e-4: 3})
    found = specimens(table, each=2)
    assert found["learning_rate"].unique().tolist() == [2e-4]
    assert found["seed"].tolist() == [3, 4, 0, 1]
    other = table.assign(epochs=20, max_steps=None, failed=table["seed"] < 3)
    mixed = pd.concat([table[table["failed"]], other[~other["failed"]]])
    with pytest.raises(StabkitError, match="no configuration has 1 failed and 1 successful"):
        specimens(mixed, each=1)
    flat = table.assign(flat_loss=table["failed"] | (table["seed"] == 0))
    assert specimens(flat, each=2)["seed"].tolist() == [3, 4, 1, 2]
    with pytest.raises(StabkitError, match="no configuration has 3 failed and 3 successful"):
        specimens(table)


def test_layer_swaps_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specimens, "__defaults__", (1,))
    table, shelf = runs({2e-4: 1}, seeds=2), Shelf(tmp_path)
    layer_swaps(table, Store(tmp_path), shelf)
    found = shelf.table("layer-swaps")
    assert len(found) == 2 * 2 * 5  # two runs, embeddings or not, four layers
    assert found.groupby("seed")["failed"].first().tolist() == [False, True]
    whole = found[found["embeddings"] & (found["k"] == 4)]
    assert whole["nll"].nunique() == 1  # the pre-trained model's, whatever run it is
    assert {"device", "hardware", "date", "torch"} <= set(found)
    monkeypatch.setattr(analyses, "trained_model", None)
    layer_swaps(table, Store(tmp_path), shelf)


def test_a_surface_has_the_runs_at_its_corners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"EXAMPLES": 16, "SIDE": 2, "LOW": 0.0, "HIGH": 1.0}.items():
        monkeypatch.setattr(analyses, name, value)
    table, shelf = runs({2e-4: 1}, seeds=2), Shelf(tmp_path)
    loss_surface(table, Store(tmp_path), shelf)
    found = shelf.table("loss-surfaces")
    assert found[["a", "b"]].to_numpy().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert found["failed_run"].unique().tolist() == table[table["failed"]]["key"].tolist()
    assert (found["gradient_norm"] > 0).all()
    for row, place in ((1, 2), (0, 1)):  # the failed run at (1, 0), the successful one at (0, 1)
        config = RunConfig.from_row(table.iloc[row].to_dict())
        model = trained_model(config, device=torch.device("cpu"))
        examples = encode(config, subset(task_of(config), 16, 0).train)
        assert found["loss"][place] == evaluate(model, examples).loss
    monkeypatch.setattr(analyses, "trained_model", None)
    loss_surface(table, Store(tmp_path), shelf)
