"""How quickly the built book answers, in headless Chromium, from disk, without a network.

Run ``make book`` first. Printed are: how long the first page takes from its address to being
usable; what each page weighs beside the shared plotly.js; how long each control of each explorer
takes from its event to the next painted frame, and until all is drawn: a relief comes after that
frame. Times are medians of several rounds.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver

BOOK = Path(__file__).parents[1] / "book" / "_build" / "html" / "book"
FLAGS = ("headless", "no-sandbox", "disable-gpu", "host-resolver-rules=MAP * ~NOTFOUND")
LOADED = re.compile(r"""<(?:script|img)\b[^>]*?\bsrc="([^"]+)"|<link\b[^>]*?\bhref="([^"]+)\"""")
WATCH = """
const all = ".stabkit-exhibit > div, .stabkit-panel";
const look = () => {
    const figures = [...document.querySelectorAll(all)];
    if (document.readyState === "complete" && figures.length
            && figures.every((figure) => figure.querySelector("svg.main-svg")))
        window.drawnAt = performance.now();
    else requestAnimationFrame(look);
};
look();
"""
TIMES = """
const [page] = performance.getEntriesByType("navigation");
return window.drawnAt && page.loadEventEnd
    ? {"DOM interactive": page.domInteractive, "loaded": page.loadEventEnd,
       "all figures drawn": window.drawnAt}
    : null;
"""
CONTROLS = """
return [...document.querySelectorAll(".stabkit-explorer")].flatMap((explorer, place) => {
    const controls = [...explorer.querySelectorAll(".stabkit-controls [name]")];
    const views = [...(controls.find(({name}) => name === "view")?.options ?? [{text: ""}])];
    return views.flatMap(({text}, view) => controls.filter(({name}) => !view || name !== "view")
        .map(({name}) => [place, explorer.dataset.kind, name, text]));
});
"""
SET = """
const [place, name, value] = arguments;
const explorer = document.querySelectorAll(".stabkit-explorer")[place];
const control = explorer.querySelector(`.stabkit-controls [name="${name}"]`);
const before = control.type === "checkbox" ? control.checked : control.value;
const named = [...(control.options ?? [])].find(({text}) => text === value)?.value ?? value;
if (value === null || named === before || control.type === "button") return before;
if (control.type === "checkbox") control.click();
else {
    control.value = named;
    for (const kind of ["input", "change"]) control.dispatchEvent(new Event(kind, {bubbles: true}));
}
return before;
"""
ANSWER = """
const [place, name, done] = arguments;
const explorer = document.querySelectorAll(".stabkit-explorer")[place];
const control = explorer.querySelector(`.stabkit-controls [name="${name}"]`);
const turned = () => {
    if (control.type === "button") return control.click();
    if (control.type === "checkbox") return control.click();
    const [low, high] = control.options
        ? [0, control.options.length - 1] : [Number(control.min), Number(control.max)];
    const next = Number(control.value) + Math.max(1, Math.round((high - low) / 7));
    control.value = next > high ? low : next;
    for (const kind of ["input", "change"]) control.dispatchEvent(new Event(kind, {bubbles: true}));
};
requestAnimationFrame(() => {
    const start = performance.now();
    turned();
    requestAnimationFrame(() => {
        const told = [];
        const tell = () => told.push(performance.now() - start);
        scheduler.postTask(tell, {priority: "user-blocking"}); // before what the page does later
        setTimeout(() => setTimeout(() => { tell(); done(told); }));
    });
});
"""


def browser() -> webdriver.Chrome:
    """Start headless Chromium without a network."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, "window-size=1280,900"):
        options.add_argument(f"--{flag}")
    chrome = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    return chrome


def opened(chrome: webdriver.Chrome, page: Path) -> dict[str, float]:
    """Open a page; return when its stages were reached, in milliseconds from its address."""
    from selenium.webdriver.support.wait import WebDriverWait

    chrome.get("about:blank")
    chrome.get(page.as_uri())
    times: dict[str, float] = WebDriverWait(chrome, 60, 0.2).until(
        lambda browser: browser.execute_script(TIMES)
    )
    return times


def first_page(rounds: int) -> dict[str, list[float]]:
    """Return the stages of the first page, each round in a browser that was just started."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        with browser() as chrome:
            for stage, time in opened(chrome, BOOK / "index.html").items():
                found.setdefault(stage, []).append(time)
    return found


def weights(folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Return the bytes of each page with what it alone loads, and of each file that all load."""
    loaded = {page: named(page) for page in sorted(folder.glob("*.html"))}
    shared = set.intersection(*loaded.values())
    own = {
        page.stem: sum(file.stat().st_size for file in {page, *files - shared})
        for page, files in loaded.items()
    }
    return own, {file.name: file.stat().st_size for file in sorted(shared)}


def named(page: Path) -> set[Path]:
    """Return the files of the book that a page loads."""
    found = LOADED.findall(page.read_text(encoding="utf-8"))
    files = {(page.parent / (src or href).split("?")[0]).resolve() for src, href in found}
    return {file for file in files if file.is_file() and file.suffix != ".html"}


def answers(page: Path, rounds: int) -> Iterator[tuple[str, str, list[list[float]]]]:
    """Yield each explorer's kind, a control of it and the milliseconds that it took, per round.

    These are two, until the answer and until all is drawn.
    Every control is measured with all others as they stood when the page opened, but for an
    explorer's view: each of its views is measured.
    """
    with browser() as chrome:
        opened(chrome, page)
        controls: list[Any] = chrome.execute_script(CONTROLS)
        for place, kind, name, view in controls:
            if view:
                chrome.execute_script(SET, place, "view", view)
            start = chrome.execute_script(SET, place, name, None)
            times = [chrome.execute_async_script(ANSWER, place, name) for _ in range(rounds)]
            chrome.execute_script(SET, place, name, start)
            yield f"{kind} as {view}" if view else kind, name, times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="repetitions of each measurement")
    rounds = parser.parse_args().rounds
    if not (BOOK / "index.html").exists():
        parser.error(f"there is no built book in {BOOK}; run make book first")
    pages = sorted(BOOK.glob("*.html"))
    print(f"first page, ms{'':<34}median   worst")
    for stage, times in first_page(rounds).items():
        print(f"  {stage:<44}{statistics.median(times):8.0f}{max(times):8.0f}")
    own, shared = weights(BOOK)
    print("weight, MB")
    for name, size in own.items():
        print(f"  {name:<44}{size / 1e6:8.2f}")
    rest = sum(shared.values()) - shared["plotly.min.js"]
    print(f"  {'shared by all, beside plotly.js':<44}{rest / 1e6:8.2f}")
    print(f"controls, ms{'':<36}median   worst  all drawn")
    for page in pages:
        if "stabkit-explorer" in page.read_text(encoding="utf-8"):
            for kind, name, times in answers(page, rounds):
                label, (answered, drawn) = f"{page.stem}, {kind}: {name}", zip(*times, strict=True)
                spent = f"{statistics.median(answered):8.0f}{max(answered):8.0f}"
                print(f"  {label:<44}{spent}{statistics.median(drawn):11.0f}")


if __name__ == "__main__":
    main()
