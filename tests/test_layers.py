"""Figures of the layers: every value at its place, kinds told apart, foreign tables refused."""

from __future__ import annotations

import inside
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pyarrow as pa
import pytest

from stabkit import figures
from stabkit.errors import StabkitError
from stabkit.figures.style import CLEAR
from stabkit.results import thin
from stabkit.tables import layer_norms, layer_weights

ALBERT = "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query.weight"
GROUP_4 = ALBERT.replace("groups.0", "groups.3")


def lines(figure: go.Figure, name: str) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.name == name]


def test_layer_norms_are_by_layer_and_weight() -> None:
    gradients = inside.history(bottom=0.01, end=1.0)
    assert layer_weights(gradients) == list(inside.WEIGHTS)
    query = layer_norms(gradients, inside.WEIGHTS[0])
    assert query.columns.tolist() == list(range(1, 13))
    assert query.iloc[0].to_numpy() == pytest.approx(np.geomspace(0.01, 1, 12))
    assert layer_norms(gradients).to_numpy() == pytest.approx(3**0.5 * query.to_numpy())
    output = layer_norms(gradients.assign(**{"bert.encoder.layer.0.output.dense.weight": 7.0}))
    assert output[1].iloc[0] == pytest.approx((7**2 + 2 * 0.01**2) ** 0.5)
    lost = gradients.assign(**{"bert.encoder.layer.0.output.dense.weight": np.nan})
    assert layer_norms(lost)[1].isna().all() and layer_norms(lost)[2].notna().all()
    shuffled = gradients[gradients.columns[::-1]]
    assert layer_norms(shuffled).columns.tolist() == query.columns.tolist()


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("transformer.h.3.attn.c_attn.weight", "attn.c_attn.weight"),
        ("encoder.block.3.layer.0.SelfAttention.q.weight", "layer.0.SelfAttention.q.weight"),
        ("model.layers.3.attn.Wqkv.weight", "attn.Wqkv.weight"),
        ("distilbert.transformer.layer.3.attention.q_lin.weight", "attention.q_lin.weight"),
    ],
)
def test_layers_are_known_by_what_others_call_them(name: str, weight: str) -> None:
    gradients = pd.DataFrame({"step": [1, 2], name: [0.1, 0.2], "wte.weight": 1.0})
    assert layer_norms(gradients)[4].tolist() == [0.1, 0.2]
    assert layer_weights(gradients) == [weight]
    thinned = thin(pa.Table.from_pandas(gradients, preserve_index=False)).to_pandas()
    assert layer_norms(thinned)[4].tolist() == pytest.approx([0.1, 0.2], rel=2**-11)
    assert layer_weights(thinned) == []  # a layer as a whole


def test_layer_norms_of_thinned_and_shared_layers() -> None:
    thinned = pd.DataFrame({"step": [1, 9], "bert.encoder.layer.10": [0.1, 0.2], "pooler": 1.0})
    assert layer_norms(thinned)[11].tolist() == [0.1, 0.2]
    assert layer_weights(thinned) == []
    shared = pd.DataFrame({"step": [1, 2], ALBERT: [0.1, 0.2]})
    assert layer_norms(shared)[1].tolist() == [0.1, 0.2]
    assert layer_weights(shared) == ["attention.query.weight"]
    groups = pd.DataFrame({"step": [1, 2], ALBERT: [0.1, 0.2], GROUP_4: [0.3, 0.4]})
    assert layer_norms(groups)[4].tolist() == [0.3, 0.4]
    assert layer_weights(groups) == ["attention.query.weight"]
    assert layer_norms(groups.rename(columns={GROUP_4: GROUP_4.split(".attention")[0]}))[4].any()
    with pytest.raises(StabkitError, match=r"no column of a layer and the weight 'key\.weight'"):
        layer_norms(shared, "key.weight")
    with pytest.raises(StabkitError, match="no column of a layer; the columns are step, pooler"):
        layer_norms(thinned[["step", "pooler"]])


def test_layer_swap_draws_every_run_in_both_panels() -> None:
    table = inside.swaps().sample(frac=1, random_state=0)
    figure = figures.layer_swap(table)
    failed, successful = lines(figure, "failed"), lines(figure, "successful")
    assert len(failed) == len(successful) == 6
    assert [trace.showlegend for trace in failed + successful].count(True) == 2
    for trace in failed + successful:
        assert list(trace.x) == list(range(13))
    first = table.query("seed == 0 and not embeddings").sort_values("k")["perplexity"].tolist()
    assert any(list(trace.y) == first for trace in failed)
    assert failed[0].line.dash != successful[0].line.dash
    assert lines(figure, "10/24 of the depth")[0].x == (5, 5)
    assert figure.layout.yaxis.type == figure.layout.yaxis2.type == "log"
    assert {note.text for note in figure.layout.annotations} == {
        "fine-tuned embeddings",
        "pre-trained embeddings",
    }


def test_layer_swap_of_a_diverged_run_and_of_one_choice() -> None:
    table = inside.swaps().query("embeddings")
    table.loc[table["k"] == 0, "perplexity"] = np.inf
    figure = figures.layer_swap(table)
    assert len(lines(figure, "failed")) == 3
    assert np.isfinite(lines(figure, "10/24 of the depth")[0].y).all()
    assert "Infinity" not in figures.html(figure, "caption", "alt")


def test_layer_swap_refuses_other_tables() -> None:
    with pytest.raises(StabkitError, match="no column embeddings"):
        figures.layer_swap(inside.swaps().drop(columns="embeddings"))
    with pytest.raises(StabkitError, match="no runs"):
        figures.layer_swap(inside.swaps()[:0])
    with pytest.raises(StabkitError, match="several values of model"):
        figures.layer_swap(pd.concat([inside.swaps(), inside.swaps().assign(model="other")]))


def test_gradient_map_has_a_row_per_weight_and_a_column_per_run() -> None:
    failed, successful = inside.history(0.01, 0.001), inside.history(10, 0.1)
    figure = figures.gradient_map(failed, successful)
    maps = list(figure.data)
    assert len(maps) == 2 * len(inside.WEIGHTS)
    assert len({len(trace.x) for trace in maps} | {60}) == 1
    assert list(maps[0].y) == list(range(1, 13))
    first = np.asarray(maps[0].z, dtype=float)
    assert first[:, 0] == pytest.approx(np.linspace(-2, 0, 12), abs=1e-3)
    assert first[:, -1] == pytest.approx(np.linspace(-5, -3, 12), abs=1e-3)
    assert np.asarray(maps[1].z, dtype=float)[0, -1] == pytest.approx(0, abs=1e-3)
    assert {trace.coloraxis for trace in maps} == {"coloraxis"}
    assert figure.layout.yaxis.title.text == "attention<br>query"
    assert maps[0].x[0] == pytest.approx(np.arange(1, 9).mean())


def test_gradient_map_of_some_weights_and_of_thinned_histories() -> None:
    failed, successful = inside.history(0.01, 0.001), inside.history(10, 0.1)
    assert len(figures.gradient_map(failed, successful, [inside.WEIGHTS[1]]).data) == 2
    thinned = pd.DataFrame({"step": [1, 9], "bert.encoder.layer.0": [0.0, 0.01]})
    figure = figures.gradient_map(thinned, thinned)
    assert figure.layout.yaxis.title.text == "all weights"
    assert np.asarray(figure.data[0].z, dtype=float).tolist() == [
        [pytest.approx(np.nan, nan_ok=True), -2]
    ]
    assert "Infinity" not in figures.html(figure, "caption", "alt")
    with pytest.raises(StabkitError, match="no runs"):
        figures.gradient_map(failed[:0], successful)
    with pytest.raises(StabkitError, match="no column step"):
        figures.gradient_map(failed.drop(columns="step"), successful)
    with pytest.raises(StabkitError, match="no column of a layer and the weight 'x'"):
        figures.gradient_map(failed, successful, ["x"])


def test_the_figures_are_of_the_house() -> None:
    drawn = [figures.layer_swap(inside.swaps())]
    drawn.append(figures.gradient_map(inside.history(0.01, 0.001), inside.history(10, 0.1)))
    for figure in drawn:
        assert figure.layout.template.layout.paper_bgcolor == CLEAR
        text = figures.html(figure, "caption", "alt")
        assert text == figures.html(figure, "caption", "alt")
        assert len(text) < 100_000
        assert "http" not in text


def test_the_data_of_a_gradient_map_say_whose_they_are() -> None:
    figure = figures.gradient_map(inside.history(0.01, 0.001), inside.history(10, 0.1))
    table = figures.values(figure)
    lowest = table.groupby("run")["log10 of the gradient norm"].min()
    assert lowest["failed"] < lowest["successful"]
    titles = [note.text for note in figure.layout.annotations[:2]]
    assert [f"{trace.meta['rows']['run']} run" for trace in figure.data[:2]] == titles


def test_a_cell_is_the_geometric_mean_of_its_steps() -> None:
    wobbling = inside.history(1.0, 1.0, wobble=10.0 ** (np.arange(468) % 2))
    cells = np.asarray(figures.gradient_map(wobbling, wobbling).data[0].z, dtype=float)
    assert cells[:, 0] == pytest.approx(0.5, abs=1e-3)  # of eight steps, by turns 1 and 10
