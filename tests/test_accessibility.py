"""Every built page for every reader: axe-core finds nothing serious, headings come in order."""

from __future__ import annotations

from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_book import NAMES, opened

AXE = resources.files("selenium_axe_python") / "axe-core" / "axe.min.js"
ALSO = ("search", "genindex")  # pages that the builder makes
RUN = """
const done = arguments[0];
axe.run(document, {resultTypes: ["violations"]}).then(done, (problem) => done(String(problem)));
"""
FOCUSED = """
const element = document.activeElement, style = getComputedStyle(element);
const box = element.getBoundingClientRect();
return {
    what: element.outerHTML.slice(0, 120),
    body: element === document.body,
    name: element.getAttribute("aria-label") || element.title || element.textContent.trim()
        || [...(element.labels || [])].map((label) => label.textContent.trim()).join(" ")
        || element.placeholder || "",
    seen: box.width > 0 && box.height > 0,
    marked: style.outlineStyle !== "none" || style.boxShadow !== "none",
};
"""


def place(built: Path, name: str) -> Path:
    return (built.parent if name in ALSO else built) / f"{name}.html"


def as_the_system_is(browser: Any, scheme: str) -> None:
    """Let the browser prefer light or dark, which the book follows."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def findings(browser: Any) -> list[str]:
    """Return what axe-core finds serious or critical: the rule, then where."""
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    found = browser.execute_async_script(RUN)
    assert not isinstance(found, str), found
    return [
        f"{rule['impact']}: {rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", [*NAMES, *ALSO])
def test_axe_finds_nothing_serious(
    browser: Any, built: Path, name: str, width: int, scheme: str
) -> None:
    browser.set_script_timeout(300)
    as_the_system_is(browser, scheme)
    opened(browser, place(built, name), width)
    assert browser.execute_script("return document.documentElement.dataset.theme") == scheme
    assert findings(browser) == []


@pytest.mark.browser
def test_axe_finds_what_is_wrong(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text("<!doctype html><title>wrong</title><img src='data:,'><input>")
    browser.get(page.as_uri())
    rules = {finding.split(": ")[1] for finding in findings(browser)}
    assert {"html-has-lang", "image-alt", "label"} <= rules


@pytest.mark.browser
@pytest.mark.parametrize("name", NAMES)
def test_headings_come_in_order(browser: Any, built: Path, name: str) -> None:
    browser.get(place(built, name).as_uri())
    levels = browser.execute_script(
        "return [...document.querySelectorAll('article :is(h1, h2, h3, h4, h5, h6)')]"
        ".map((heading) => Number(heading.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.browser
def test_the_keyboard_reaches_the_text_first_and_all_that_it_reaches_is_seen(
    browser: Any, built: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, place(built, "index"))
    reached = []
    for _ in range(60):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        at = browser.execute_script(FOCUSED)
        if at["body"]:
            break
        reached.append(at)
    assert "Skip to main content" in reached[0]["what"]
    assert any('name="number"' in at["what"] for at in reached)
    for at in reached:
        assert at["name"] and at["seen"] and at["marked"], at
