"""Every setting has a meaning, and is listed with the default it really has."""

from __future__ import annotations

from dataclasses import fields

from stabkit import settings
from stabkit.config import CHOICES, RunConfig
from stabkit.report import WIDTH


def test_every_field_of_a_configuration_has_a_meaning_and_no_other_has() -> None:
    assert list(settings.MEANINGS) == [field.name for field in fields(RunConfig)]
    assert sum(map(len, settings.GROUPS.values())) == len(settings.MEANINGS)


def test_defaults_are_those_of_a_configuration() -> None:
    config = RunConfig()
    for name in settings.MEANINGS:
        shown, *others = settings.default(name).split("; or ")
        if shown:
            value = getattr(config, name)
            assert shown == (f"{value:g}" if isinstance(value, float) else str(value)), name
        assert set(others[0].split(", ") if others else []) == set(CHOICES.get(name, ())) - {shown}
    assert settings.default("learning_rate") == "2e-05"
    assert settings.default("eps_placement") == "before; or after"
    assert settings.default("head_seed") == settings.default("text_columns") == ""


def test_the_text_names_every_setting_on_lines_that_fit() -> None:
    lines = settings.text().splitlines()
    named = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert named == list(settings.MEANINGS)
    assert max(map(len, lines)) <= WIDTH
    assert "[before; or after]" in settings.text() and "stabkit presets" in lines[-1]
