"""A vocabulary file is one word a line, whatever its words are."""

from pathlib import Path

import pytest

from kaleido_fast.data.shards.tokenizer import SPECIAL, Tokenizer

WORDS = [*SPECIAL, "a", "\u2028", "\x85", "##b", "灯"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_only_line_ends_part_words(tmp_path: Path, line_end: bytes) -> None:
    """str.splitlines also parts at U+2028 and U+0085, which some published vocabularies hold as words."""
    (tmp_path / "vocab.txt").write_bytes(b"".join(word.encode() + line_end for word in WORDS))
    assert Tokenizer.from_vocab(tmp_path / "vocab.txt").words == tuple(WORDS)


def test_what_is_no_vocabulary_is_named(tmp_path: Path) -> None:
    for text, message in (
        ("a\nb\n", r"not a BERT vocabulary, \[PAD\]"),
        ("\n".join([*SPECIAL, "a", "a"]), r"words occur twice \(\['a'\]\)"),
    ):
        (tmp_path / "vocab.txt").write_text(text)
        with pytest.raises(ValueError, match=message):
            Tokenizer.from_vocab(tmp_path / "vocab.txt")
