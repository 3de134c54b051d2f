"""Three sources side by side: whatever is published, and with runs that tell the models apart."""

from __future__ import annotations

from pathlib import Path

import inside
import pandas as pd
import pytest
from published import publish

from stabkit import pages, three_sources
from stabkit.findings import Finding
from stabkit.three_sources import COLUMNS, SOURCES, side_by_side, verdict


def test_without_runs_there_is_nothing_to_compare(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STABKIT_RESULTS", str(tmp_path / "none"))
    found = side_by_side()
    assert found.empty and list(found) == list(COLUMNS)
    assert verdict(found).startswith("No criterion has been judged for both models yet")


def test_a_criterion_meets_its_like(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(model: str) -> dict[tuple[str, str, str], Finding]:
        real = model == "mini-wiki"
        keys = [("Fig. 5", "rte", "a"), ("Fig. 5", "rte", "b"), ("Table 1", "cola", "Ours, std")]
        holds = [True, real, None]
        found = {
            key: Finding(key[0], key[2], 9, "some reason", one)
            for key, one in zip(keys, holds, strict=True)
        }
        return found | ({("Fig. 5", "qnli", "a"): Finding("", "", 9, "y", False)} if real else {})

    monkeypatch.setattr(three_sources.Source, "findings", lambda source: of(source.model))
    found = side_by_side()
    assert found["exhibit"].tolist() == ["Table 1", "Fig. 5", "Fig. 5", "Fig. 5"]
    assert found["paper"].iloc[0] == "Devlin 25.6; Lee 20.9; Ours 1.0 %"
    assert found["mini-bert"].tolist() == [
        "not judged yet: some reason",
        "holds: some reason",
        "does not hold: some reason",
        "no runs",
    ]
    assert found["carries over"].tolist() == [
        "cannot be said yet",
        "yes, holds in both",
        "no, holds for mini-wiki alone",
        "cannot be said yet",
    ]
    told = verdict(found)
    assert told.startswith("Of 2 criteria that are judged for both models, **1 come out alike**")
    assert "- Fig. 5, rte: *b* holds for mini-wiki alone." in told


@pytest.mark.parametrize(
    ("task", "criterion", "reported"),
    [  # the paper tests Ours against the method of the second smallest spread
        (
            "rte",
            "Ours spreads less than Devlin (Levene)",
            "holds against the second smallest variance (in the preprint, this one): p < 0.001",
        ),
        ("rte", "Ours spreads less than Lee (Levene)", "not reported"),
        (
            "cola",
            "Ours spreads less than Lee (Levene)",
            "holds against the second smallest variance (in the preprint, this one): p < 0.001",
        ),
        ("cola", "Ours spreads less than Devlin (Levene)", "not reported"),
        ("rte", "no method fails less often than Ours", "shown in Fig. 1, not counted"),
    ],
)
def test_the_paper_is_credited_with_what_it_reports(
    task: str, criterion: str, reported: str
) -> None:
    assert three_sources._paper("Table 1", task, criterion) == reported


@pytest.mark.slow
def test_with_all_runs_every_exhibit_has_both_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STABKIT_RESULTS", str(publish(tmp_path)))
    found = side_by_side()
    rte = found[found["task"] == "rte"]
    assert set(rte["exhibit"]) == {"Table 1", "Fig. 5", "Fig. 2c", "Fig. 2", "Fig. 7", "Fig. 13"}
    assert not (rte[["mini-wiki", "mini-bert"]] == "no runs").any(axis=None)
    assert not found.duplicated(["exhibit", "task", "criterion"]).any()
    qnli = found[found["task"] == "qnli"]
    assert (qnli["mini-bert"] == "no runs").all() and len(qnli) == 2
    assert isinstance(found, pd.DataFrame) and "come out alike" in verdict(found)
    assert {source.model for source in SOURCES} == {"mini-wiki", "mini-bert"}
    shown = three_sources.fit(pages.runs("wiki-rates", "wiki-table1"))
    assert set(shown["recipe"]) == {"Devlin", "Devlin, corrected", "Lee", "Ours"}
    assert len(shown) == 4 * 3 * 2 + 3 * 2 and "do not fit, %" in shown


def test_the_verdict_counts_what_carries_over() -> None:
    answers = [*three_sources.CARRIES.values(), "yes, holds in both", "cannot be said yet"]
    rows = [("Fig. 5", "rte", str(i), "", "", "", answer) for i, answer in enumerate(answers)]
    told = verdict(pd.DataFrame(rows, columns=list(COLUMNS)))
    assert "**3 come out alike** and **2 do not**; 1 wait" in told
    assert told.count("- Fig. 5") == 2


def test_of_several_pairs_of_runs_the_first_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = (inside.plane(height).assign(key=key) for key, height in (("a", 0.4), ("b", -0.5)))
    planes = pd.concat(pairs).assign(model="mini-bert", task="mini-rte")
    found = dict.fromkeys(("layer-swaps", "loss-lines"), pd.DataFrame())
    found["loss-surfaces"] = planes
    monkeypatch.setattr(pages, "shelf", lambda name, *_by, **_kind: found[name])
    judged = SOURCES[1]._of_weights()
    assert judged["Fig. 7", "rte", "a maximum of the loss above both ends of the line"].holds
