"""Launch: buttons that open this page's notebook, from a fork too; the first cell on every page."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from test_book import PAGES, ROOT, prepare, script

ADDRESS = "https://github.com/stabkit/stabkit"


def options() -> dict[str, Any]:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    found: dict[str, Any] = config["sphinx"]["config"]["html_theme_options"]
    return found


def configured() -> dict[str, Any]:
    found = options()
    script("launch").configure(None, SimpleNamespace(html_theme_options=found))
    return found


def test_buttons_name_the_repository_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STABKIT_REPOSITORY", "STABKIT_BRANCH", "STABKIT_HUB"):
        monkeypatch.setenv(name, "")  # as a workflow sets what it does not know
    found = configured()
    assert (found["repository_url"], found["repository_branch"]) == (ADDRESS, "main")
    assert found["launch_buttons"].keys() >= {"colab_url", "binderhub_url", "jupyterhub_url"}


def test_a_build_can_name_a_fork_and_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABKIT_REPOSITORY", "https://github.com/ann/fork")
    monkeypatch.setenv("STABKIT_BRANCH", "mine")
    monkeypatch.setenv("STABKIT_HUB", "https://hub.university.example")
    found = configured()
    assert found["repository_url"] == "https://github.com/ann/fork"
    assert found["repository_branch"] == "mine"
    assert found["launch_buttons"]["jupyterhub_url"] == "https://hub.university.example"


def test_the_workflow_publishes_buttons_of_its_own_repository() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())
    (step,) = [s for s in workflow["jobs"]["build"]["steps"] if s.get("run") == "make book"]
    launch = script("launch")
    assert step["env"].keys() == {*launch.VARIABLES, launch.HUB}
    assert step["env"]["STABKIT_REPOSITORY"].endswith("${{ github.repository }}")


def test_without_a_hub_the_button_asks_for_one() -> None:
    launch = script("launch")
    own = {"text": "JupyterHub", "url": "https://hub.university.example/git-pull?a"}
    anyone = {"text": "JupyterHub", "url": f"{launch.PULL}?repo=r&branch=b"}
    context = {"header_buttons": [{"buttons": [dict(own), dict(anyone)]}, {"url": "elsewhere"}]}
    launch.any_hub(None, "page", "page.html", context, None)
    changed = context["header_buttons"][0]["buttons"]
    assert changed[0] == own
    assert changed[1]["url"] == f"{launch.GENERATOR}?repo=r&branch=b"


def test_an_image_builds_from_the_repository_s_own_files() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    torch, package = [line for line in lines if not line.startswith("#")]
    project = (ROOT / "pyproject.toml").read_text()
    (asked,) = re.findall(r'"(torch\W[^"]*)"', project)
    assert Requirement(asked).specifier.contains(torch.removeprefix("torch=="))
    assert f"TORCH ?= {torch}\n" in (ROOT / "Makefile").read_text()
    extras = re.fullmatch(r"--editable \.\[([\w,]+)\]", package)
    assert extras and all(f"\n{extra} = [" in project for extra in extras[1].split(","))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_with_code_begins_with_the_first_cell(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == prepare().with_first_cell(text), "run python book/prepare.py"
    assert text.count("first-cell") == ("{code-cell}" in text)
    if "{code-cell}" in text:
        title, first = text.index("\n# "), text.index("```{code-cell}")
        assert len(text[title:first].split("\n\n")) == 2  # nothing but the title is above it
        assert f'"{ADDRESS}"' in text


def test_the_first_cell_replaces_an_older_one() -> None:
    page = (
        "---\na: 1\n---\n\n# Title\n\nText.\n\n```{code-cell} ipython3\n1\n```\n\n# Two\n\nEnd.\n"
    )
    once = prepare().with_first_cell(page)
    assert once.startswith(
        "---\na: 1\n---\n\n# Title\n\n```{code-cell} ipython3\n:tags: [remove-cell"
    )
    assert once.count("host.prepare()") == 1
    assert prepare().with_first_cell(once.replace("host.prepare()", "host.older()")) == once
    prose = "# Title\n\nText.\n"
    assert prepare().with_first_cell(prose) == prose


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_buttons_of_built_pages_open_the_page_s_notebook(page: Path, built: Path) -> None:
    text = (built / f"{page.stem}.html").read_text(encoding="utf-8")
    links = {unescape(link) for link in re.findall(r'href="(https://[^"]*ipynb[^"]*)"', text)}
    twin = f"book/{page.stem}.ipynb"
    assert (ROOT / twin).exists()
    colab, binder, hub = sorted(
        links, key=lambda link: ("colab." not in link, "binder" not in link)
    )
    assert re.fullmatch(rf"https://colab\.[^/]+/github/([^/]+/[^/]+)/blob/[^/]+/{twin}", colab)
    assert binder.startswith("https://mybinder.org/v2/gh/") and binder.endswith(f"lab/tree/{twin}")
    asked = parse_qs(urlsplit(hub).query)
    assert asked["urlpath"] == [f"lab/tree/{asked['repo'][0].split('/')[-1]}/{twin}"]
    assert "/".join(asked["repo"][0].split("/")[-2:]) in colab
    for image in re.findall(r'<img alt="[^"]* logo" src="([^"]*)"', text):
        assert (built / image).exists()
    assert (built.parent / "_sources" / twin).exists()
