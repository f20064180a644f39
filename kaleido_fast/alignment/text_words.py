"""Words of a text of word pieces: which pieces make a word, and which words name something to be seen."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

INNER = "##"  # begins a piece that goes on with the word before


class Word(NamedTuple):
    """Pieces first..last - 1 of a text, joined."""

    text: str
    first: int
    last: int

    @property
    def pieces(self) -> range:
        return range(self.first, self.last)


def words_of(ids: Sequence[int], vocabulary: Sequence[str]) -> list[Word]:
    """The words of a text's token ids (without special ones), in order."""
    words: list[Word] = []
    for place, token in enumerate(ids):
        piece = vocabulary[token]
        if piece.startswith(INNER) and words:
            before = words.pop()
            words.append(Word(before.text + piece[len(INNER) :], before.first, place + 1))
        else:
            words.append(Word(piece, place, place + 1))
    return words


def names_something(word: str, stop_words: Collection[str]) -> bool:
    """Whether a word may be aligned: it has a letter, is no special token and no stop word."""
    return any(letter.isalpha() for letter in word) and not word.startswith("[") and word not in stop_words
