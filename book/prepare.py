"""Make what the build of the book needs: plotly.js for its pages, and each page's .ipynb twin.

Run it after editing a page: ``python book/prepare.py``. Run twice, it changes nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
from plotly.offline import get_plotlyjs

BOOK = Path(__file__).parent
TERM = re.compile(r"\{term\}`([^`<]+?)(?: <[^`>]+>)?`")  # a link to the glossary, in the book only


def pages() -> list[Path]:
    """Return the pages' text notebooks."""
    return sorted(path for path in BOOK.glob("*.md"))


def twin(page: Path) -> str:
    """Return the .ipynb text of a page: no outputs, cells named by their place, terms as words."""
    notebook = jupytext.read(page)
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"{page.stem}-{place}"
        if cell.cell_type == "markdown":
            cell.source = TERM.sub(r"\1", cell.source)
    text: str = jupytext.writes(notebook, fmt="ipynb")
    return text.rstrip("\n") + "\n"


def _write(path: Path, text: str) -> None:
    """Write a file unless it is as it should be."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(BOOK.parent)}")


def main() -> None:
    """Bring plotly.js and all twins up to date."""
    _write(BOOK / "_static" / "plotly.min.js", get_plotlyjs())
    for page in pages():
        _write(page.with_suffix(".ipynb"), twin(page))


if __name__ == "__main__":
    main()
