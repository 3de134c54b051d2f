"""Pre-training of the organism: rows, masks, phases, resuming, what is shipped."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
import re
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from stabkit import models
from stabkit.errors import ModelError, StoreError
from stabkit.mini import anatomy, pretrain
from stabkit.mini.anatomy import PLANS, Phase, Plan
from stabkit.mini.card import card
from stabkit.mini.corpus import books
from stabkit.mini.pretrain import start
from stabkit.mini.rows import (
    BEFORE,
    BLOCK,
    ELSEWHERE,
    MAX_LENGTH,
    NEXT,
    Rows,
    _pair,
    block,
    mask_words,
)

TINY = (
    Phase(1, 2, 1e-3, 1e-3, echo=1.0, second_only=True, dropout=0.0),
    Phase(2, 4, 1e-3, 0.0, echo=0.0, second_only=False, dropout=0.1),
)


def tiny(name: str) -> Plan:
    """Return the plan of a shipped model at toy size."""
    return dataclasses.replace(PLANS[name], hidden=32, heads=2, phases=TINY)


@pytest.fixture(scope="module")
def rows() -> list[Rows]:
    return block(anatomy.build_tokenizer(), 3, 0, "next sentence", 64)


def test_a_block_is_the_same_each_time_and_has_all_its_rows(rows: list[Rows]) -> None:
    again = block(anatomy.build_tokenizer(), 3, 0, "next sentence", 64)
    assert sum(len(batch.input_ids) for batch in rows) == BLOCK
    for one, other in zip(rows, again, strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
    assert max(batch.input_ids.shape[1] for batch in rows) <= MAX_LENGTH


def test_half_of_the_rows_are_out_of_place(rows: list[Rows]) -> None:
    labels = torch.cat([batch.sentence_label for batch in rows]).float()
    assert 0.35 < labels.mean() < 0.65


def test_structure_asks_for_next_elsewhere_and_before_equally_often() -> None:
    scenes = [[f"{name}{i}" for i in range(9)] for name in "ab"]
    found = []
    for seed in range(300):
        first, second, relation = _pair(Random(seed), scenes, 0, scenes[1:], "sentence structure")
        one, other = first.split(), second.split()
        if relation == ELSEWHERE:
            assert one[0].startswith("a") and other[0].startswith("b")
        else:
            whole = one + other if relation == NEXT else other + one
            assert " ".join(whole) in " ".join(scenes[0])
        found.append(relation)
    assert all(70 < found.count(relation) < 130 for relation in (NEXT, ELSEWHERE, BEFORE))


def test_echo_rows_say_a_sentence_twice() -> None:
    for batch in block(anatomy.build_tokenizer(), 3, 0, "none", 64, echo=1.0):
        for ids, segments in zip(batch.input_ids, batch.token_type_ids, strict=True):
            second = ids[segments == 1]
            assert torch.equal(ids[1 : len(second) + 1], second)


def test_masks_hide_words_only_at_the_rate_asked_for(rows: list[Rows]) -> None:
    generator = torch.Generator().manual_seed(0)
    words = hidden = kept = 0
    for batch in rows:
        shown, chosen = mask_words(batch, 868, 4, 5, 0.15, generator)
        assert not (chosen & (batch.input_ids < 5)).any()
        assert torch.equal(shown[~chosen], batch.input_ids[~chosen])
        words += int((batch.input_ids >= 5).sum())
        hidden += int(chosen.sum())
        kept += int((shown[chosen] != 4).sum())
    assert hidden / words == pytest.approx(0.15, abs=0.02)
    assert kept / hidden == pytest.approx(0.2, abs=0.06)


def test_masks_can_keep_to_the_second_segment(rows: list[Rows]) -> None:
    _, chosen = mask_words(rows[0], 868, 4, 5, 0.5, torch.Generator(), second_only=True)
    assert chosen.any()
    assert not chosen[rows[0].token_type_ids == 0].any()


def test_a_plan_goes_through_its_phases_and_ends_at_rate_zero() -> None:
    plan = tiny("mini-bert")
    assert plan.steps == 6
    assert [plan.phase(step)[0] for step in range(6)] == [TINY[0]] * 2 + [TINY[1]] * 4
    assert Phase(2, 1000, 1e-3, 0.0, 0.0, False, 0.1).rate(1000) == 0.0
    assert Phase(2, 1000, 1e-3, 1e-3, 0.0, False, 0.1).rate(0) == pytest.approx(1e-3 / 200)


@pytest.mark.parametrize("name", sorted(PLANS))
def test_every_architecture_learns_words_and_ships(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pretrain.PLANS, name, tiny(name))
    monkeypatch.setattr(pretrain, "SAVE_EVERY", 3)
    monkeypatch.setattr(pretrain, "HELD_OUT_BATCHES", 1)
    training = pretrain.pretrain(name, tmp_path)
    assert training.step == 6
    told = (tmp_path / "README.md").read_text()
    assert name in told and "| 1 | 1 | 2 | 0.001 to 0.001 | 100% | second segment | 0.0 |" in told
    record = json.loads((tmp_path / "pretraining.json").read_text())
    assert [entry["step"] for entry in record["losses"]] == [3, 6]
    assert ("sentence" in record["losses"][1]) == (PLANS[name].objective != "none")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    assert model.config.hidden_dropout_prob == 0.1
    trained = dict(training.model.named_parameters())
    for parameter_name, parameter in model.base_model.named_parameters(
        prefix=model.base_model_prefix
    ):
        if parameter_name in trained:
            assert torch.allclose(parameter, trained[parameter_name], atol=2e-3, rtol=2e-3)
    tokens = AutoTokenizer.from_pretrained(tmp_path)("the dog .", "the cat .")
    assert tokens["input_ids"][0] == 2 and 1 not in tokens["input_ids"]


@pytest.mark.parametrize("name", [name for name in models.mini_models() if name in PLANS])
def test_a_shipped_model_is_the_one_that_its_card_tells_of(name: str) -> None:
    folder, plan = models.MINI_WEIGHTS / name, PLANS[name]
    record = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    assert record["plan"] == json.loads(json.dumps(dataclasses.asdict(plan)))
    assert (folder / "README.md").read_text(encoding="utf-8") == card(name, plan, record["losses"])
    assert record["losses"][-1]["step"] == plan.steps


def test_a_stopped_training_goes_on_where_it_was(tmp_path: Path) -> None:
    plan = dataclasses.replace(
        tiny("mini-bert"), phases=(dataclasses.replace(TINY[1], dropout=0.0),)
    )
    whole, half = start(plan), start(plan)
    losses = [whole.update().tolist() for _ in range(4)]
    for _ in range(2):
        half.update()
    half.save(tmp_path)
    rest = start(plan)
    rest.resume(tmp_path)
    assert rest.step == 2
    assert [rest.update().tolist() for _ in range(2)] == losses[2:]


def test_layers_are_stacked_one_set_on_another() -> None:
    plan = tiny("mini-bert")
    training = start(plan)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    training.grow(3)
    after = training.model.state_dict()
    assert {name.replace("layer.2.", "layer.0.") for name in after} >= set(before)
    assert sum("query.weight" in name for name in after) == 3
    for name, value in after.items():
        assert torch.equal(value, before[re.sub(r"layer\.\d", "layer.0", name)])
    assert training.optimizer.param_groups[0]["params"][0] is next(training.model.parameters())


def test_a_training_stopped_after_it_grew_goes_on(tmp_path: Path) -> None:
    plan = dataclasses.replace(
        tiny("mini-bert"), phases=(TINY[0], dataclasses.replace(TINY[1], dropout=0.0))
    )
    whole = start(plan)
    losses = [whole.update().tolist() for _ in range(6)]
    for stop in (2, 4):  # before the first step of the deep model, and after some
        half = start(plan)
        for _ in range(stop):
            half.update()
        half.save(tmp_path)
        rest = start(plan)
        rest.resume(tmp_path)
        assert rest.model.config.num_hidden_layers == (1 if stop == 2 else 2)
        assert [rest.update().tolist() for _ in range(6 - stop)] == losses[stop:]


def test_a_checkpoint_of_another_plan_is_refused(tmp_path: Path) -> None:
    start(tiny("mini-bert")).save(tmp_path)
    with pytest.raises(ModelError, match="another plan"):
        start(dataclasses.replace(tiny("mini-bert"), seed=1)).resume(tmp_path)


def test_a_damaged_checkpoint_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny("mini-bert")
    start(plan).save(tmp_path)
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:1000])
    monkeypatch.setattr(pretrain, "PLANS", {"mini-bert": plan})
    monkeypatch.setattr("sys.argv", ["pretrain", "mini-bert", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        pretrain.main()
    assert "cannot be read as a checkpoint" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = start(tiny("mini-bert"))
    training.save(tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    training.update()
    with pytest.raises(StoreError, match=r"No space left.*free some space.*finished is kept"):
        training.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "HELD_OUT_BATCHES", 1)
    plan = dataclasses.replace(tiny("mini-bert"), phases=(TINY[1],))
    training = start(plan)
    with torch.no_grad():
        next(training.model.parameters()).fill_(float("nan"))
    with pytest.raises(
        ModelError, match=r"not finite at step 0; nothing is kept\. Take a lower rate"
    ):
        training.run(tmp_path, every=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", ["a loss", "the weights after the last step"])
def test_the_last_good_checkpoint_is_kept(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "HELD_OUT_BATCHES", 1)
    training = start(dataclasses.replace(tiny("mini-bert"), phases=(TINY[1],)))
    update = training.update

    def spoilt() -> torch.Tensor:
        found = update()
        if training.step == 3 and bad == "a loss":
            return found * float("inf")
        if training.step == 4 and bad != "a loss":
            with torch.no_grad():
                next(training.model.parameters()).fill_(float("nan"))
        return found

    monkeypatch.setattr(training, "update", spoilt)
    step = 2 if bad == "a loss" else 4
    told = f"not finite at step {step}; the checkpoint of step 2 in {re.escape(str(tmp_path))}"
    with pytest.raises(ModelError, match=told):
        training.run(tmp_path, every=2)
    again = start(training.plan)
    again.resume(tmp_path)
    assert again.step == 2
    again.run(tmp_path, every=2)
    assert again.step == 4


def test_an_unknown_model_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="mini-roberta"):
        pretrain.pretrain("mini-robert", tmp_path)


def test_the_corpus_is_seeded_and_varied() -> None:
    first = list(itertools.islice(books(seed=5), 3))
    assert first == list(itertools.islice(books(seed=5), 3))
    assert first != list(itertools.islice(books(seed=6), 3))
