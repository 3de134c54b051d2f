"""A notebook in a real JupyterLab, and in Notebook 7.

Its panel trains two seeds, draws them and stops a sweep; its explorer answers to its controls; a
figure is drawn, with its caption and its data.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
PATIENCE = 420  # seconds for each thing that is waited for: imports alone may take a minute
NEWS = "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
PANEL = """
from stabkit import widgets

widgets.study_panel(store="mine", learning_rates=[2e-4], seeds=2, max_steps=2, train_size=32)
"""
EXPLORER = """
import test_explorers

test_explorers.rates(test_explorers.pilot())
"""
FIGURE = """
from stabkit import figures

figures.show(figures.correction_factor(), "The factor, a closed form.", "Two rising curves.")
"""
APPS = {"jupyterlab": ("LabApp", "doc/tree"), "notebook": ("JupyterNotebookApp", "notebooks")}

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1200)]


@contextmanager
def served(app: str, folder: Path, cells: Sequence[str]) -> Iterator[str]:
    """Serve a notebook of some cells from ``folder``; the address to open it at."""
    name, place = APPS[app]
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=KERNEL
    )
    nbformat.write(book, folder / "panel.ipynb")
    (folder / NEWS).parent.mkdir(parents=True)
    (folder / NEWS).write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": folder,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": token,
        f"{name}.extension_manager": "readonly",
        f"{name}.news_url": None,
        f"{name}.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", app]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command + [f"--{option}={value}" for option, value in options.items()],
            cwd=folder,
            env=environment(folder),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield f"http://127.0.0.1:{port}/{place}/panel.ipynb?token={token}"
    finally:
        server.terminate()  # it shuts its kernels down, and these end their workers
        try:
            server.wait(60)
        finally:
            server.kill()
            server.wait()


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a server that neither reads nor writes what is the user's."""
    homes = {
        "HOME": "home",
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "STABKIT_RESULTS": "published",
    }
    kept = {name: value for name, value in os.environ.items() if name != "STABKIT_BOOK"}
    places = {name: str(folder / place) for name, place in homes.items()}
    return {
        **kept,
        **places,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "JUPYTER_PREFER_ENV_PATH": "1",
    }


@pytest.fixture(scope="module", params=APPS)
def page(
    local_browser: Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Any]:
    """The browser with the notebook before it, its cells just run."""
    with served(
        request.param, tmp_path_factory.mktemp("lab"), (PANEL, EXPLORER, FIGURE)
    ) as address:
        show(local_browser, address)
        yield local_browser


def show(browser: Any, address: str) -> None:
    """Open a notebook and run its cells."""
    from selenium.common.exceptions import WebDriverException

    def answers(browser: Any) -> bool:
        try:
            browser.get(address)
        except WebDriverException:  # not yet
            return False
        return True

    asked = -math.inf

    def shows(browser: Any) -> Any:
        """Ask again where nothing came: a page that is still starting may change its kernel."""
        nonlocal asked
        idle = browser.find_elements("css selector", IDLE)
        if idle and time.monotonic() - asked > PAUSE and run_all(browser):
            asked = time.monotonic()
        return browser.find_elements("css selector", ".stabkit-study button")

    wait(browser, answers)
    wait(browser, shows)


IDLE = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
PAUSE = 30.0  # seconds in which an idle kernel shows what its cells made
MENU = "//div[contains(@class, 'lm-Menu') and text()='{}']"


def run_all(browser: Any) -> bool:
    """Ask for all cells to be run; whether they are, for what comes too early is passed over."""
    if dialogs := browser.find_elements("css selector", ".jp-Dialog .jp-mod-accept"):
        dialogs[0].click()  # such as which kernel, where the page was quicker than the server
        return False
    for item in ("Run", "Run All Cells"):
        wait(browser, lambda b, item=item: b.find_elements("xpath", MENU.format(item)))
        browser.find_element("xpath", MENU.format(item)).click()
    time.sleep(1)
    prompts = browser.find_elements("css selector", ".jp-InputPrompt")
    return all(prompt.text != "[ ]:" for prompt in prompts)


def wait(browser: Any, until: Callable[[Any], Any]) -> None:
    from selenium.common.exceptions import (
        ElementClickInterceptedException,
        StaleElementReferenceException,
    )
    from selenium.webdriver.support.wait import WebDriverWait

    passing = (StaleElementReferenceException, ElementClickInterceptedException)
    WebDriverWait(browser, PATIENCE, 0.5, ignored_exceptions=passing).until(until)


def button(browser: Any, name: str) -> Any:
    """Return a button of the panel by what it says."""
    found = browser.find_elements("css selector", ".stabkit-study button")
    return next(one for one in found if one.text == name)


def press(browser: Any, name: str) -> None:
    """Press a button as soon as it can be."""
    wait(browser, lambda b: button(b, name).is_enabled())
    browser.execute_script("arguments[0].click()", button(browser, name))


def says(browser: Any, words: str) -> bool:
    return words in browser.find_element("css selector", ".stabkit-study").text


def number(browser: Any, selector: str) -> int:
    return len(browser.find_elements("css selector", f".stabkit-study {selector}"))


def enter(browser: Any, label: str, text: str) -> None:
    """Type into the text field that is so labelled."""
    from selenium.webdriver.common.keys import Keys

    path = f"//label[text()='{label}']/following-sibling::input"
    field = browser.find_element("xpath", path)
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(text, Keys.ENTER)


def test_two_seeds_are_trained_and_drawn(page: Any) -> None:
    assert says(page, "2 settings x 2 seeds = 4 runs")
    enter(page, "Learning rates", "abc")
    wait(page, lambda b: says(b, "'abc' is not a learning rate"))
    enter(page, "Learning rates", "1e-4")
    page.find_element("xpath", "//option[text()='on']").click()  # typed keys are shortcuts to some
    wait(page, lambda b: says(b, "1 setting x 2 seeds = 2 runs"))
    assert number(page, "[role=img].waiting") == 2
    press(page, "Measure")
    wait(page, lambda b: says(b, "Measured: a step takes"))
    press(page, "Run")
    wait(page, lambda b: says(b, "Finished: all 2 runs are stored."))
    wait(page, lambda b: number(b, ".scatterlayer .points path.point") >= 2)
    assert number(page, "[role=img]:is(.successful, .nothing, .failed)") == 2
    assert says(page, "Stored already\n2 of 2") and says(page, "n = 2 runs")
    link = page.find_element("css selector", ".stabkit-study a[download$=csv]")
    rows = b64decode(link.get_attribute("href").partition("base64,")[2]).decode().splitlines()
    assert len(rows) >= 3 and "verdict" in rows[0]  # a head, two runs


def test_stop_stops_and_keeps_what_is_finished(page: Any) -> None:
    enter(page, "Steps", "100000")
    wait(page, lambda b: says(b, "2 runs, 200,000 steps"))
    press(page, "Run")
    wait(page, lambda b: number(b, "[role=img].started"))
    press(page, "Stop")
    wait(page, lambda b: says(b, "Stopped: 0 of 2 runs are stored; Run goes on from there."))
    assert not button(page, "Stop").is_enabled() and button(page, "Run").is_enabled()
    enter(page, "Steps", "2")
    wait(page, lambda b: says(b, "Stored already\n2 of 2"))
    wait(page, lambda b: number(b, ".scatterlayer .points path.point") >= 2)


def test_an_explorer_answers_in_its_frame(page: Any) -> None:
    wait(page, lambda b: b.find_elements("css selector", "iframe[srcdoc]"))
    frame = page.find_element("css selector", "iframe[srcdoc]")
    page.switch_to.frame(frame)
    try:
        wait(page, lambda b: b.find_elements("css selector", ".heatmaplayer image"))
        before = page.find_element("class name", "stabkit-said").text
        box = page.find_element("css selector", "[name=bias_correction]")
        page.execute_script("arguments[0].click()", box)
        after = page.find_element("class name", "stabkit-said").text
        tall = page.execute_script("return document.body.scrollHeight")
    finally:
        page.switch_to.default_content()
    assert before != after
    assert frame.size["height"] == tall > 300


def test_a_figure_is_drawn_with_its_caption_and_its_data(page: Any) -> None:
    curves = ".jp-OutputArea-output .scatterlayer .js-line"

    def outside(browser: Any, selector: str) -> list[Any]:
        """Return what is not the panel's own."""
        script = "return [...document.querySelectorAll(arguments[0])]"
        script += ".filter(one => !one.closest('.stabkit-study'))"
        found: list[Any] = browser.execute_script(script, selector)
        return found

    page.execute_script("document.querySelectorAll('.jp-Cell')[2].scrollIntoView()")
    wait(page, lambda b: len(outside(b, curves)) >= 2)  # one for each beta
    assert any("The factor, a closed form." in one.text for one in outside(page, ".jp-Cell"))
    (link,) = outside(page, "a[download$=csv]")
    rows = b64decode(link.get_attribute("href").partition("base64,")[2]).decode().splitlines()
    assert len(rows) > 100
