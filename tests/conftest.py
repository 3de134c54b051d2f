"""What all tests share: no network, one thread, no hurry."""

from __future__ import annotations

import os

# Read when the libraries are imported, so set before any test module is.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")

HTML = Path(__file__).parents[1] / "book" / "_build" / "html"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the weights that tests make away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STABKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless chromium without a network; skipped where it is missing, except in CI."""
    with chromium() as chrome:
        yield chrome


@pytest.fixture(scope="module")
def local_browser() -> Iterator[Any]:
    """Like ``browser``, but servers of this machine can be reached."""
    with chromium(", EXCLUDE 127.0.0.1") as chrome:
        yield chrome


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder of the built book's pages; skipped where there is none, except in CI."""
    if not (HTML / "index.html").exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no built book: make book")
    return HTML / "book"


@contextmanager
def chromium(reachable: str = "") -> Iterator[Any]:
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no chromium and chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(program)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",  # a container has little of it, and a page then crashes
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"host-resolver-rules=MAP * ~NOTFOUND{reachable}",
        "window-size=1280,900",
    ):
        options.add_argument(f"--{flag}")
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as chrome:
        yield chrome
