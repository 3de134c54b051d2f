"""Analyses: what they measure, and that nothing on the shelf is made again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from stabkit import analyses
from stabkit.analyses import layer_swaps, loss_surface
from stabkit.batches import encode
from stabkit.config import RunConfig
from stabkit.presets import preset
from stabkit.selection import specimens
from stabkit.shelf import Shelf
from stabkit.surface import evaluate
from stabkit.tables import SIGNS
from stabkit.tasks import subset
from stabkit.train import pin, task_of, trained_model


def runs() -> pd.DataFrame:
    """Return a run table of two seeds, of which the second fails."""
    base = preset("devlin", model="mini-bert-shallow", learning_rate=2e-4, max_steps=1)
    rows = []
    for seed, failed in enumerate((False, True)):
        config = pin(base.replace(seed=seed, train_size=32))
        verdicts = dict.fromkeys(SIGNS, False) | {"failed": failed}
        made = {"executor": "fast", "threads": 1, "device": "cpu"}
        rows.append(vars(config) | verdicts | made | {"key": config.key})
    return pd.DataFrame(rows)


def test_layer_swaps_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(specimens, "__defaults__", (1,))
    table, shelf = runs(), Shelf(tmp_path)
    layer_swaps(table, shelf)
    found = shelf.table("layer-swaps")
    assert len(found) == 2 * 2 * 5  # two runs, embeddings or not, four layers
    assert found.groupby("seed")["failed"].first().tolist() == [False, True]
    whole = found[found["embeddings"] & (found["k"] == 4)]
    assert whole["nll"].nunique() == 1  # the pre-trained model's, whatever run it is
    assert {"device", "hardware", "date", "torch"} <= set(found)
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"layer-swaps: failed run {table['key'][1]} (seed 1, ")
    monkeypatch.setattr(analyses, "trained_model", None)
    layer_swaps(table, shelf)
    assert capsys.readouterr().err.splitlines() == [f"{line}: is there" for line in told]


def test_a_surface_has_the_runs_at_its_corners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"EXAMPLES": 16, "SIDE": 2, "LOW": 0.0, "HIGH": 1.0}.items():
        monkeypatch.setattr(analyses, name, value)
    table, shelf = runs(), Shelf(tmp_path)
    loss_surface(table, shelf)
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
    loss_surface(table, shelf)
