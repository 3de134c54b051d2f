"""Models: digests, what is new in a classifier, and folders and names from which none comes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMaskedLM, BertForSequenceClassification

from stabkit import models
from stabkit.errors import ModelError
from stabkit.models import Origin, build, digests, load_tokenizer, locate
from stabkit.presets import is_organism


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the tiny BERT that may be damaged."""
    return Path(shutil.copytree(tiny.model(), tmp_path / "model"))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_new_parts_are_drawn_from_the_head_seed_alone(architecture: str) -> None:
    config = tiny.config(architecture, seed=1)
    torch.manual_seed(5)
    first = build(config, 2).state_dict()
    torch.manual_seed(6)
    again = build(config.replace(order_seed=8, dropout_seed=9), 2).state_dict()
    other = build(config.replace(head_seed=2), 2).state_dict()
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    assert all(torch.equal(first[name], again[name]) for name in first)
    weights = {"classifier.weight"}
    if architecture == "roberta":
        weights = {"classifier.dense.weight", "classifier.out_proj.weight"}
    assert changed == weights


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_the_rest_comes_from_the_checkpoint(architecture: str) -> None:
    saved = load_file(Path(tiny.model(architecture), "model.safetensors"))
    built = build(tiny.config(architecture), 2).state_dict()
    kept = {name for name in built if not name.startswith("classifier")}
    assert len(kept) > 15
    assert kept <= saved.keys()
    assert all(torch.equal(built[name], saved[name]) for name in kept)
    assert ("bert.pooler.dense.weight" in kept) == (architecture == "bert")


def test_new_weights_have_the_asked_deviation_and_biases_are_0() -> None:
    model = build(tiny.config(init_std=0.5, pooler="new"), 3)
    weight = model.get_parameter("bert.pooler.dense.weight")
    assert weight.std().item() == pytest.approx(0.5, rel=0.1)
    assert weight.mean().item() == pytest.approx(0, abs=0.05)
    assert not model.get_parameter("bert.pooler.dense.bias").any()
    assert not model.get_parameter("classifier.bias").any()
    assert model.get_parameter("classifier.weight").shape == (3, 32)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_checkpoint_read_once_starts_every_run_as_if_read_anew(architecture: str) -> None:
    runs = [
        tiny.config(architecture, **changes)
        for changes in ({"seed": 1}, {"seed": 2, "pooler": "new"}, {"seed": 1}, {"init_std": 0.5})
    ]
    origin = Origin(runs[0], 2)
    for config in runs:
        found, expected = origin.start(config).state_dict(), build(config, 2).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], weights) for name, weights in expected.items())
        with torch.no_grad():
            for name, parameter in origin.model.named_parameters():
                if name in ("classifier.weight", "bert.pooler.dense.bias"):
                    parameter.add_(1.0)  # whatever is drawn anew must not depend on what was there


def test_a_new_pooler_leaves_all_else() -> None:
    kept = build(tiny.config(), 2).state_dict()
    new = build(tiny.config(pooler="new"), 2).state_dict()
    changed = {name for name in kept if not torch.equal(kept[name], new[name])}
    assert "bert.pooler.dense.weight" in changed
    assert all("pooler" in name or name == "classifier.weight" for name in changed)


def test_a_layer_norm_that_is_new_stays_an_identity(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    lost = "bert.encoder.layer.1.output.LayerNorm.weight"
    del weights[lost]
    save_file(weights, file, metadata={"format": "pt"})
    assert torch.equal(build(tiny.config(model=str(folder)), 2).state_dict()[lost], torch.ones(32))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_dropouts_are_the_run_s(architecture: str) -> None:
    config = tiny.config(
        architecture, hidden_dropout=0.2, attention_dropout=0.3, classifier_dropout=0.4
    )
    rates = {
        name: module.p
        for name, module in build(config, 2).named_modules()
        if isinstance(module, nn.Dropout)
    }
    in_head = {name: p for name, p in rates.items() if "." not in name or "classifier" in name}
    in_attention = {
        name: p
        for name, p in rates.items()
        if name.endswith(("attention.self.dropout", "attention_dropout"))
    }
    assert set(in_head.values()) == {0.4}
    assert set(in_attention.values()) == {0.3}
    rest = rates.keys() - in_head.keys() - in_attention.keys()
    assert {rates[name] for name in rest} == {0.2}


def other(folder: Path, kind: str, **sizes: Any) -> str:
    """Save an encoder of another family, with the organism's tokenizer."""
    common = {"vocab_size": len(tiny.tokenizer()), "hidden_size": 32, "num_hidden_layers": 2}
    common |= {"num_attention_heads": 2, "intermediate_size": 64, "pad_token_id": 0}
    settings = AutoConfig.for_model(kind, **common | sizes)
    AutoModelForMaskedLM.from_config(settings).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def rates(model: str) -> dict[str, float]:
    dropouts = {"hidden_dropout": 0.2, "attention_dropout": 0.3, "classifier_dropout": 0.4}
    built = build(tiny.config(model=model, **dropouts), 2)
    found = {n: getattr(module, "p", None) for n, module in built.named_modules()}
    return {name: p for name, p in found.items() if isinstance(p, float)}


def test_dropouts_reach_other_families(tmp_path: Path) -> None:
    found = rates(other(tmp_path / "deberta", "deberta-v2"))
    assert found["dropout"] == 0.4
    assert found["deberta.encoder.layer.0.output.dropout"] == 0.2
    assert found["deberta.encoder.layer.0.attention.self.dropout"] == 0.3
    found = rates(other(tmp_path / "modern", "modernbert", global_attn_every_n_layers=1))
    assert found["drop"] == 0.4
    assert {found["model.embeddings.drop"], found["model.layers.0.mlp.drop"]} == {0.2}


def test_a_dropout_without_a_place_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="has no classifier_dropout of its own"):
        assert rates(other(tmp_path, "mpnet"))


def test_roberta_s_head_drops_once_unless_asked() -> None:
    """The released code leaves out the dropout before the dense layer of the head."""
    hidden = torch.randn(4, 6, 32, generator=torch.Generator().manual_seed(0))

    def uses(pooler_dropout: bool) -> tuple[int, Tensor]:
        config = tiny.config("roberta", pooler_dropout=pooler_dropout)
        classifier = build(config, 2).get_submodule("classifier")
        calls: list[object] = []
        classifier.get_submodule("dropout").register_forward_hook(lambda *_: calls.append(0))
        logits = classifier.eval()(hidden)
        return len(calls), logits

    once, twice = uses(False), uses(True)
    assert (once[0], twice[0]) == (1, 2)
    assert torch.equal(once[1], twice[1])  # in evaluation mode there is no difference


def test_digests_follow_content_not_place(folder: Path) -> None:
    weights, tokenizer = digests(tiny.model())
    assert digests(str(folder)) == (weights, tokenizer)
    assert len(weights) == len(tokenizer) == 64
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": True}))
    assert digests(str(folder))[0] == weights
    assert digests(str(folder))[1] != tokenizer
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "hidden_act": "relu"}))
    assert digests(str(folder))[0] != weights


def test_a_model_saved_again_is_read_again(folder: Path) -> None:
    before, tokenizer = digests(str(folder)), load_tokenizer(str(folder))
    assert load_tokenizer(str(folder)) is tokenizer
    file = folder / "model.safetensors"
    save_file({**load_file(file), "more": torch.zeros(3)}, file, metadata={"format": "pt"})
    assert digests(str(folder))[0] != before[0]
    assert load_tokenizer(str(folder)) is tokenizer


def test_weights_in_several_files_all_count(folder: Path) -> None:
    one_file = load_file(folder / "model.safetensors")
    model = BertForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    before = digests(str(folder))
    name = "bert.pooler.dense.weight"
    built = build(tiny.config(model=str(folder)), 2).state_dict()
    assert torch.equal(built[name], one_file[name])
    save_file({"more": torch.zeros(3)}, shards[-1], metadata={"format": "pt"})
    assert digests(str(folder)) != before
    shards[-1].unlink()
    with pytest.raises(ModelError, match=rf"has {len(shards) - 1} of the {len(shards)} files"):
        digests(str(folder))


def test_a_folder_without_weights_or_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer; expected one of tokenizer\.json"):
        digests(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no weights; expected one of model\.safetensors"):
        digests(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json; expected .* Hugging Face layout"):
        digests(str(folder))
    with pytest.raises(ModelError, match=r"no folder .*nowhere; expected a model folder or a hub"):
        digests(str(folder / "nowhere"))


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "tokenizer.json"])
def test_damaged_files_are_named(folder: Path, damage: str) -> None:
    content = (folder / damage).read_bytes()
    (folder / damage).write_bytes(content[: len(content) // 2])
    config = tiny.config(model=str(folder))
    with pytest.raises(ModelError, match=str(folder)):
        build(config, 2)
        load_tokenizer(str(folder))


def test_a_model_of_another_kind_is_refused(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": "vit"}))
    with pytest.raises(ModelError, match="no classifier can be made"):
        build(tiny.config(model=str(folder)), 2)


def test_a_model_that_knows_no_segments_is_not_given_any() -> None:
    with pytest.raises(ModelError, match="knows no segments; expected segments=False"):
        build(tiny.config("roberta", segments=True), 2)


def test_shipped_models_go_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.rename(folder.with_name("mini-bert"))
    monkeypatch.setattr(models, "MINI_WEIGHTS", folder.parent)
    assert models.mini_models() == ["mini-bert"]
    assert locate("mini-bert") == str(folder.with_name("mini-bert"))
    assert digests("mini-bert") == digests(tiny.model())
    with pytest.raises(ModelError, match="unknown shipped model 'mini-brt': did you mean 'mini-b"):
        locate("mini-brt")


def test_an_unreachable_hub_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("nobody/nothing", "not a name", "bert-large-uncased"):
        with pytest.raises(ModelError, match=f"no model '{name}'.*Give a folder in Hugging Face"):
            digests(name)


def test_a_hub_that_breaks_off_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = models.cached_file

    def busy(place: str, name: str, **options: Any) -> str | None:
        if name != "config.json":
            raise OSError("503 Server Error")
        return fetch(place, name, **options)

    monkeypatch.setattr(models, "cached_file", busy)
    (folder / "more").touch()  # another stamp, so that nothing is remembered
    with pytest.raises(ModelError, match=r"model\.safetensors of .* cannot be had: 503 Server"):
        digests(str(folder))


def test_a_model_in_the_hub_s_cache_needs_no_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "models--some--model"
    shutil.copytree(tiny.model(), cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert locate("some/model") == "some/model"
    assert digests("some/model") == digests(tiny.model())
    assert load_tokenizer("some/model").get_vocab() == tiny.tokenizer().get_vocab()
    config = tiny.config()
    built = build(config.replace(model="some/model"), 2).state_dict()
    assert all(torch.equal(p, built[n]) for n, p in build(config, 2).state_dict().items())


def test_a_checkpoint_s_own_head_is_replaced(folder: Path) -> None:
    """Else the head seed would have no effect, and another number of labels would not do."""
    BertForSequenceClassification.from_pretrained(folder, num_labels=3).save_pretrained(folder)
    first, second = (
        build(tiny.config(model=str(folder), head_seed=seed), 3).state_dict() for seed in (0, 1)
    )
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"classifier.weight"}
    two = build(tiny.config(model=str(folder)), 2).state_dict()
    assert torch.equal(
        two["classifier.weight"], build(tiny.config(), 2).state_dict()["classifier.weight"]
    )


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "intermediate_size": 48}))
    with pytest.raises(ModelError, match=r"do not fit its config\.json: .*intermediate"):
        build(tiny.config(model=str(folder)), 2)


RESULTS = Path(__file__).parents[1] / "results" / "runs.parquet"


@pytest.mark.skipif(not RESULTS.exists(), reason="no runs are published")
@pytest.mark.parametrize("name", list(filter(is_organism, models.mini_models())))
def test_shipped_models_are_those_of_the_published_runs(name: str) -> None:
    rows = pd.read_parquet(RESULTS, columns=["model", "weights", "tokenizer"])
    rows = rows[rows["model"] == name]
    assert {*zip(rows["weights"], rows["tokenizer"], strict=True)} == {digests(name)}
