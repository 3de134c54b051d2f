"""Analyses: what they measure, and that nothing on the shelf is made again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

import stabkit
from stabkit import analyses
from stabkit.analyses import layer_swaps, loss_lines, loss_surface
from stabkit.batches import encode
from stabkit.config import RunConfig
from stabkit.errors import StabkitError
from stabkit.presets import preset
from stabkit.records import hardware
from stabkit.shelf import Shelf
from stabkit.surface import evaluate
from stabkit.tables import SIGNS
from stabkit.tasks import subset
from stabkit.train import pin, task_of, trained_model


def runs() -> pd.DataFrame:
    """Return a run table of two seeds, of which the second fails."""
    base = preset("devlin", model="mini-bert-shallow", learning_rate=2e-4, max_steps=3)
    rows = []
    for seed, failed in enumerate((False, True)):
        config = pin(base.replace(seed=seed, train_size=32))
        verdicts = dict.fromkeys(SIGNS, False) | {"failed": failed}
        made = {"executor": "fast", "threads": 1, "device": "cpu", "steps": 3}
        made |= {"hardware": hardware(torch.device("cpu")), "version": stabkit.__version__}
        made["torch"] = torch.__version__
        rows.append(vars(config) | verdicts | made | {"key": config.key})
    return pd.DataFrame(rows)


def test_layer_swaps_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(analyses, "SHOWN", 1)
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


@pytest.mark.parametrize(
    "other", [{"hardware": "Another CPU"}, {"version": "0.0.9"}, {"torch": "1.0"}]
)
def test_weights_are_not_made_again_elsewhere(other: dict[str, str], tmp_path: Path) -> None:
    """On other hardware, or by other code, the run may end otherwise."""
    table, shelf = runs().assign(**other), Shelf(tmp_path)
    named = {"0.0.9": "0.0"}.get(*other.values(), *other.values())
    with pytest.raises(StabkitError, match=f"have to be made again .* {named}.* --anew"):
        loss_surface(table, shelf)
    assert shelf.table("loss-surfaces").empty


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


def test_lines_lead_from_each_failed_run_to_each_successful_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"EXAMPLES": 16, "POINTS": 3, "SHOWN": 1}.items():
        monkeypatch.setattr(analyses, name, value)
    table, shelf = runs(), Shelf(tmp_path)
    loss_lines(table, shelf)
    found = shelf.table("loss-lines")
    assert found["a"].tolist() == [0, 0.5, 1]
    assert found["failed_run"].unique().tolist() == [table["key"][1]]
    assert found["successful_run"].unique().tolist() == [table["key"][0]]
    assert {"device", "hardware", "date", "torch"} <= set(found)
    assert (found["gradient_norm"] > 0).all() and set(found["examples"]) == {16}
    for row, place in ((1, 0), (0, 2)):
        config = RunConfig.from_row(table.iloc[row].to_dict())
        model = trained_model(config, device=torch.device("cpu"))
        examples = encode(config, subset(task_of(config), 16, 0).train)
        assert found["loss"][place] == evaluate(model, examples).loss
    told = capsys.readouterr().err
    assert told.startswith(f"loss-lines: 3 points from failed run {table['key'][1]} (seed 1, ")
    monkeypatch.setattr(analyses, "trained_model", None)
    loss_lines(table, shelf)
    assert capsys.readouterr().err == told.replace("\n", ": is there\n")


def test_all_pairs_of_three_and_three_are_joined_by_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyses, "_line", lambda *_: pd.DataFrame({"a": [0.0]}))
    chosen = [{"key": f"{i}", "failed": i < 3, "seed": i, "learning_rate": 1e-4} for i in range(6)]
    monkeypatch.setattr(analyses, "_alone", lambda _, each: chosen if each == 3 else None)
    loss_lines(pd.DataFrame(), Shelf(tmp_path))
    found = Shelf(tmp_path).table("loss-lines")
    pairs = set(zip(found["failed_run"], found["successful_run"], strict=True))
    assert pairs == {(f, s) for f in "012" for s in "345"} and len(found) == 9


def test_trajectories_lead_from_the_start_of_a_run_to_its_corner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(analyses, "MOMENTS", 3)
    monkeypatch.setattr(analyses, "_surface", lambda *_: pd.DataFrame({"loss": [1.0]}))
    table, shelf = runs(), Shelf(tmp_path)
    loss_surface(table, shelf)
    found = shelf.table("trajectories")
    assert {"device", "hardware", "date", "torch"} <= set(found)
    assert found["successful_run"].unique().tolist() == [table["key"][0]]
    for key, end in ((table["key"][1], (1, 0)), (table["key"][0], (0, 1))):
        path = found[found["run"] == key].sort_values("step")
        assert path["step"].tolist() == [0, 1, 3]
        assert tuple(path[["a", "b"]].iloc[-1]) == pytest.approx(end, abs=1e-9)
        assert path["residual"].iloc[-1] < 1e-5 * path["distance"].iloc[-1]
        if end == (0, 1):  # the origin has the head that this run starts with
            assert path[["a", "b", "residual", "distance"]].iloc[0].tolist() == [0, 0, 0, 0]
        else:
            assert path["residual"].iloc[0] > 0
        assert path["distance"].iloc[-1] > path["distance"].iloc[1]
    told = capsys.readouterr().err
    assert told.count("trajectories: 3 moments of ") == 2
    for name in ("trained_model", "follow"):
        monkeypatch.setattr(analyses, name, None)
    loss_surface(table, shelf)
    assert capsys.readouterr().err == told.replace("\n", ": is there\n")


def test_a_run_is_made_again_as_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(analyses, "trained_model", lambda _, *how: asked.append(how))
    analyses._made_again(runs().assign(executor="plain", threads=2).iloc[0].to_dict())
    assert asked == [("plain", 2, torch.device("cpu"))]


def test_runs_of_several_seeds_at_once_are_passed_over_and_named(tmp_path: Path) -> None:
    table, shelf = runs(), Shelf(tmp_path)
    mixed = table.assign(executor=["fast", "together"])
    with pytest.raises(StabkitError, match=r"has 3 failed and 3 successful .*; 1 runs that were "):
        analyses.layer_swaps(mixed, shelf)
    with pytest.raises(StabkitError, match=r"^2 runs that were .*without --seeds-at-once"):
        analyses.layer_swaps(table.assign(executor="together"), shelf)
