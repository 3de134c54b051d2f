"""Real text: reading, vocabulary, the stream of tokens, and what it says of bad files."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import prose
import pytest
from tokenizers import Tokenizer

from stabkit.errors import DataError, ModelError
from stabkit.mini import text
from stabkit.mini.anatomy import SPECIALS

SIZE = 300


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prose.write(tmp_path_factory.mktemp("text") / "some.txt", 20)


@pytest.fixture(scope="module")
def tokenizer(corpus: Path) -> Tokenizer:
    return text.train_vocabulary([corpus], SIZE)


@pytest.mark.parametrize(("suffix", "opened"), [(".xz", lzma.open), (".gz", gzip.open)])
def test_packed_files_read_as_plain_ones(
    suffix: str, opened: Callable[..., object], corpus: Path, tmp_path: Path
) -> None:
    packed = tmp_path / f"some.txt{suffix}"
    with opened(packed, "wb") as file:  # type: ignore[attr-defined]
        file.write(corpus.read_bytes())
    lines = corpus.read_text().splitlines()
    assert list(text.paragraphs(packed)) == list(text.paragraphs(corpus)) == lines


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"", "a.txt is empty; expected text"),
        ("a.txt", b" \n\n", "a.txt is empty; expected text"),
        ("a.txt", b"text\n\x00\x01\n", "a.txt is binary or in another encoding .*line 2"),
        ("a.txt", "text\n".encode("utf-16"), "a.txt is binary or in another encoding .*line 1"),
        ("a.txt", "one\ncafé\n".encode("latin-1"), "a.txt is not UTF-8 .byte 0xe9 in line 2"),
        ("a.xz", b"not packed\n", "a.xz cannot be read: .*expected plain text"),
        ("a.xz", lzma.compress(b"some text\n" * 999)[:60], "a.xz cannot be read: "),
        ("a.gz", b"not packed\n", "a.gz cannot be read: "),
        ("a.gz", gzip.compress(b"some text\n" * 999, mtime=0)[:40], "a.gz cannot be read: "),
        ("a.txt", None, "a.txt cannot be read: No such file"),
    ],
)
def test_a_file_that_is_no_text_is_named_with_what_is_wrong(
    name: str, content: bytes | None, told: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=told):
        text.train_vocabulary([path], SIZE)
    with pytest.raises(DataError, match=told):
        text.stream([path], tokenizer, tmp_path / "out")
    assert not list(tmp_path.glob("out/*.u16"))


def test_the_vocabulary_is_uncased_and_the_same_each_time(
    corpus: Path, tokenizer: Tokenizer
) -> None:
    assert text.train_vocabulary([corpus], SIZE).to_str() == tokenizer.to_str()
    assert [tokenizer.id_to_token(i) for i in range(5)] == SPECIALS
    assert tokenizer.get_vocab_size() == SIZE
    assert tokenizer.encode("THE Dog.").ids == tokenizer.encode("the dog .").ids
    pair = tokenizer.encode("the", "dog")
    assert pair.tokens[0] == "[CLS]" and pair.type_ids[-1] == 1


def test_too_little_text_for_the_vocabulary_says_how_much_it_yields(corpus: Path) -> None:
    with pytest.raises(DataError, match=r"too little text .* 16000 pieces: it yields \d+; give"):
        text.train_vocabulary([corpus], 16_000)
    with pytest.raises(ModelError, match="a vocabulary of 40000; expected 6 to 32767"):
        text.train_vocabulary([corpus], 40_000)


def test_a_kept_vocabulary_is_used_and_one_of_another_size_refused(
    corpus: Path, tmp_path: Path
) -> None:
    made = text.vocabulary([corpus], SIZE, tmp_path)
    kept = text.vocabulary([], SIZE, tmp_path)  # no text is needed any more
    assert kept.to_str() == made.to_str()
    with pytest.raises(ModelError, match=f"has {SIZE} pieces, asked for are 999; choose another"):
        text.vocabulary([corpus], 999, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json is no tokenizer .*remove it"):
        text.vocabulary([corpus], SIZE, tmp_path)


def test_a_stream_is_every_document_with_an_end(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "two.txt"
    path.write_text("\n\nthe dog sees .\nthe cat .\n\n\na dog .")
    end = tokenizer.token_to_id("[SEP]")
    one = tokenizer.encode("the dog sees . the cat .", add_special_tokens=False).ids
    two = tokenizer.encode("a dog .", add_special_tokens=False).ids
    for i, at_once in enumerate((4096, 2)):  # documents may span what is read at a time
        monkeypatch.setattr(text, "PARAGRAPHS", at_once)
        tokens, _ = text.stream([path], tokenizer, tmp_path / str(i))
        assert tokens.tolist() == [*one, end, *two, end]


def test_a_stream_is_made_once_and_named_by_text_and_vocabulary(
    corpus: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, key = text.stream([corpus], tokenizer, tmp_path)
    (file,) = tmp_path.iterdir()
    assert (
        file.stat().st_size == 2 * len(tokens) and file.stem == f"tokens-{key[:16]}-{len(tokens)}"
    )
    other = text.train_vocabulary([corpus], SIZE - 50)
    assert text.stream([corpus], other, tmp_path)[1] != key
    another = prose.write(tmp_path / "another" / corpus.name, 20, seed=1)
    assert text.stream([another], tokenizer, tmp_path)[1] != key
    monkeypatch.setattr(text, "_encoded", None)
    again, same = text.stream([corpus], tokenizer, tmp_path)
    assert same == key and np.array_equal(again, tokens)
    whole = file.read_bytes()
    file.write_bytes(whole[:-2])
    with pytest.raises(DataError, match=f"is truncated: it is not {len(tokens)} tokens; remove it"):
        text.stream([corpus], tokenizer, tmp_path)


def test_a_stream_interrupted_is_not_there(
    corpus: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> object:
        yield np.zeros(9, np.uint16)
        raise KeyboardInterrupt

    monkeypatch.setattr(text, "_encoded", stopped)
    with pytest.raises(KeyboardInterrupt):
        text.stream([corpus], tokenizer, tmp_path)
    assert not list(tmp_path.glob("*.u16"))
    monkeypatch.undo()
    assert len(text.stream([corpus], tokenizer, tmp_path)[0]) > 1000
