"""Real text as a stream of tokens: read in passing, tokenised once, kept on disk.

A file is plain text, .xz or .gz, UTF-8, one paragraph a line, a blank line between documents. Files
are read as streams: no more than some paragraphs are in memory. A stream holds all documents one
after the other, each with [SEP] behind it.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from stabkit.errors import DataError, ModelError
from stabkit.files import digest
from stabkit.mini.anatomy import SPECIALS
from stabkit.storage import save, writing

LARGEST = 1 << 15  # vocabularies stay below, so that a token's two bytes may be read with a sign
PARAGRAPHS = 4096  # tokenised at a time
LETTERS = 500  # each is a piece at the start of words and one within them
Tokens = NDArray[np.int16]


def paragraphs(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, stripped; blank ones part documents.

    Raises DataError for a file that cannot be read, is damaged, binary, empty or not UTF-8.
    """
    empty = True
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, 1):
                text = _decoded(path, number, line).strip()
                empty = empty and not text
                yield text
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path} cannot be read: {reason}; expected plain text, or text in .xz or .gz"
        ) from error
    if empty:
        raise DataError(f"{path} is empty; expected text, one paragraph a line")


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".xz":
        return lzma.open(path)
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _decoded(path: Path, number: int, line: bytes) -> str:
    if b"\0" in line:
        raise DataError(
            f"{path} is binary or in another encoding (byte 0x00 in line {number}); expected text "
            "in UTF-8"
        )
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 (byte 0x{line[error.start]:02x} in line {number}); save it with "
            "that encoding"
        ) from error


def train_vocabulary(paths: Iterable[Path], size: int) -> Tokenizer:
    """Return an uncased WordPiece tokenizer of ``size`` pieces in BERT's two-segment layout.

    Raises DataError for text that yields fewer, and as ``paragraphs`` does.
    """
    if not len(SPECIALS) < size < LARGEST:
        raise ModelError(f"a vocabulary of {size}; expected {len(SPECIALS) + 1} to {LARGEST - 1}")
    paths, tokenizer = list(paths), _uncased(models.WordPiece(unk_token="[UNK]"))
    letters = _alphabet(paths, tokenizer)
    # The library numbers the pieces within words in the order of a hash, and breaks ties by these
    # numbers: named beforehand, they are always the same.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIALS, *(f"##{letter}" for letter in letters)],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator((line for path in paths for line in paragraphs(path)), trainer)
    if (found := tokenizer.get_vocab_size()) != size:
        raise DataError(
            f"too little text for a vocabulary of {size} pieces: it yields {found}; give more text "
            "or a smaller --vocabulary"
        )
    pieces = tokenizer.get_vocab(with_added_tokens=True)
    finished = _uncased(models.WordPiece(pieces, unk_token="[UNK]"))
    finished.add_special_tokens(SPECIALS)
    ends = [(name, pieces[name]) for name in ("[SEP]", "[CLS]")]
    finished.post_processor = processors.BertProcessing(*ends)
    return finished


def _uncased(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _alphabet(paths: Iterable[Path], tokenizer: Tokenizer) -> list[str]:
    """Return the commonest letters of normalised text, sorted; words with others are unknown."""
    counts: Counter[str] = Counter()
    for path in paths:
        for line in paragraphs(path):
            counts.update(tokenizer.normalizer.normalize_str(line))
    del counts[" "]
    return sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:LETTERS])


def vocabulary(paths: Iterable[Path], size: int, folder: Path) -> Tokenizer:
    """Return the tokenizer kept in ``folder``, else train and keep one.

    Raises ModelError for one of another size or that cannot be read, and as ``train_vocabulary``.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        print(f"vocabulary: {size} pieces, of the text", file=sys.stderr)
        tokenizer = train_vocabulary(paths, size)
        save(path, tokenizer.to_str().encode())
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing more special
        raise ModelError(f"{path} is no tokenizer ({error}); remove it to make it again") from error
    if (found := tokenizer.get_vocab_size()) != size:
        raise ModelError(
            f"{path} has {found} pieces, asked for are {size}; choose another folder, or "
            f"--vocabulary {found}"
        )
    return tokenizer


def name_of(tokenizer: Tokenizer) -> str:
    """Return the sha256 of a tokenizer with all its settings."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


def stream(paths: Iterable[Path], tokenizer: Tokenizer, folder: Path) -> tuple[Tokens, str]:
    """Return all tokens of the files (n,), mapped from a file in ``folder``, and their digest.

    The file is made once, whole or not at all, and named by text, vocabulary and number of tokens.
    Raises as ``paragraphs`` does, DataError for a file that was cut, StoreError where it cannot be
    written.
    """
    paths = list(paths)
    for path in paths:
        next(paragraphs(path), None)  # before their digest is asked for: it says what is wrong
    key = hashlib.sha256(f"{digest(paths)} {name_of(tokenizer)}".encode()).hexdigest()
    found = sorted(folder.glob(f"tokens-{key[:16]}-*.u16"))
    if not found:
        print(f"tokens: of {', '.join(path.name for path in paths)}", file=sys.stderr)
        found = [_written(folder / f"tokens-{key[:16]}.tmp", _encoded(paths, tokenizer))]
    count = int(found[0].stem.rpartition("-")[2])
    if found[0].stat().st_size != 2 * count:
        raise DataError(f"{found[0]} is truncated: it is not {count} tokens; remove it")
    return np.memmap(found[0], dtype=np.int16, mode="c"), key


def _written(unfinished: Path, parts: Iterable[NDArray[np.uint16]]) -> Path:
    """Write tokens, then name the file by their number, too; return it."""
    with writing(unfinished):
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            for part in parts:
                file.write(part.tobytes())
            file.flush()
            os.fsync(file.fileno())
            count = file.tell() // 2
        return unfinished.replace(unfinished.with_name(f"{unfinished.stem}-{count}.u16"))


def _encoded(paths: Iterable[Path], tokenizer: Tokenizer) -> Iterator[NDArray[np.uint16]]:
    """Yield the tokens of some paragraphs at a time, each document's with [SEP] behind it."""
    end = SPECIALS.index("[SEP]")
    for path in paths:
        lines, inside = paragraphs(path), False
        while some := list(islice(lines, PARAGRAPHS)):
            ids: list[int] = []
            for line, found in zip(some, _ids(some, tokenizer), strict=True):
                ids += found if line else [end] * inside
                inside = bool(line)
            yield np.array(ids, dtype=np.uint16)
        yield np.array([end] * inside, dtype=np.uint16)


def _ids(lines: list[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    for encoding in tokenizer.encode_batch_fast(lines, add_special_tokens=False):
        yield encoding.ids
