"""A small real-text corpus for tests: documents in the project's own generated English."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from stabkit.mini.corpus import books


def write(path: Path, documents: int, seed: int = 0) -> Path:
    """Write so many documents, a paragraph a line and a blank line behind each; return the path."""
    texts = [
        "\n".join(" ".join(scene).capitalize() for scene in book)
        for book in islice(books(seed), documents)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return path
