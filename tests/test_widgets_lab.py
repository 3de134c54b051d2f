"""The panel in a real JupyterLab: a browser trains two seeds, sees them drawn, stops a sweep."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
PATIENCE = 420  # seconds for each thing that is waited for: imports alone may take a minute
NEWS = "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
CELL = """
from stabkit import widgets

widgets.study_panel(store="mine", learning_rates=[2e-4], seeds=2, max_steps=2, train_size=32)
"""

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1200)]


@contextmanager
def jupyterlab(folder: Path, cell: str) -> Iterator[str]:
    """Serve a notebook of one cell from ``folder``; the address to open it at."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)], metadata=KERNEL)
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
        "LabApp.extension_manager": "readonly",
        "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.expose_app_in_browser": True,
    }
    command = [sys.executable, "-m", "jupyterlab"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command + [f"--{name}={value}" for name, value in options.items()],
            cwd=folder,
            env=environment(folder),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield f"http://127.0.0.1:{port}/doc/tree/panel.ipynb?token={token}"
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
    return {**kept, **places, "PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1"}


@pytest.fixture(scope="module")
def page(local_browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The browser with the panel before it, its cell just run."""
    with jupyterlab(tmp_path_factory.mktemp("lab"), CELL) as address:
        show(local_browser, address)
        yield local_browser


def show(browser: Any, address: str) -> None:
    """Open a notebook and run its cell."""
    from selenium.common.exceptions import WebDriverException

    def answers(browser: Any) -> bool:
        try:
            browser.get(address)
        except WebDriverException:  # not yet
            return False
        return True

    wait(browser, answers)
    wait(browser, lambda b: b.execute_script(READY))
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    wait(browser, lambda b: b.find_elements("css selector", ".stabkit-study button"))


READY = """
const notebook = window.jupyterapp?.shell.currentWidget;
const kernel = notebook?.sessionContext?.session?.kernel;
return kernel?.connectionStatus === "connected" && kernel.status === "idle"
    && notebook.content.widgets.length > 0;
"""


def wait(browser: Any, until: Callable[[Any], Any]) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(
        browser, PATIENCE, 0.5, ignored_exceptions=(StaleElementReferenceException,)
    ).until(until)


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
    wait(page, lambda b: says(b, "'abc' is no learning rate"))
    enter(page, "Learning rates", "1e-4")
    page.find_element("css selector", ".stabkit-study select").send_keys("on")
    wait(page, lambda b: says(b, "1 setting x 2 seeds = 2 runs"))
    assert number(page, "[role=img].waiting") == 2
    press(page, "Measure")
    wait(page, lambda b: says(b, "Measured: a step takes"))
    press(page, "Run")
    wait(page, lambda b: says(b, "Finished: all 2 runs are stored."))
    wait(page, lambda b: number(b, ".scatterlayer .points path.point") >= 2)
    assert number(page, "[role=img]:is(.successful, .nothing, .failed)") == 2
    assert says(page, "Stored already\n2 of 2") and says(page, "n = 2 runs")


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
