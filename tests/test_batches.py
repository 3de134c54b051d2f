"""Batches: what the model is given, in which order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from transformers import PreTrainedTokenizerFast

from stabkit import models
from stabkit.batches import EVALUATION_BATCH, Encoded, encode, evaluation_batches, training_batches
from stabkit.errors import ConfigError, ModelError
from stabkit.masking import prepare
from stabkit.mini.tasks import splits
from stabkit.tasks import Split

PAIRS = Split(
    ("the dog saw the cat .", "the king left ."),
    ("the cat was seen by the dog .", "the king stayed ."),
    np.array([0, 1]),
)


def counted(size: int) -> Encoded:
    """Return single-token examples whose token is their number."""
    ids = torch.arange(size)[:, None]
    return Encoded(ids, None, np.ones(size, dtype=np.int64), np.arange(size) % 2)


def joined(batches: list[list[int]]) -> list[int]:
    return [i for batch in batches for i in batch]


def order(size: int, batch_size: int, steps: int, seed: int = 0) -> list[list[int]]:
    config = tiny.config(batch_size=batch_size, order_seed=seed)
    batches = list(training_batches(counted(size), config, steps))
    for batch in batches:
        assert batch["labels"].tolist() == [i % 2 for i in batch["input_ids"].flatten().tolist()]
    return [batch["input_ids"].flatten().tolist() for batch in batches]


def test_texts_are_those_of_the_tokenizer_cut_to_the_longest_of_a_batch() -> None:
    data = encode(tiny.config(), PAIRS)
    whole = tiny.tokenizer()(list(PAIRS.texts_a), list(PAIRS.texts_b or ()))["input_ids"]
    assert data.lengths.tolist() == [len(ids) for ids in whole]
    both, second = data.batch(np.array([0, 1])), data.batch(np.array([1]))
    assert both["input_ids"][0].tolist() == whole[0]
    assert both["attention_mask"].sum(1).tolist() == data.lengths.tolist()
    assert second["input_ids"].tolist() == [whole[1]]
    assert second["attention_mask"].tolist() == [[1] * len(whole[1])]
    assert both.keys() == {"input_ids", "attention_mask"}


def test_segments_are_given_when_asked_for() -> None:
    data = encode(tiny.config(segments=True), PAIRS)
    types = data.batch(np.array([0]))["token_type_ids"][0]
    first = len(PAIRS.texts_a[0].split()) + 2
    assert types.tolist() == [0] * first + [1] * (len(types) - first)


def test_texts_are_cut_to_the_maximal_length_the_longer_first() -> None:
    data = encode(tiny.config(max_length=12), PAIRS)
    assert data.lengths.tolist() == [12, 11]
    assert data.ids.shape == (2, 12)
    row = data.ids[0].tolist()
    separator = tiny.tokenizer().sep_token_id
    assert row[-1] == separator
    assert row.index(separator) == 5  # 4 of 6 and 5 of 8 words are left


def test_a_length_without_positions_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_length is 129; expected at most 128"):
        encode(tiny.config(max_length=129), PAIRS)


@pytest.mark.parametrize(("architecture", "places"), [("bert", 130), ("roberta", 129)])
def test_a_tokenizer_may_not_know_how_long_texts_may_be(
    architecture: str, places: int, tmp_path: Path
) -> None:
    """RoBERTa counts positions from its padding id on."""
    folder = tiny.save(tmp_path, architecture)
    settings = tmp_path / "tokenizer_config.json"
    told = json.loads(settings.read_text(encoding="utf-8"))
    del told["model_max_length"]
    settings.write_text(json.dumps(told), encoding="utf-8")
    assert encode(tiny.config(model=folder, max_length=places), PAIRS)
    with pytest.raises(ConfigError, match=f"max_length is {places + 1}; expected at most {places}"):
        encode(tiny.config(model=folder, max_length=places + 1), PAIRS)


def test_a_tokenizer_without_padding_says_what_to_do(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path)
    words = tiny.tokenizer()
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words.backend_tokenizer, eos_token="[SEP]", model_max_length=128
    ).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"no token to pad with.*tokenizer\.pad_token ="):
        encode(tiny.config(model=folder), PAIRS)


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**settings, "vocab_size": 50}))
    with pytest.raises(ModelError, match=r"tokens, its model embeddings for 50; expected the"):
        encode(tiny.config(model=folder), PAIRS)


def test_a_split_is_tokenised_once() -> None:
    data = encode(tiny.config(), PAIRS)
    assert encode(tiny.config(seed=3, batch_size=2), PAIRS) is data
    assert encode(tiny.config(max_length=16), PAIRS) is not data


def test_single_texts_make_no_second_part() -> None:
    data = encode(tiny.config(), Split(("the dog saw the cat .",), None, np.array([0])))
    assert (data.ids == tiny.tokenizer().sep_token_id).sum() == 1


def test_an_epoch_sees_every_example_once_and_ends_with_a_smaller_batch() -> None:
    """Section 7.2: an epoch of RTE's 2,490 examples has 156 steps."""
    batches = order(2490, 16, 156)
    assert [len(batch) for batch in batches] == [16] * 155 + [10]
    assert sorted(joined(batches)) == list(range(2490))


def test_epochs_have_orders_of_their_own() -> None:
    batches = order(10, 4, 7)
    first, second = joined(batches[:3]), joined(batches[3:6])
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert len(batches) == 7


def test_the_order_seed_alone_sets_the_order() -> None:
    state = torch.random.get_rng_state()
    assert order(50, 8, 20, seed=1) == order(50, 8, 20, seed=1)
    assert order(50, 8, 20, seed=1) != order(50, 8, 20, seed=2)
    assert order(50, 8, 5, seed=1) == order(50, 8, 20, seed=1)[:5]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_evaluation_sees_every_example_once_the_shortest_first() -> None:
    data = encode(tiny.config(), splits("mini-rte")[1])
    batches = list(evaluation_batches(data))
    rows = torch.cat([rows for rows, _ in batches])
    assert sorted(rows.tolist()) == list(range(500))
    assert [len(batch["input_ids"]) for _, batch in batches] == [EVALUATION_BATCH] * 7 + [52]
    assert (np.diff(data.lengths[rows.numpy()]) >= 0).all()
    for row, batch in batches:
        assert batch["input_ids"].shape[1] == data.lengths[row.numpy()].max()


def left_padding(folder: Path) -> str:
    """Save a model whose tokenizer pads on the left."""
    saved, path = tiny.save(folder), folder / "tokenizer_config.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**told, "padding_side": "left"}), encoding="utf-8")
    return saved


def test_padding_is_on_the_right_whatever_a_tokenizer_says(tmp_path: Path) -> None:
    folder = left_padding(tmp_path)
    assert models.load_tokenizer(folder).padding_side == "left"
    data = encode(tiny.config(model=folder), PAIRS)
    assert data.lengths[1] < data.ids.shape[1]
    assert torch.equal(data.ids, encode(tiny.config(), PAIRS).ids)
    left, right = (
        prepare(splits("mini-rte")[0].texts_a[:9], words, max_length=24)
        for words in (models.load_tokenizer(folder), tiny.tokenizer())
    )
    assert torch.equal(left.attention_mask, right.attention_mask)


def test_a_model_needs_an_embedding_for_the_largest_id(tmp_path: Path) -> None:
    largest, folder = int(encode(tiny.config(), PAIRS).ids.max()), tiny.save(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**told, "vocab_size": largest}))
    with pytest.raises(ModelError, match=f"its model embeddings for {largest}; expected the"):
        encode(tiny.config(model=folder), PAIRS)
    (tmp_path / "config.json").write_text(json.dumps({**told, "vocab_size": largest + 1}))
    assert len(encode(tiny.config(model=folder), PAIRS)) == 2
