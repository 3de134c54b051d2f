"""Pre-training on real text: rows, plan, size, resuming, what is shipped; end to end."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import prose
import pytest
import torch
from tokenizers import Tokenizer

from stabkit import analyses, masking, mlm, models, results, train
from stabkit.errors import DataError, ModelError
from stabkit.mini import text, wiki
from stabkit.mini.anatomy import build_model
from stabkit.mini.card import text_card
from stabkit.mini.loop import Machine, Training
from stabkit.mini.wiki import TextPlan, text_plan
from stabkit.mini.windows import BODY, LENGTH, Windows, count
from stabkit.presets import preset
from stabkit.shelf import Shelf
from stabkit.sources import DATA_VARIABLE

REAL = Path(os.environ.get(DATA_VARIABLE) or Path(__file__).parents[2] / "shared" / "data")
CPU = torch.device("cpu")
PIECES = 300
PLAN = text_plan(tokens=24 * 4 * LENGTH, layers=2, hidden=32, batch_size=4, vocabulary=PIECES)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("text")
    return prose.write(folder / "train.txt", 25), prose.write(folder / "dev.txt", 4, seed=9)


@pytest.fixture(scope="module")
def tokenizer(files: tuple[Path, Path]) -> Tokenizer:
    return text.train_vocabulary([files[0]], PIECES)


@pytest.fixture(scope="module")
def streams(
    files: tuple[Path, Path], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[text.Tokens, str]]:
    folder = tmp_path_factory.mktemp("tokens")
    return [text.stream([file], tokenizer, folder) for file in files]


@pytest.fixture(scope="module")
def source(tokenizer: Tokenizer, streams: list[tuple[text.Tokens, str]]) -> Windows:
    return Windows(PLAN, tokenizer, streams[0], streams[1], CPU)


def begin(files: tuple[Path, Path], folder: Path, plan: TextPlan = PLAN) -> Training:
    return wiki.begin(plan, [files[0]], files[1], folder, Machine())


def test_a_row_is_two_segments_and_half_of_the_second_ones_are_another_s(source: Windows) -> None:
    starts = torch.arange(0, count(len(source.text)), 3) * BODY
    ids, segments, label = source.rows(source.text, starts, torch.Generator().manual_seed(0))
    assert ids.shape == segments.shape == (len(starts), LENGTH)
    assert 0.25 < label.float().mean() < 0.75
    follows = source._first_segment(source.text, starts) + starts
    for i, start in enumerate(starts):
        first = int((segments[i] == 0).sum()) - 2
        row = ids[i].tolist()
        assert row[0] == source.cls and row[first + 1] == row[-1] == source.sep
        assert row[1 : first + 1] == source.text[start : start + first].tolist()
        second = int(follows[i - 1] if label[i] else start + first)
        assert row[first + 2 : -1] == source.text[second : second + BODY - first].tolist()


def test_first_segments_end_with_a_sentence_near_the_middle(source: Windows) -> None:
    tokens = torch.full((3 * BODY,), 9, dtype=torch.int16)
    tokens[[60, 70]] = source.stop
    assert source._first_segment(tokens, torch.tensor([0])) == 61
    assert source._first_segment(tokens, torch.tensor([65])) == BODY // 2  # 70 is too far ahead


def test_the_same_number_of_words_is_hidden_in_each_row(source: Windows) -> None:
    plain = kept = asked = 0
    for step in range(20):
        batch = source.batch(step)
        shown, places = batch.inputs["input_ids"].flatten(), batch.places
        assert len(places) == 4 * round(0.15 * BODY) == len(places.unique())
        assert (batch.targets >= 5).all()
        asked += len(places)
        kept += int((shown[places] == batch.targets).sum())
        plain += int((shown[places] == source.mask).sum())
        assert not torch.isin(places, (shown == source.sep).nonzero()).any()
    assert plain / asked == pytest.approx(0.8, abs=0.04)
    assert kept / asked == pytest.approx(0.1, abs=0.03)


def test_what_cannot_be_hidden_is_not_asked_for(source: Windows) -> None:
    ids = torch.full((2, LENGTH), 1)  # unknown words
    ids[0, 5:9] = 50
    segments, label = torch.zeros_like(ids), torch.zeros(2, dtype=torch.long)
    batch = source._hidden(ids, segments, label, torch.Generator().manual_seed(0))
    assert int((batch.targets != -100).sum()) == 4
    outside = torch.ones(2 * LENGTH, dtype=torch.bool)
    outside[batch.places[batch.targets != -100]] = False
    assert torch.equal(batch.inputs["input_ids"].flatten()[outside], ids.flatten()[outside])


def test_an_epoch_goes_through_all_windows_once(source: Windows) -> None:
    first, second = (source._new_order(epoch).sort().values for epoch in (0, 1))
    assert torch.equal(first.diff(), torch.full((len(first) - 1,), BODY))
    assert len(first) == count(len(source.text)) and first[-1] + 2 * BODY < len(source.text)
    assert not torch.equal(first, second)  # another offset
    assert not torch.equal(source._new_order(0).diff(), source._new_order(1).diff())
    again = source.batch(3)
    assert torch.equal(source.batch(3).inputs["input_ids"], again.inputs["input_ids"])


def test_held_out_rows_are_the_same_at_every_step(source: Windows) -> None:
    early, late = (list(source.held_out(step)) for step in (1, 9))
    assert len(early) == min(512, count(len(source.other))) // PLAN.batch_size > 1
    for one, other in zip(early, late, strict=True):
        assert torch.equal(one.inputs["input_ids"], other.inputs["input_ids"])


def test_the_plan_grows_to_24_layers_and_sees_the_tokens_asked_for() -> None:
    plan = text_plan()
    assert [phase.layers for phase in plan.phases] == [6, 12, 24]
    assert plan.steps * plan.batch_size * LENGTH == pytest.approx(1.5e9, rel=1e-3)
    last = plan.phases[-1]
    assert (last.dropout, last.rate(last.steps)) == (0.1, 0.0)
    for before, after in zip(plan.phases, plan.phases[1:], strict=False):
        assert before.end == after.start > after.end
    assert plan.phases[0].rate(0) == pytest.approx(1e-3 / round(0.05 * plan.phases[0].steps))


@pytest.mark.parametrize(
    "changes",
    [{"hidden": 48}, {"batch_size": 1}, {"tokens": 0.0}, {"tokens": math.inf}, {"seed": -1}],
)
def test_a_plan_of_which_no_model_can_be_made_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ModelError, match="expected a width in steps of 32"):
        text_plan(**changes)  # type: ignore[arg-type]


def test_the_model_ships_in_24_megabytes_and_the_next_width_would_not() -> None:
    sizes = {}
    for hidden in (160, 192):
        with torch.device("meta"):
            model = build_model(text_plan(hidden=hidden), 16_384)
        sizes[hidden] = 2 * sum(x.numel() for x in model.parameters())
    vocabulary = 1_000_000  # bytes of tokenizer.json, about
    assert sizes[160] + vocabulary < 24e6 < sizes[192]


def test_a_training_stopped_anywhere_ends_in_the_same_bits(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = begin(files, tmp_path / "whole")
    whole.run(tmp_path / "whole", every=5)
    for stop in (7, 19):  # as two layers deep without dropout; and with it
        part = begin(files, tmp_path / "part")
        update = part.update

        def interrupted(part: Training = part, stop: int = stop, update=update) -> torch.Tensor:
            if part.step == stop:
                raise KeyboardInterrupt
            return update()

        monkeypatch.setattr(part, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            part.run(tmp_path / "part", every=5)
    rest = begin(files, tmp_path / "part")
    assert rest.step == 15
    rest.run(tmp_path / "part", every=5)
    assert rest.log == whole.log and rest.step == whole.step == PLAN.steps
    for name, value in whole.model.state_dict().items():
        assert torch.equal(rest.model.state_dict()[name], value), name


def test_a_checkpoint_of_something_else_is_refused_by_name(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    begin(files, tmp_path).save(tmp_path)
    with pytest.raises(ModelError, match="made by another plan; choose another folder"):
        begin(files, tmp_path, dataclasses.replace(PLAN, seed=1))
    longer = prose.write(tmp_path / "longer.txt", 26)
    with pytest.raises(ModelError, match="made by another text; choose"):
        begin((longer, files[1]), tmp_path)
    with pytest.raises(ModelError, match="made by another held-out text; choose"):
        begin((files[0], longer), tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    text.vocabulary([prose.write(tmp_path / "other.txt", 20, seed=5)], PIECES, tmp_path)
    with pytest.raises(ModelError, match="made by another vocabulary; choose"):
        begin(files, tmp_path)


def test_text_too_short_for_a_batch_says_how_short(
    tokenizer: Tokenizer, streams: list[tuple[text.Tokens, str]]
) -> None:
    short = (np.zeros(700, np.int16), "x")
    with pytest.raises(
        DataError, match=r"the text has 700 tokens, enough for 3 rows of 128; expec"
    ):
        Windows(PLAN, tokenizer, short, streams[1], CPU)
    with pytest.raises(DataError, match=r"the held-out text has 100 tokens, enough for 0 rows"):
        Windows(PLAN, tokenizer, streams[0], (np.zeros(100, np.int16), "x"), CPU)


def test_no_graph_break_when_compiled(source: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = functools.partial(torch.compile, backend="eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", whole)
    compiled = Training.start(PLAN, source, Machine(compiled=True))
    plain = Training.start(PLAN, source, Machine())
    found, expected = compiled.update(), plain.update()
    assert torch.allclose(found, expected, atol=1e-5)
    assert compiled.fast is None


def test_bf16_and_fp32_begin_alike(source: Windows) -> None:
    losses = [
        Training.start(PLAN, source, Machine(precision=name)).update() for name in ("fp32", "bf16")
    ]
    assert torch.allclose(losses[0], losses[1], rtol=0.02)


def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no device 'tpu' .*expected cpu or cuda"):
        Machine.choose("tpu")


def test_the_command_makes_a_model_or_says_in_a_sentence_why_not(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "stabkit.mini.wiki", "--text", str(files[0])]
    command += ["--held-out", str(files[1]), "--out", str(tmp_path), "--device", "cpu"]
    toy = "--layers 2 --hidden 32 --batch-size 4 --vocabulary 300 --save-every 10"
    command += [*toy.split(), "--tokens", str(30 * 4 * LENGTH), "--about", "Generated."]
    mistakes = {
        ("--vocabulary", "9000"): "too little text for a vocabulary of 9000 pieces",
        ("--save-every", "0"): "--save-every is 0; expected 1 or more",
        ("--wikitext", "nowhere.txt"): "nowhere.txt cannot be read",
    }
    for options, told in mistakes.items():
        failed = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert failed.returncode == 2 and "Traceback" not in failed.stderr
        assert f"stabkit: {told}" in failed.stderr
    wikitext = prose.write(tmp_path / "wikitext.txt", 2, seed=3)
    command += ["--wikitext", str(wikitext), "--name", "mini-toy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("held-out words") == 3
    card = (tmp_path / "mini-toy" / "README.md").read_text()
    assert "# mini-toy" in card and "**Data**: Generated." in card and "**: perplexity " in card
    record = json.loads((tmp_path / "mini-toy" / "pretraining.json").read_text())
    words = [entry["words"] for entry in record["losses"]]
    assert words[-1] < words[0] < math.log(PIECES) + 1


def test_from_text_to_a_layer_swap(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text, vocabulary, 30 steps, a shipped folder, fine-tuning, layer swap and surface."""
    for name, value in {"EXAMPLES": 16, "SIDE": 2, "MOMENTS": 2, "SHOWN": 1}.items():
        monkeypatch.setattr(analyses, name, value)
    folder = tmp_path / "weights" / "mini-wiki"
    training = begin(files, tmp_path)
    training.run(tmp_path, every=12)
    training.ship(folder, text_card(training, "mini-wiki", "Generated.", [files[0]]))
    monkeypatch.setattr(models, "MINI_WEIGHTS", folder.parent)

    data = tmp_path / "data"
    pair = '{{"sentence1": "the dog sees .", "sentence2": "a cat .", "label": {}}}\n'
    (data / "rte").mkdir(parents=True)
    for part in ("train", "dev"):
        lines = "".join(pair.format(i % 2) for i in range(24))
        (data / "rte" / f"{part}.jsonl").write_text(lines)
    prose.write(data / "wikitext-2-raw" / "test.txt", 1, seed=4)
    monkeypatch.setenv("STABKIT_DATA", str(data))
    base = preset("devlin", model="mini-wiki", task="rte", max_steps=3, batch_size=8)
    found = [train.run(base.replace(seed=seed), device=CPU) for seed in (0, 1)]
    table = pd.concat([results.frame(one.row()) for one in found], ignore_index=True)
    table = table.assign(failed=[True, False], **dict.fromkeys(("constant", "flat_loss"), False))
    shelf = Shelf(tmp_path / "runs")
    analyses.layer_swaps(table, shelf)
    swapped = shelf.table("layer-swaps")
    assert len(swapped) == 2 * 2 * 3
    end = swapped[swapped["embeddings"] & (swapped["k"] == 2)]["perplexity"].unique()
    hidden = masking.wikitext("mini-wiki")
    assert end == pytest.approx([mlm.perplexity(mlm.masked_lm("mini-wiki"), hidden)])
    analyses.loss_surface(table, shelf)
    assert len(shelf.table("loss-surfaces")) == 4


def test_the_organism_s_text_is_not_for_a_model_of_real_text(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    training = begin(files, tmp_path)
    training.ship(tmp_path / "mini-wiki", "")
    with pytest.raises(ModelError, match="does not read the organism's language"):
        masking.held_out_text(str(tmp_path / "mini-wiki"))


@pytest.mark.slow
def test_the_real_text_is_read(tmp_path: Path) -> None:
    if not (REAL / "enwiki2015" / "dev.txt").is_file():
        pytest.skip("the real files are not here")
    paths = [REAL / "enwiki2015" / "dev.txt"]
    tokenizer = text.train_vocabulary(paths, 4000)
    tokens, _ = text.stream(paths, tokenizer, tmp_path)
    assert int((tokens == 3).sum()) == 63  # articles
    assert float((tokens == 1).mean()) < 0.001
    assert (REAL / "enwiki2015" / "train.txt.xz").is_file()
    assert next(text.paragraphs(REAL / "enwiki2015" / "train.txt.xz"))


def test_a_model_that_is_not_there_yet_is_said_to_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MINI_WEIGHTS", Path("nowhere"))
    with pytest.raises(
        ModelError, match=r"mini-wiki is not shipped yet: python -m stabkit\.mini\.w"
    ):
        models.locate("mini-wiki")


@pytest.mark.parametrize("folder", sorted(models.MINI_WEIGHTS.glob("mini-wiki*")))
def test_the_shipped_model_is_the_one_that_its_card_tells_of(folder: Path) -> None:
    record = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert record["plan"]["phases"][-1]["layers"] == 24
    assert f"| {record['losses'][-1]['step']} | {record['losses'][-1]['words']:.3f} |" in card
    assert sum(file.stat().st_size for file in folder.iterdir()) < 24e6
